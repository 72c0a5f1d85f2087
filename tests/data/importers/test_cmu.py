"""The CMU importer and the pipeline that all importers share."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tips_dist.data import cameras, importers, instants, procedural, store
from tips_dist.data.importers import splits, thinning
from tips_dist.files import UserError
from tips_dist.phases import Phase, listening

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "cmu_subjects_17.h5"


def write_cmu(path: Path, frames: int = 30) -> None:
    """A file laid out like the real one, filled with procedural motion turned back to y up."""
    _, truth = procedural.generate(frames * 2 * 10, seed=0)
    rooted = (truth - truth[:, :1]) * [1, -1, -1]
    with h5py.File(path, "w") as file:
        file.attrs["frame_rate_hz"] = 60.0
        for k, name in enumerate(
            [f"train/walking/walking_{n}" for n in (1, 2, 10)] + ["train/jumping/jumping_1", "test/walking/walking_3"]
        ):
            file[f"{name}/joints_3d"] = rooted[k * frames : (k + 1) * frames].astype("f4")


def test_splits_by_sequence_cameras_and_truth(tmp_path: Path) -> None:
    write_cmu(tmp_path / "cmu.h5")
    summary = importers.import_data(
        "cmu", tmp_path / "cmu.h5", tmp_path / "out", {"cameras": 3, "minimum_change_mm": 0.0, "stretches": 0}
    )
    poses = store.read_poses(tmp_path / "out.pose2d.h5")
    by_name = {name: set(poses.split[poses.sequence == k]) for k, name in enumerate(poses.sequence_names)}
    assert by_name == {
        "jumping/jumping_1": {0}, "walking/walking_1": {0}, "walking/walking_2": {1}, "walking/walking_10": {0},
        "walking/walking_3": {2},
    }  # fmt: skip
    assert poses.camera_names == ("view_0", "view_1", "view_2")
    with h5py.File(tmp_path / "out.truth3d.h5") as file:
        np.testing.assert_allclose(cameras.pinhole(file["joints"][:]), poses.poses, atol=1e-2)
    assert summary["seen"] == 5 * 30 * 3
    assert summary["kept"] == len(poses) == summary["seen"] - sum(summary["dropped"].values())


def test_actions_left_out_are_test_only(tmp_path: Path) -> None:
    write_cmu(tmp_path / "cmu.h5")
    importers.import_data("cmu", tmp_path / "cmu.h5", tmp_path / "out", {"leave_out": ["jumping"]})
    poses = store.read_poses(tmp_path / "out.pose2d.h5")
    jumping = [name.startswith("jumping/") for name in poses.sequence_names]
    assert set(poses.split[np.isin(poses.sequence, np.flatnonzero(jumping))]) == {2}
    assert set(poses.split) == {0, 1, 2}


def test_the_same_import_twice_is_the_same(tmp_path: Path) -> None:
    write_cmu(tmp_path / "cmu.h5")
    digests = [importers.import_data("cmu", tmp_path / "cmu.h5", tmp_path / name)["digest"] for name in "ab"]
    other = importers.import_data("cmu", tmp_path / "cmu.h5", tmp_path / "c", {"seed": 1})["digest"]
    assert digests[0] == digests[1] != other


@pytest.mark.parametrize(
    ("format", "options", "words"),
    [
        ("cmuu", {}, "did you mean 'cmu'"),
        ("cmu", {"camras": 3}, "did you mean 'cameras'"),
        ("cmu", {"cameras": 0}, "cameras"),
        ("cmu", {"leave_out": ["dancing"]}, "no action 'dancing' here; there are jumping, walking"),
    ],
)
def test_unknown_formats_and_options_are_refused(
    tmp_path: Path, format: str, options: dict[str, Any], words: str
) -> None:
    write_cmu(tmp_path / "cmu.h5")
    with pytest.raises(UserError, match=words):
        importers.import_data(format, tmp_path / "cmu.h5", tmp_path / "out", options)
    assert [path.name for path in tmp_path.iterdir()] == ["cmu.h5"]


def test_a_wrong_shape_half_way_names_it_and_leaves_nothing(tmp_path: Path) -> None:
    write_cmu(tmp_path / "cmu.h5")
    with h5py.File(tmp_path / "cmu.h5", "r+") as file:
        del file["test/walking/walking_3/joints_3d"]
        file["test/walking/walking_3/joints_3d"] = np.zeros((5, 16, 3), "f4")
    with pytest.raises(UserError, match=r"/test/walking/walking_3/joints_3d.*\(T, 17, 3\)"):
        importers.import_data("cmu", tmp_path / "cmu.h5", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["cmu.h5"]


def test_thinning_keeps_what_moved() -> None:
    shapes = np.zeros((6, 17, 3))
    shapes[:, 16, 0] = [0, 5, 11, 12, 30, 31]
    np.testing.assert_array_equal(thinning.thin(shapes, 10.0), [0, 2, 4])
    np.testing.assert_array_equal(thinning.thin(shapes, 0.0), np.arange(6))
    long = np.zeros((500, 17, 2))
    long[400:, 3, 1] = 1.0
    np.testing.assert_array_equal(thinning.thin(long, 0.5), [0, 400])


def test_jumps_faster_than_a_body_and_broken_frames_are_dropped(tmp_path: Path) -> None:
    write_cmu(tmp_path / "cmu.h5")
    with h5py.File(tmp_path / "cmu.h5", "r+") as file:
        joints = file["test/walking/walking_3/joints_3d"]
        joints[...] = joints[0]  # stands still, but for
        joints[10, 16] += 800  # a marker swap
        joints[20, 4] = np.nan  # and a lost marker
    summary = importers.import_data(
        "cmu", tmp_path / "cmu.h5", tmp_path / "out", {"minimum_change_mm": 0.0, "cameras": 1}
    )
    poses = store.read_poses(tmp_path / "out.pose2d.h5")
    kept = set(poses.frame[poses.rows("test")].tolist())
    assert set(range(30)) - kept == {9, 10, 11, 20}
    reasons = " ".join(summary["dropped"])
    assert "not finite" in reasons
    assert "faster than a body" in reasons


def test_rows_in_another_unit_are_dropped_and_counted(tmp_path: Path) -> None:
    write_cmu(tmp_path / "cmu.h5")
    with h5py.File(tmp_path / "cmu.h5", "r+") as file:
        file["test/walking/walking_3/joints_3d"][5:8] /= 1000  # three frames in metres among millimetres
    importers.import_data("cmu", tmp_path / "cmu.h5", tmp_path / "out", {"minimum_change_mm": 0.0, "cameras": 1})
    poses = store.read_poses(tmp_path / "out.pose2d.h5")
    assert not {5, 6, 7} & set(poses.frame[poses.rows("test")].tolist())


def test_an_import_says_how_far_it_is(tmp_path: Path) -> None:
    write_cmu(tmp_path / "cmu.h5")
    heard: list[Phase] = []
    with listening(heard.append):
        importers.import_data("cmu", tmp_path / "cmu.h5", tmp_path / "out")
    assert {phase.name for phase in heard} == {"importing cmu"}
    assert heard[-1].ended
    assert [phase.done for phase in heard] == sorted(phase.done for phase in heard)
    assert heard[-1].done > 0


def test_hold_out_is_spread_and_never_the_whole_group() -> None:
    assert splits.hold_out(["only"], 0.5) == set()
    assert splits.hold_out(["a", "b"], 0.15) == {"b"}
    assert splits.hold_out([str(k) for k in range(30)], 0.1) == {"5", "15", "25"}


def test_people_held_out_do_what_everybody_does() -> None:
    counts = {f"p{k}": {"walk": 100} for k in range(5)} | {"q": {"walk": 50, "run": 50}, "r": {"dance": 100}}
    assert splits.choose_people(counts, 0.28) == splits.choose_people(dict(reversed(counts.items())), 0.28)
    chosen = splits.choose_people(counts, 0.28)
    assert len(chosen) == 2
    assert "q" in chosen or "r" in chosen
    assert splits.choose_people(counts, 0.0) == set()
    assert splits.choose_people({"a": {"": 3}, "b": {"": 3}}, 0.3) == set()
    many = splits.choose_people({f"p{k:03d}": {"": 1 + k} for k in range(100)}, 0.2)
    assert len(many) == 20


def test_views_of_an_instant_stay_or_go_together() -> None:
    still, moving = np.zeros((6, 17, 3)), np.zeros((6, 17, 3))
    moving[3:, 16, 0] = 50.0
    frames = np.arange(6)
    kept = thinning.thin_together([(frames, still), (frames[1:], moving[1:]), (frames, still)], 10.0)
    assert [rows.tolist() for rows in kept] == [[0, 3], [2], [0, 3]]
    apart = thinning.thin_together([(frames, still), (frames + 100, moving)], 10.0)
    assert [rows.tolist() for rows in apart] == [[0], [0, 3]]


def test_stretches_are_unbroken_and_seen_by_every_view() -> None:
    frames = np.concatenate([np.arange(0, 40), np.arange(50, 90)])
    found = thinning.stretches([frames, frames[frames != 60]], 3, 8)
    assert len(found) == 3
    for run in found:
        assert (np.diff(run) == 1).all()
        assert len(run) == 8
        assert 60 not in run
    assert found[0][-1] < 40 < 50 <= found[-1][0]  # spread over the sequence
    assert np.diff(thinning.stretches([np.arange(0, 100, 5)], 1, 16)[0]).tolist() == [5] * 15
    assert thinning.stretches([np.arange(7)], 3, 8) == []
    assert thinning.stretches([np.zeros(50, int)], 3, 8) == []


@pytest.mark.skipif(not REAL.exists(), reason="the CMU file is not beside this checkout")
def test_the_real_file(tmp_path: Path) -> None:
    summary = importers.import_data("cmu", REAL, tmp_path / "cmu")
    with h5py.File(REAL) as file:
        frames = sum(s["joints_3d"].shape[0] for p in file.values() for a in p.values() for s in a.values())
    poses = store.read_poses(tmp_path / "cmu.pose2d.h5")
    assert summary["seen"] == 4 * frames
    assert summary["warnings"] == []
    assert min(summary["splits"].values()) > 5000
    people = {
        split: {poses.subject_names[k] for k in np.unique(poses.subject[poses.split == code])}
        for code, split in enumerate(store.SPLITS)
    }
    assert {split: len(names) for split, names in people.items()} == {"train": 6, "validation": 2, "test": 6}
    assert len(set.union(*people.values())) == 14
    groups = instants.instants(poses, poses.rows("validation"))
    assert sum(map(len, groups)) == len(poses.rows("validation"))  # all views of every instant
    assert {len(group) for group in groups} == {4}
    for rows in poses.stretches():
        assert len(rows) == 16
        assert (np.diff(poses.frame[rows]) == 1).all()
        assert set(poses.split[rows]) == {1}
