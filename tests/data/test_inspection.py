"""Inspection: counts that add up, findings that find, a picture that is one."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tips_dist.data import inspection, procedural, store
from tips_dist.files import UserError

MADE, _ = procedural.generate(400, seed=3)


def test_counts_add_up_and_the_answer_is_plain_json(tmp_path: Path) -> None:
    store.write_poses(tmp_path / "p.pose2d.h5", MADE, {"seed": 3})
    answer = inspection.inspect(tmp_path / "p.pose2d.h5")
    assert json.loads(json.dumps(answer)) == answer
    assert answer["poses"] == sum(split["poses"] for split in answer["splits"].values()) == 400
    assert answer["record"] == {"seed": 3}
    assert answer["digest"] == MADE.digest
    assert answer["findings"] == []
    low, high = answer["ranges"]["y_px"]
    assert (low, high) == (MADE.poses[..., 1].min(), MADE.poses[..., 1].max())


def test_findings_name_the_rows() -> None:
    poses, split = MADE.poses.copy(), MADE.split.copy()
    poses[30] = poses[10]
    poses[77] = 5.0
    split[0] = 1 - split[0]
    found = {item["check"]: item for item in inspection.findings(dataclasses.replace(MADE, poses=poses, split=split))}
    assert found["duplicates"]["rows"] == 1
    assert found["duplicates"]["first_row"] == 30
    assert found["zero_size"]["first_row"] == 77
    assert found["sequence_in_two_splits"]["rows"] == np.sum(MADE.sequence == MADE.sequence[0])


def test_draws_a_png_and_refuses_other_names(tmp_path: Path) -> None:
    store.write_poses(tmp_path / "p.pose2d.h5", MADE)
    inspection.draw(tmp_path / "p.pose2d.h5", tmp_path / "p.png", rows=3)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"\.png"):
        inspection.draw(tmp_path / "p.pose2d.h5", tmp_path / "p.jpg")
