"""The judge for other people's loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import tips_dist as td
from tests.test_geometry import people
from tips_dist import geometry
from tips_dist.cli import app
from tips_dist.files import UserError
from tips_dist.watch import Watch

VIEWS = geometry.project(people(0, 128)).numpy() * 1000 + 500


class Loop:
    """A lifter whose depths are one network's: x times a factor, which the loop moves; a stand-in for training."""

    def __init__(self) -> None:
        self.factor, self.saved = 1.0, list[Path]()

    def lift(self, poses: Any) -> Any:
        return self.factor * (poses[..., 0] * np.sign(poses[:, 2:3, 1]) + 0.3 * poses[..., 1])

    def save(self, path: Path) -> None:
        path.write_text(str(self.factor))
        self.saved.append(path)


def watched(loop: Loop, folder: Path, **others: Any) -> Watch:
    return Watch(VIEWS, loop.lift, folder, steps=1000, every=50, save=loop.save, **others)


def test_it_looks_when_due_keeps_the_lowest_risk_and_stops_what_explodes(tmp_path: Path) -> None:
    loop = Loop()
    watch = watched(loop, tmp_path / "run")
    assert [step for step in range(1, 101) if watch.due(step)] == [50, 100]
    for step in range(50, 1001, 50):
        loop.factor = 1.0 if step <= 400 else 20.0
        seen = watch.check(step, {"generator/loss": 0.5})
        assert seen.risk is not None
        if seen.stop:
            break
    assert seen.stop
    assert seen.verdict.kind in ("collapsed", "diverged")
    assert watch.best_step is not None
    assert watch.best_step <= 400
    assert watch.best_checkpoint is not None
    assert watch.best_checkpoint.read_text() == "1.0"
    assert len(list(watch.best_checkpoint.parent.iterdir())) <= 2
    run = td.RunFolder(watch.finish())
    (trial,) = run.trials
    assert trial.seed_outcomes[0].verdict == seen.verdict.kind
    assert len(run.frame()) == step // 50


def test_its_folder_is_a_run_folder_for_every_reader(tmp_path: Path) -> None:
    loop = Loop()
    watch = watched(loop, tmp_path / "run")
    for step in (50, 100):
        watch.check(step)
    folder = str(watch.finish())
    for command in (["summary", folder], ["status", folder], ["report", folder]):
        found = CliRunner().invoke(app, command)
        assert found.exit_code == 0, f"{command}: {found.output} {found.exception!r}"


def test_after_a_crash_it_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole, cut = watched(Loop(), tmp_path / "whole"), watched(Loop(), tmp_path / "cut")
    looks = [whole.check(step) for step in range(50, 501, 50)]
    for step in range(50, 251, 50):
        cut.check(step)
    again = watched(Loop(), tmp_path / "cut")
    assert [again.check(step) for step in range(300, 501, 50)] == looks[5:]
    assert again.judge.dump() == whole.judge.dump()
    with pytest.raises(UserError, match="step 500 was looked at already"):
        again.check(500)


def test_without_a_discriminator_nothing_is_said_of_one(tmp_path: Path) -> None:
    loop = Loop()
    seen = watched(loop, tmp_path / "without").check(50)
    assert not [name for name in seen.signals if name.startswith("discriminator/")]
    told = watched(loop, tmp_path / "with", discriminate=lambda poses: np.ones(len(poses))).check(50)
    assert told.signals["discriminator/fake"] == 1.0
    assert {name: value for name, value in told.signals.items() if name in seen.signals} == dict(seen.signals)


def test_tensors_and_arrays_give_the_same(tmp_path: Path) -> None:
    loop = Loop()
    arrays = watched(loop, tmp_path / "arrays").check(50)
    tensors = Watch(
        VIEWS,
        lambda poses: poses[..., 0] * poses[:, 2:3, 1].sign() + 0.3 * poses[..., 1],
        tmp_path / "tensors",
        steps=1000,
        every=50,
        tensors=True,
    ).check(50)
    assert tensors.risk == pytest.approx(arrays.risk, rel=1e-5)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    seen = watched(Loop(), tmp_path / "run").check(50, {"generator/loss": float("nan")})
    assert seen.stop
    assert seen.verdict.reason == "not finite: generator/loss"
    told = seen.metrics()
    assert np.isnan(told["generator/loss"])
    assert (told["verdict"], told["stop"], told["step"]) == ("non_finite", True, 50)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"poses": VIEWS[:, :5]}, r"expected finite numbers \(N, 17, 2\)"),
        ({"poses": VIEWS[:8]}, "8 validation poses; at least 32"),
        ({"lift": lambda poses: poses}, r"lift: gave \(128, 17, 2\) .*expected \(128, 17\)"),
        ({"discriminate": lambda poses: poses}, r"discriminate: gave \(256, 17, 2\)"),
        ({"subjects": [1, 2]}, "subjects: expected one for each of 128 poses"),
        ({"every": 300}, "not a multiple of evaluate_every"),
        ({"settings": {"stoping": {}}}, "stoping: unknown key"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    values = {"poses": VIEWS, "lift": Loop().lift, "folder": tmp_path / "run", "steps": 1000, "every": 50}
    with pytest.raises(UserError, match=said) as error:
        Watch(**{**values, **change}).check(50)
    assert "\n" not in str(error.value)


def test_a_folder_of_another_run_is_left_alone(tmp_path: Path) -> None:
    watched(Loop(), tmp_path / "run")
    with pytest.raises(UserError, match="holds a run on other poses"):
        Watch(VIEWS + 1, Loop().lift, tmp_path / "run", steps=1000, every=50)
    with pytest.raises(UserError, match="belongs to another run"):
        watched(Loop(), tmp_path / "run", name="other")
