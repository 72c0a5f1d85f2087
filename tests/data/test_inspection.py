"""Inspection: counts that add up, findings that find, a picture that is one."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tips_dist.data import hygiene, inspection, procedural, writer
from tips_dist.files import UserError
from tips_dist.skeleton import MIRROR

MADE, _ = procedural.generate(4000, seed=3)


def found(**changes: object) -> dict[str, hygiene.Finding]:
    poses = dataclasses.replace(MADE, **changes)  # type: ignore[arg-type]
    return {finding.check: finding for finding in hygiene.examine(poses, (1000, 1000))}


def test_counts_add_up_and_the_answer_is_plain_json(tmp_path: Path) -> None:
    writer.write_poses(tmp_path / "p.pose2d.h5", MADE, {"seed": 3})
    answer = inspection.inspect(tmp_path / "p.pose2d.h5")
    assert json.loads(json.dumps(answer)) == answer
    assert answer["poses"] == sum(split["poses"] for split in answer["splits"].values()) == len(MADE)
    assert answer["record"] == {"seed": 3}
    assert answer["digest"] == MADE.digest
    low, high = answer["ranges"]["y_px"]
    assert (low, high) == (MADE.poses[..., 1].min(), MADE.poses[..., 1].max())


def test_clean_data_has_no_findings() -> None:
    assert found() == {}


def test_duplicates_zero_size_and_leaking_sequences_are_found() -> None:
    poses, split = MADE.poses.copy(), MADE.split.copy()
    poses[30] = poses[10]
    poses[77] = 5.0
    split[0] = 1 - split[0]
    findings = found(poses=poses, split=split)
    assert findings["duplicates"].rows.tolist() == [30]
    assert findings["zero_size"].rows.tolist() == [77]
    np.testing.assert_array_equal(
        findings["sequence_in_two_splits"].rows, np.flatnonzero(MADE.sequence == MADE.sequence[0])
    )


def test_joints_out_of_the_image_are_found() -> None:
    poses = MADE.poses.copy()
    poses[5, 3, 0] = -1
    poses[6, 3, 1] = 1001
    assert found(poses=poses)["out_of_frame"].rows.tolist() == [5, 6]
    assert hygiene.out_of_frame(dataclasses.replace(MADE, poses=poses), None).nonzero()[0].tolist() == [5]


def test_left_right_swaps_are_found_where_they_happen_and_hardly_elsewhere() -> None:
    poses = MADE.poses.copy()
    frontal = np.abs(poses[:, 11, 0] - poses[:, 14, 0]) > 60  # seen from the side, a swap changes next to nothing
    swapped = [row for row in range(12, len(MADE), 41) if 2 < MADE.frame[row] < 20 and frontal[row]]
    poses[swapped] = poses[swapped][:, MIRROR]
    flagged = hygiene.left_right_swaps(dataclasses.replace(MADE, poses=poses))
    # The row after a swap changes back, so it is flagged as well.
    expected = set(swapped) | {row + 1 for row in swapped}
    assert len(set(swapped)) > 15
    assert flagged[swapped].mean() > 0.9
    assert set(np.flatnonzero(flagged)) <= expected
    assert not hygiene.left_right_swaps(MADE).any()


def test_near_copies_across_splits_are_found() -> None:
    poses = MADE.poses.copy()
    train, validation = MADE.rows("train"), MADE.rows("validation")
    copies = validation[: len(validation) // 5]
    poses[copies] = poses[train[: len(copies)]] * 1.1 + 7  # another place and another size, the same pose
    findings = found(poses=poses)
    assert set(copies) <= set(findings["near_copy_in_train"].rows)
    assert "% of validation" in findings["near_copy_in_train"].text


def test_draws_a_png_and_refuses_other_names(tmp_path: Path) -> None:
    poses = MADE.poses.copy()
    poses[9] = poses[8]
    writer.write_poses(tmp_path / "p.pose2d.h5", dataclasses.replace(MADE, poses=poses))
    inspection.draw_picture(tmp_path / "p.pose2d.h5", tmp_path / "p.png", rows=3)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"\.png"):
        inspection.draw_picture(tmp_path / "p.pose2d.h5", tmp_path / "p.jpg")
