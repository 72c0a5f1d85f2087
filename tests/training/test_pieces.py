"""Packs in pieces: the same numbers, less at once; and what happens when memory is out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.worlds import golden, of_their_own, tiny, world
from tips_dist.data.store import normalisation_scale, normalised
from tips_dist.files import UserError, read_json_lines
from tips_dist.training import engine, pieces
from tips_dist.training.loop import Progress, train
from tips_dist.training.state import State

EVERYTHING = (
    "torso_legs", "model.batch_norm=true", "model.dropout=0.2", "model.spectral_norm=true", "losses.r1=1",
    "losses.bend=1", "training.instance_noise=0.1", "training.gradient_clip=1",
)  # fmt: skip


@pytest.mark.parametrize(("seeds", "count", "sizes"), [(3, 2, [1, 2]), (4, 2, [2, 2]), (2, 5, [1, 1]), (1, 1, [1])])
def test_a_pack_is_cut_into_pieces_of_about_one_size(seeds: int, count: int, sizes: list[int]) -> None:
    rows = pieces.cut(seeds, count)
    assert [row.stop - row.start for row in rows] == sizes
    assert [index for row in rows for index in range(seeds)[row]] == list(range(seeds))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("overrides", [("solo",), EVERYTHING], ids=["plain", "everything"])
def test_pieces_change_no_number(overrides: tuple[str, ...], count: int) -> None:
    poses, configuration = world(), tiny(*overrides)
    found = []
    for cut in (1, count):
        state = State(configuration, (0, 1, 2), torch.device("cpu"))
        of_their_own(state, [tiny(*overrides, f"losses.cycle_2d={weight}") for weight in (5, 10, 20)])
        rows = normalised(poses, poses.rows("train"), normalisation_scale(poses))
        running = engine.Engine(state, engine.sampler_for(state, rows), pieces=cut)
        for _, batch in zip(range(3), running.batches(), strict=False):
            running.step(batch)
        found.append({**state.dump()[0], **state.sums})
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def short_of_memory(most: int, error: Callable[[], RuntimeError], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a step of more than ``most`` seeds run out of memory, once half of the first evaluation is reached."""
    step, asked = engine.adversarial_step, list[int]()  # type: ignore[attr-defined]

    def greedy(lifter: Any, discriminator: Any, batch: Any, *others: Any) -> Any:
        asked.append(len(batch.poses))
        if len(asked) > 15 and len(batch.poses) > most:
            raise error()
        return step(lifter, discriminator, batch, *others)

    monkeypatch.setattr(engine, "adversarial_step", greedy)
    return asked


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        lambda: RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
    ids=["card", "host"],
)
def test_out_of_memory_goes_on_with_a_smaller_pack_and_the_same_numbers(
    error: Callable[[], RuntimeError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration, rows = golden("solo")
    asked = short_of_memory(1, error, monkeypatch)
    told: list[Progress] = []
    train(configuration, [0, 1], world(), tmp_path, report=told.append)
    assert asked[0] == 2
    assert asked[-1] == 1
    assert told[-1].message == "memory is short: a step takes the seeds in 2 pieces"
    found = list(read_json_lines(tmp_path / "history.jsonl"))
    assert len(found) == len(rows)
    for row, expected in zip(found, rows, strict=True):
        assert {key: row[key] for key in ("step", "seed")} == {key: expected[key] for key in ("step", "seed")}
        assert row["generator/loss"] == pytest.approx(expected["generator/loss"], rel=5e-3)


def test_out_of_memory_for_good_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_of_memory(0, lambda: torch.OutOfMemoryError("CUDA out of memory.\nMore"), monkeypatch)
    with pytest.raises(UserError, match=r"one seed at a time as well: lower training\.batch_size.*CUDA out of memory"):
        train(tiny("solo"), [0, 1, 2], world(), tmp_path)


def test_another_error_is_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = short_of_memory(0, lambda: RuntimeError("a bug"), monkeypatch)
    with pytest.raises(RuntimeError, match="a bug"):
        train(tiny("solo"), [0, 1], world(), tmp_path)
    assert len(asked) == 16
