"""What of a trial goes on and what starts anew; tests/attack damages real runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tips_dist.runfolder import example, layout
from tips_dist.study.mending import mend


@pytest.mark.parametrize(
    ("last", "checkpoint", "anew"),
    [
        (400, 445, False),  # stopped between two evaluations: the next one is due at 450
        (450, 450, False),
        (500, 450, False),  # killed after an evaluation, before its checkpoint
        (350, 445, True),
        (400, 450, True),
    ],
)
def test_a_history_that_ends_before_the_checkpoint(tmp_path: Path, last: int, checkpoint: int, anew: bool) -> None:
    resolved = example.study(training={"evaluate_every": 50, "record_depths": False})
    record = example.study_record(resolved)
    record.save(layout.STUDY.at(tmp_path))
    layout.STUDY_TEXT.at(tmp_path).write_text("name: synthetic\nrepresentations: [solo]\n")
    trial = example.trial(seeds=[0], configuration=resolved.configuration("solo"))
    trial.write(tmp_path)
    history = layout.HISTORY.at(tmp_path, trial.id)
    example.history({0: [1.0] * (last // 50)}, every=50).save(history)
    weights = trial.folder(tmp_path) / "checkpoint" / f"step-{checkpoint:06d}.safetensors"
    weights.parent.mkdir()
    weights.touch()
    notes = mend(tmp_path, record)
    assert any("starts anew" in note for note in notes) == anew
    assert weights.exists() != anew
