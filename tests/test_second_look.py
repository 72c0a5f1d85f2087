"""The second look: on many poses, of every candidate, what it says decides, and what it cannot use it says."""

from pathlib import Path

import pytest
import torch

from tests.evaluation.examples import fitted_lifter, study_record, true_offsets
from tips_dist.data import procedural
from tips_dist.data.store import Poses, normalisation_scale, normalised
from tips_dist.models import save_weights
from tips_dist.runfolder import Selection, example, layout
from tips_dist.runfolder.example import outcome
from tips_dist.second_look import Looker
from tips_dist.selection import select
from tips_dist.stability.risk import regimes


@pytest.fixture(scope="module")
def poses() -> Poses:
    return procedural.generate(3000, seed=3)[0]


@pytest.fixture(scope="module")
def files(poses: Poses, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one seed with a good candidate, which training thought worse, a flat one, and a damaged one."""
    run = tmp_path_factory.mktemp("run")
    made, joints = procedural.generate(3000, seed=3)
    scale, rows = normalisation_scale(made), made.rows("train")
    inputs = torch.from_numpy(normalised(made, rows, scale))
    study_record(made, scale).save(layout.STUDY.at(run))
    seed = outcome(0, 1.0, step=100).model_copy(update={"candidates": [100, 50, 150, 200]})
    trial = example.trial("solo-000", [seed]).write(run)
    for step, share, risk in ((50, 1.0, 2.0), (100, 0.05, 1.0)):
        lifter = fitted_lifter("solo", inputs, share * true_offsets(made, joints)[rows])
        about = {"scale": scale, "part_signs": [1], "sign_confidence": [0.9], "risk": risk, "step": step}
        save_weights(run / layout.candidate_file(trial.id, 0, step), lifter, 0, about)
    (run / layout.candidate_file(trial.id, 0, 150)).write_bytes(b"damaged")
    return run


def test_the_second_look_decides(files: Path, poses: Poses) -> None:
    first = select(files).seeds[0]
    assert (first.step, first.second_risk) == (100, None)
    found = select(files, Looker(poses, normalisation_scale(poses)))
    row = found.seeds[0]
    assert (row.step, row.risk) == (50, 2.0)
    assert row.second_risk is not None
    looks = {look.step: look for look in row.looks}
    assert looks[50].second_risk < looks[100].second_risk  # type: ignore[operator]
    assert "is damaged" in (looks[150].note or "")
    assert "is missing" in (looks[200].note or "")
    assert [teacher.step for teacher in found.teachers] == [50, 100]
    assert found.second_look is not None
    assert found.second_look.regime == "views"
    assert found.second_look.plus_minus == regimes()[0].plus_minus
    assert found.second_look.poses == len(poses.rows("validation"))
    assert Selection.load(files / "selection.json") == found
    before = (files / "selection.json").read_bytes()
    select(files, Looker(poses, normalisation_scale(poses)))
    assert (files / "selection.json").read_bytes() == before


def test_what_cannot_be_used_is_said(files: Path, poses: Poses) -> None:
    looker = Looker(poses, normalisation_scale(poses))
    trial = example.trial("solo-000", [outcome(0)])
    seen = looker.look(files / layout.candidate_file("solo-000", 0, 150), trial.configuration)
    assert seen.risk is None
    assert "cannot be looked at again" in (seen.note or "")


def test_a_selection_of_one_stage_is_read(files: Path) -> None:
    text = '{"schema": 1, "rule": "lowest risk", "teachers": [], "seeds": []}'
    assert Selection.parse(text, "old").second_look is None
