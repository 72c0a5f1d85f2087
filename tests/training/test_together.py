"""Several trials as one program: each has the numbers, records and ends that it has alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_execution import equal
from tests.training.test_loop import StopAfter, history, records
from tests.training.worlds import golden, tiny, world
from tips_dist.config import Configuration
from tips_dist.files import UserError
from tips_dist.runfolder import Outcome
from tips_dist.training import engine, together
from tips_dist.training.job import Job, program
from tips_dist.training.loop import Interrupted, Progress, train
from tips_dist.training.together import train_together

# What trials may differ in within a pack, all of it.
DIFFERENT = (
    ("training.average=0.9",),
    (
        "training.average=0.8", "training.generator_lr=1e-3", "training.discriminator_lr=5e-4",
        "training.final_lr_factor=0.1", "training.weight_decay=1e-3", "training.beta1=0.5", "training.beta2=0.99",
        "training.flip_probability=0.1", "training.azimuth_degrees=90", "training.elevation_degrees=30",
        "losses.cycle_2d=4", "losses.consistency_90=1", "losses.adversarial=0.5", "losses.label_swap=0.2",
        "losses.real_label=0.9", "training.validation_poses=48", "training.candidates=3",
    ),
    ("training.average=0.99", "training.checkpoint_every=1", "training.judge=both"),
)  # fmt: skip
NOISY = ("training.instance_noise=0.2", "training.gradient_clip=0.5", "losses.bend=1", "losses.r1=1")


def pack(
    folder: Path, configurations: dict[str, Configuration], seeds: dict[str, list[int]] | None = None, **options: Any
) -> dict[str, Outcome | Exception]:
    """Train trials together, each in a folder of its name; what each returned or raised, in the order of their ends."""
    found: dict[str, Outcome | Exception] = {}
    names, reports = list(configurations), options.pop("reports", {})
    jobs = [
        Job(one, (seeds or {}).get(name, [0, 1]), folder / name, report=reports.get(name))
        for name, one in configurations.items()
    ]
    train_together(jobs, world(), lambda place, end: found.update({names[place]: end}), **options)
    return found


def three(*more: str) -> dict[str, Configuration]:
    return {str(k): tiny("torso_legs", *own, *more) for k, own in enumerate(DIFFERENT)}


def alike(folder: Path, name: str, alone: Path, rel: float = 2e-3) -> None:
    equal(folder / name, history(alone), rel)


@pytest.mark.parametrize("more", [(), NOISY], ids=["plain", "everything"])
def test_trials_together_have_the_numbers_that_they_have_alone(tmp_path: Path, more: tuple[str, ...]) -> None:
    """Losses, signals and risks of 40 steps within 0.2 %, as for packed seeds; same seeds and others."""
    seeds = {"0": [0, 1], "1": [1], "2": [5, 0, 3]}
    found = pack(tmp_path, three(*more), seeds)
    for name, configuration in three(*more).items():
        outcome = train(configuration, seeds[name], world(), tmp_path / "alone" / name)
        alike(tmp_path, name, tmp_path / "alone" / name)
        end = found[name]
        assert isinstance(end, Outcome)
        assert [seed.verdict for seed in end.seeds] == [seed.verdict for seed in outcome.seeds]
        assert [seed.candidates for seed in end.seeds] == [seed.candidates for seed in outcome.seeds]
        assert (end.execution.trials, outcome.execution.trials) == (3, 1)


@pytest.mark.parametrize("name", ["averaged", "stabilised", "counted"])
def test_golden_losses_in_a_pack(tmp_path: Path, name: str) -> None:
    configuration, rows = golden(name)
    other, _ = golden(name, "training.generator_lr=1e-3", "losses.cycle_2d=3")
    pack(tmp_path, {"other": other, "golden": configuration})
    equal(tmp_path / "golden", rows)


@pytest.mark.parametrize("stop_at", [25, 7])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, stop_at: int) -> None:
    pack(tmp_path / "whole", three())
    ends = pack(tmp_path / "cut", three(), should_stop=StopAfter(stop_at))
    assert all(isinstance(end, Interrupted) for end in ends.values())
    pack(tmp_path / "cut", three())
    for name in three():
        assert records(tmp_path / "cut" / name) == records(tmp_path / "whole" / name)


def test_those_behind_catch_up_and_then_train_with_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted):
        train(three()["0"], [0, 1], world(), tmp_path / "0", should_stop=StopAfter(25))
    sizes, real = [], together.Pack.take

    def spied(self: Any, engines: Any, stop: Any) -> Any:
        sizes.append((engines[0].state.step, len(engines)))
        return real(self, engines, stop)

    monkeypatch.setattr(together.Pack, "take", spied)
    pack(tmp_path, three())
    assert sizes == [(0, 2), (10, 2), (20, 2), (25, 1), (30, 3)]
    train(three()["0"], [0, 1], world(), tmp_path / "alone")
    alike(tmp_path, "0", tmp_path / "alone")


def test_the_failure_of_one_is_not_that_of_the_others(tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        if progress.step == 20:
            raise ValueError("told to")

    ends = pack(tmp_path, three(), reports={"1": fail})
    assert list(ends) == ["1", "0", "2"]  # told when it happens
    assert isinstance(ends["1"], ValueError)
    for name in ("0", "2"):
        train(three()[name], [0, 1], world(), tmp_path / "alone" / name)
        alike(tmp_path, name, tmp_path / "alone" / name)


def broken(monkeypatch: pytest.MonkeyPatch, raises: Any) -> None:
    """Let steps raise what ``raises`` gives for their batch's number of rows, if anything."""
    step = engine.adversarial_step  # type: ignore[attr-defined]

    def breaking(lifter: Any, discriminator: Any, batch: Any, *others: Any) -> Any:
        error = raises(len(batch.poses))
        if error is not None:
            raise error
        return step(lifter, discriminator, batch, *others)

    monkeypatch.setattr(engine, "adversarial_step", breaking)


def test_a_program_that_fails_for_all_is_left_for_each_trial_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    broken(monkeypatch, lambda rows: RuntimeError("no such product") if rows > 2 else None)
    ends = pack(tmp_path, three(), reports={"0": lambda progress: notes.append(progress.message)})
    assert all(isinstance(end, Outcome) and end.execution.trials == 1 for end in ends.values())
    assert "its pack's program failed (RuntimeError: no such product)" in notes[-1]
    monkeypatch.undo()
    train(three()["0"], [0, 1], world(), tmp_path / "alone")
    alike(tmp_path, "0", tmp_path / "alone")


def test_a_trial_whose_own_steps_fail_leaves_the_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = {"0": [0, 1], "1": [0, 1, 2], "2": [0, 1]}
    broken(monkeypatch, lambda rows: RuntimeError("odd") if rows in (3, 7) else None)
    ends = pack(tmp_path, three(), seeds)
    assert isinstance(ends["1"], RuntimeError)
    assert all(isinstance(ends[name], Outcome) and ends[name].execution.trials == 2 for name in ("0", "2"))  # type: ignore[union-attr]


def test_out_of_memory_cuts_the_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    broken(monkeypatch, lambda rows: torch.OutOfMemoryError("out of memory") if rows > 2 else None)
    ends = pack(tmp_path, three(), reports={"0": lambda progress: notes.append(progress.message)})
    assert all(isinstance(end, Outcome) and end.execution.trials == 3 for end in ends.values())
    assert "in 4 pieces" in notes[-1]
    monkeypatch.undo()
    train(three()["0"], [0, 1], world(), tmp_path / "alone")
    alike(tmp_path, "0", tmp_path / "alone")


def test_seeds_that_end_leave_the_pack_and_may_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate that blows one trial up ends its seeds; the others have as many rows fewer, and the numbers of before."""
    wild = {**three(), "1": tiny("torso_legs", "training.average=0.8", "training.generator_lr=1e38")}
    rows: list[int] = []
    broken(monkeypatch, rows.append)
    ends = pack(tmp_path, wild)
    assert [seed.verdict for seed in ends["1"].seeds] == ["non_finite"] * 2  # type: ignore[union-attr]
    assert (rows[0], rows[-1]) == (6, 4)
    train(wild["0"], [0, 1], world(), tmp_path / "alone")
    alike(tmp_path, "0", tmp_path / "alone")


@pytest.mark.parametrize(
    ("own", "same"),
    [
        ("training.generator_lr=1e-3", True),
        ("losses.cycle_2d=3", True),
        ("training.validation_poses=100", True),
        ("training.judge=both", True),
        ("training.judge=raw", False),
        ("losses.bend=1", False),
        ("losses.cycle_2d=0", False),
        ("training.average=0", False),
        ("training.instance_noise=0.1", False),
        ("training.batch_size=32", False),
        ("training.steps=60", False),
        ("model.width=32", False),
        ("training.turns=all", False),
        ("training.precision=bf16", False),
        ("losses.adversarial_kind=cross_entropy", False),
    ],
)
def test_what_is_one_program(own: str, same: bool) -> None:
    assert (program(tiny("solo", own)) == program(tiny())) is same


def test_other_programs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another program"):
        pack(tmp_path, {"a": tiny(), "b": tiny("torso_legs")})
