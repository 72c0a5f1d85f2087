"""Stopping only costs time: a frozen seed that is thawed ends exactly as if no verdict had ever stopped it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from tests.training.test_loop import StopAfter, history, poison
from tests.training.worlds import came_to, tiny, world
from tips_dist.config import Configuration
from tips_dist.runfolder import Outcome
from tips_dist.runfolder.weights import read_frozen_record
from tips_dist.stability.detectors import Judge
from tips_dist.stability.verdicts import PLATEAUED, Verdict
from tips_dist.training.execution import Plan
from tips_dist.training.loop import Interrupted, Progress, train

ON = "stopping.plateau=default"
RECIPE = ("torso_legs", "model.batch_norm=true", "model.dropout=0.1", "training.average=0.9", "losses.bend=1")


@pytest.fixture
def plateaus(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[int, int]], None]:
    """Let seeds be judged plateaued from given steps on, whatever they do."""
    made: list[Judge] = []
    begin, real = Judge.__init__, Judge.update

    def init(self: Judge, *rest: Any, **others: Any) -> None:
        begin(self, *rest, **others)
        made.append(self)

    def plan(steps: Mapping[int, int], seeds: int = 3) -> None:
        def update(self: Judge, step: int, signals: Any) -> Verdict:
            index = next(place for place, one in enumerate(made) if one is self) % seeds
            verdict = real(self, step, signals)
            if index in steps and step >= steps[index] and verdict.kind != PLATEAUED:
                self.lasting = Verdict(PLATEAUED, f"told to at {step}", step)
            return self.verdict

        monkeypatch.setattr(Judge, "update", update)

    monkeypatch.setattr(Judge, "__init__", init)
    return plan


def never_stopped(folder: Path, *overrides: str) -> Outcome:
    return train(tiny(*RECIPE, *overrides), [0, 1, 2], world(), folder)


def stopping(*overrides: str) -> Configuration:
    return tiny(*RECIPE, ON, *overrides)


def left(folder: Path) -> dict[str, Any]:
    """What a run leaves behind, without what is named after its configuration (which says whether it stops)."""
    found: dict[str, Any] = {"history": (folder / "history.jsonl").read_bytes()}
    found["depths"] = (folder / "depths.npy").read_bytes()
    for path in sorted((folder / "candidates").iterdir()):
        tensors = safetensors.torch.load_file(path)
        found[path.name] = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    return found


def test_a_seed_that_a_verdict_stops_is_frozen_with_its_reason(tmp_path: Path, plateaus: Any) -> None:
    plateaus({1: 20})
    outcome = train(stopping(), [0, 1, 2], world(), tmp_path)
    assert [(seed.stopped_step, seed.frozen, seed.thawed) for seed in outcome.seeds] == [
        (40, None, None),
        (20, 20, None),
        (40, None, None),
    ]
    (path,) = (tmp_path / "frozen").iterdir()
    record = read_frozen_record(path)
    assert (record.seed, record.step, record.verdict, record.reason) == (1, 20, "plateaued", "told to at 20")
    alone = sum(tensor.nelement() for tensor in safetensors.torch.load_file(path).values())
    (_, last) = sorted((tmp_path / "checkpoint").iterdir())
    pack = sum(tensor.nelement() for tensor in safetensors.torch.load_file(last).values())
    assert 2 * alone == pack  # as much as its rows would take of a checkpoint


def test_thawed_equals_never_stopped_to_the_byte(tmp_path: Path, plateaus: Any) -> None:
    """All stop at once, so that even the pack is the same."""
    plateaus({0: 20, 1: 20, 2: 20})
    whole = never_stopped(tmp_path / "whole")
    cut = train(stopping(), [0, 1, 2], world(), tmp_path / "cut")
    assert [seed.stopped_step for seed in cut.seeds] == [20] * 3
    thawed = train(stopping(), [0, 1, 2], world(), tmp_path / "cut", thaw=[0, 1, 2])
    assert left(tmp_path / "cut") == left(tmp_path / "whole")
    for one, other in zip(thawed.seeds, whole.seeds, strict=True):
        assert one.model_copy(update={"thawed": None}) == other
    assert [seed.thawed for seed in thawed.seeds] == [20] * 3
    assert thawed.parameters == whole.parameters


def test_each_joins_the_pack_at_the_step_at_which_it_stopped(tmp_path: Path, plateaus: Any) -> None:
    """Whatever it is packed with meanwhile: on a CPU to the last bit, as these layers fill its vectors."""
    plateaus({0: 30, 2: 10})
    never_stopped(tmp_path / "whole")
    train(stopping(), [0, 1, 2], world(), tmp_path / "cut")
    packs: list[tuple[int, int]] = []
    outcome = train(
        stopping(),
        [0, 1, 2],
        world(),
        tmp_path / "cut",
        thaw=[2, 0],
        report=lambda progress: packs.append((progress.step, progress.active_seeds)),
    )
    assert packs == [(20, 1), (30, 2), (40, 2)]
    assert [seed.thawed for seed in outcome.seeds] == [30, None, 10]
    assert [seed.stopped_step for seed in outcome.seeds] == [40] * 3
    assert left(tmp_path / "cut") == left(tmp_path / "whole")
    assert [path.name for path in (tmp_path / "cut" / "frozen").iterdir()] == ["seed0.safetensors"]  # see KEPT


def test_killed_or_interrupted_while_it_thaws_ends_the_same(tmp_path: Path, plateaus: Any) -> None:
    """Whatever the step at which it is interrupted, and killed after that."""
    plateaus({0: 20, 1: 30}, 2)

    def go_on(name: str, **options: Any) -> None:
        train(stopping("training.checkpoint_every=1"), [0, 1], world(), tmp_path / name, **options)

    go_on("calm")
    for stop_at in (0, 7, 10, 15):
        shutil.copytree(tmp_path / "calm", tmp_path / f"cut {stop_at}")
    go_on("calm", thaw=[0, 1])
    for stop_at in (0, 7, 10, 15):
        name = f"cut {stop_at}"
        with pytest.raises(Interrupted):
            go_on(name, thaw=[0, 1], should_stop=StopAfter(stop_at))
        with pytest.raises(SystemExit):
            go_on(name, thaw=[0, 1], report=killed)
        go_on(name, thaw=[0, 1])
        assert left(tmp_path / name) == left(tmp_path / "calm"), stop_at


def killed(progress: Progress) -> None:
    raise SystemExit


def test_killed_after_it_was_frozen_and_before_the_checkpoint(tmp_path: Path, plateaus: Any) -> None:
    """Frozen at step 30, the last checkpoint is of step 20: it is frozen again, to the same bytes."""
    plateaus({1: 30})
    train(stopping(), [0, 1, 2], world(), tmp_path / "calm")

    def killed_at_30(told: Progress) -> None:
        if told.step == 30:
            killed(told)

    with pytest.raises(SystemExit):
        train(stopping(), [0, 1, 2], world(), tmp_path / "cut", report=killed_at_30)
    train(stopping(), [0, 1, 2], world(), tmp_path / "cut")
    for name in ("calm", "cut"):
        assert read_frozen_record(tmp_path / name / "frozen" / "seed1.safetensors").step == 30
    frozen = [(tmp_path / name / "frozen" / "seed1.safetensors").read_bytes() for name in ("calm", "cut")]
    assert frozen[0] == frozen[1]
    assert left(tmp_path / "cut") == left(tmp_path / "calm")


def test_thawing_twice_changes_nothing(tmp_path: Path, plateaus: Any) -> None:
    plateaus({1: 20})
    train(stopping(), [0, 1, 2], world(), tmp_path)
    first = train(stopping(), [0, 1, 2], world(), tmp_path, thaw=[1])
    before = left(tmp_path)
    assert came_to(train(stopping(), [0, 1, 2], world(), tmp_path, thaw=[1])) == came_to(first)
    assert left(tmp_path) == before


def test_a_state_that_is_gone_or_damaged_stays_where_it_stopped(tmp_path: Path, plateaus: Any) -> None:
    plateaus({0: 10, 1: 20, 2: 20})
    before = train(stopping(), [0, 1, 2], world(), tmp_path)
    (tmp_path / "frozen" / "seed0.safetensors").unlink()
    damaged = tmp_path / "frozen" / "seed1.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-50])
    after = train(stopping(), [0, 1, 2], world(), tmp_path, thaw=[0, 1, 2])
    assert [seed.stopped_step for seed in after.seeds] == [10, 20, 40]
    assert [seed.frozen for seed in after.seeds] == [None, None, None]
    assert after.seeds[0].model_copy(update={"frozen": 10}) == before.seeds[0]


def test_a_seed_whose_numbers_are_gone_is_not_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, row=1, at_step=15, value=float("nan"))
    outcome = train(tiny(), [0, 1], world(), tmp_path, thaw=[1])
    assert outcome.seeds[1].verdict == "non_finite"
    assert [(seed.frozen, seed.thawed) for seed in outcome.seeds] == [(None, None), (None, None)]
    assert not (tmp_path / "frozen").exists()


def test_a_verdict_at_the_last_step_freezes_nothing(tmp_path: Path, plateaus: Any) -> None:
    plateaus({0: 40})
    outcome = train(stopping(), [0, 1, 2], world(), tmp_path)
    assert [(seed.stopped_step, seed.frozen) for seed in outcome.seeds] == [(40, None)] * 3


@pytest.mark.usefixtures("warm_workers")
def test_several_workers_thaw_like_one(tmp_path: Path, plateaus: Any) -> None:
    plateaus({0: 30, 2: 10})
    for name, plan in (("one", Plan()), ("two", Plan(workers=2, threads=2))):
        train(stopping(), [0, 1, 2], world(), tmp_path / name, plan=plan)
        train(stopping(), [0, 1, 2], world(), tmp_path / name, plan=plan, thaw=[0, 2])
    assert_close(history(tmp_path / "two"), history(tmp_path / "one"))


def assert_close(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """The rounding of another pack apart, as in ``test_packed_equals_alone``."""
    assert [(row["step"], row["seed"]) for row in found] == [(row["step"], row["seed"]) for row in expected]
    for one, other in zip(found, expected, strict=True):
        for key, value in other.items():
            if isinstance(value, float):
                assert one[key] == pytest.approx(value, rel=2e-3, abs=1e-4), key
