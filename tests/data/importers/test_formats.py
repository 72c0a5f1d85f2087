"""What is particular to single formats: their errors, their security, their arithmetic."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from tests.data.importers import layouts
from tests.data.importers.layouts import FRAMES, LAYOUTS, Layout
from tips_dist.data import importers, npz, store
from tips_dist.data.importers import bvh, calibration, unpickling
from tips_dist.files import UserError
from tips_dist.skeleton import J


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def refused(layout: Layout, tmp_path: Path, match: str, **options: Any) -> None:
    with pytest.raises(UserError, match=match):
        importers.import_data(layout.format, layout.source, tmp_path / "out", layout.options | options)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# --- pickles and archives ----------------------------------------------------------------------------------------


def test_pickles_are_read_only_when_allowed(source: Path, tmp_path: Path) -> None:
    layout = LAYOUTS["h36m_videopose3d"](source)
    refused(layout, tmp_path, "allow_pickle=true", allow_pickle=False)


class _Evil:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@pytest.mark.parametrize(
    "evil",
    [
        _Evil(os.system, "touch PWNED"),
        _Evil(eval, "1"),
        _Evil(np.ndarray, (10**12,)),
        _Evil(np.load, "x"),
        _Evil(bytes, 10**12),
        _Evil(np.dtype, "V1000000000"),
        _Evil(getattr, "x", "upper"),
        {"S1": {"Walking": _Evil(os.getcwd)}},
    ],
)
def test_the_unpickler_refuses_everything_but_plain_data(
    evil: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.npz"
    np.savez(path, positions_3d=np.array({"a": 1}, dtype=object))
    with npz.archive(path) as archive:
        assert unpickling.load_object(archive, path, "positions_3d") == {"a": 1}
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    header += b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("positions_3d.npy", header + pickle.dumps(np.array(evil, dtype=object), protocol=4))
    with pytest.raises(UserError, match=r"evil\.npz: positions_3d: cannot be unpickled"), npz.archive(path) as archive:
        unpickling.load_object(archive, path, "positions_3d")
    assert not (tmp_path / "PWNED").exists()


def test_the_unpickler_gives_back_what_numpy_stored(tmp_path: Path) -> None:
    value = {
        "S1": {"a": [np.arange(6, dtype=">f8").reshape(2, 3), np.asfortranarray(np.ones((2, 3), "f4"))]},
        "n": 3, "x": 1.5, "none": None, "t": ("a", b"b"), "scalar": np.float32(2.5), "u": np.array(["ab", "c"]),
        "nested": np.array([np.zeros(2), np.zeros(3)], dtype=object),
    }  # fmt: skip
    np.savez_compressed(tmp_path / "v.npz", v=np.array(value, dtype=object))
    with npz.archive(tmp_path / "v.npz") as archive:
        read = unpickling.load_object(archive, tmp_path / "v.npz", "v")
    np.testing.assert_array_equal(read["S1"]["a"][0], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(read["S1"]["a"][1], np.ones((2, 3)))
    assert (read["n"], read["x"], read["none"], read["t"], read["scalar"]) == (3, 1.5, None, ["a", b"b"], 2.5)
    assert read["u"].tolist() == ["ab", "c"]
    assert [len(item) for item in read["nested"]] == [2, 3]


def test_a_pickle_in_plain_arrays_is_refused(source: Path, tmp_path: Path) -> None:
    np.savez(source / "a.npz", poses=np.array([{}], dtype=object))
    refused(Layout("arrays", source / "a.npz"), tmp_path, "poses: is a pickled object")


def test_a_zip_bomb_is_refused(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(source / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("poses.npy", "w") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": (10**7, 17, 2)})
        for _ in range(40):
            out.write(bytes(10**6))
    refused(Layout("arrays", source / "a.npz"), tmp_path, "shorter than its shape")
    content = bytearray((source / "a.npz").read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = (4 * 10**9).to_bytes(4, "little")  # what the directory says it unpacks to
    (source / "a.npz").write_bytes(bytes(content))
    refused(Layout("arrays", source / "a.npz"), tmp_path, "zip bomb")


# --- named arrays ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("poses", np.zeros((8, 16, 2), "f4"), r"poses has shape \(8, 16, 2\), expected \(8, 17, 2\)"),
        ("poses", np.zeros((8, 17, 2), "i4"), "poses is int32, expected floats"),
        ("joints", np.zeros((7, 17, 3)), r"joints has shape \(7, 17, 3\), expected \(8, 17, 3\)"),
        ("split", np.array(["train"] * 7 + ["tset"]), "split row 7: 'tset' is none of train"),
        ("sequence", np.zeros(8), "sequence is float64"),
        ("frame", np.arange(8) + 2**40, "frame numbers from 1099511627776 to .* do not fit"),
    ],
)
def test_arrays_of_a_wrong_kind_are_named(source: Path, tmp_path: Path, name: str, value: Any, match: str) -> None:
    poses = layouts.seen(0, 1)[0][0, :8]
    np.savez(source / "a.npz", **{"poses": poses, name: value})
    refused(Layout("arrays", source / "a.npz"), tmp_path, match)


def test_poses_alone_are_cut_into_pieces_without_truth(source: Path, tmp_path: Path) -> None:
    poses = np.concatenate([layouts.seen(k, 1)[0][0] for k in range(8)])
    for order in ("C", "F"):
        np.savez(source / "a.npz", poses=np.asarray(poses, dtype="f4", order=order))
        summary = importers.import_data("arrays", source / "a.npz", tmp_path / "out", {"minimum_change_2d": 0.0})
        read = store.read_poses(tmp_path / "out.pose2d.h5")
        assert summary["truth3d"] is None
        assert len(read.sequence_names) == 10
        assert all(len(read.rows(split)) > 10 for split in store.SPLITS)
        np.testing.assert_allclose(read.poses[np.argsort(read.frame)], poses, atol=1e-3)


def test_rows_that_alternate_between_cameras_are_put_in_order(source: Path, tmp_path: Path) -> None:
    poses, joints = layouts.seen(0, 2)
    mixed = np.stack([np.arange(FRAMES), np.arange(FRAMES)], axis=1).ravel()
    camera = np.tile([0, 1], FRAMES)
    np.savez(
        source / "a.npz", poses=poses[camera, mixed], joints=joints[camera, mixed] / 1000, camera=camera,
        frame=mixed, split=np.zeros(2 * FRAMES, "i4"),
    )  # fmt: skip
    options = {"unit_mm": 1000.0, "minimum_change_mm": 0.0}
    importers.import_data("arrays", source / "a.npz", tmp_path / "out", options)
    read = store.read_poses(tmp_path / "out.pose2d.h5")
    for code in range(2):
        rows = read.camera == code
        np.testing.assert_allclose(
            read.poses[rows][np.argsort(read.frame[rows])], poses[int(read.camera_names[code])], atol=1e-3
        )


# --- MATLAB ------------------------------------------------------------------------------------------------------


def test_matlab_versions_are_told_apart(source: Path, tmp_path: Path) -> None:
    train, test = LAYOUTS["mpi_inf_3dhp"](source), LAYOUTS["mpi_inf_3dhp_test"](source)
    old, new = source / "S1/Seq1/annot.mat", source / "TS1/annot_data.mat"
    contents = old.read_bytes(), new.read_bytes()
    old.write_bytes(contents[1])
    refused(train, tmp_path, "annot.mat: is MATLAB 7.3 .* expected MATLAB 5")
    old.write_bytes(contents[0])
    new.write_bytes(contents[0])
    refused(test, tmp_path, "annot_data.mat: is MATLAB 5, expected MATLAB 7.3")


def test_wrong_joint_counts_are_named(source: Path, tmp_path: Path) -> None:
    train = LAYOUTS["mpi_inf_3dhp"](source)
    cells = np.empty((14, 1), dtype=object)
    for k in range(14):
        cells[k, 0] = np.zeros((FRAMES, 34))
    scipy.io.savemat(source / "S1/Seq2/annot.mat", {"annot2": cells, "annot3": cells, "univ_annot3": cells})
    refused(train, tmp_path, r"Seq2.annot\.mat: annot2, camera 0: is float64 \(25, 34\), expected floats \(N, 56\)")


def test_h36m_fetch_names_file_and_data_set(source: Path, tmp_path: Path) -> None:
    layout = LAYOUTS["h36m_fetch"](source)
    with h5py.File(source / "processed/S8/Posing-1/annot.h5", "r+") as file:
        del file["pose/3d"]
    refused(layout, tmp_path, r"S8.Posing-1.annot\.h5: /pose/3d: no such data set")
    with h5py.File(source / "processed/S8/Posing-1/annot.h5", "r+") as file:
        file["pose/3d"] = h5py.ExternalLink("../../S1/Walking-1/annot.h5", "/pose/3d")
    refused(layout, tmp_path, "is a link to elsewhere")
    with h5py.File(source / "processed/S8/Posing-1/annot.h5", "r+") as file:
        del file["pose/3d"]
        file["pose/3d"] = np.zeros((100, 17, 3))
    refused(layout, tmp_path, r"/pose/3d is float64 \(100, 17, 3\), expected floats \(N, 32, 3\)")


def test_videopose3d_refuses_2d_and_3d_that_do_not_belong_together(source: Path, tmp_path: Path) -> None:
    layout = LAYOUTS["h36m_videopose3d"](
        source, lambda poses, _: poses.__imul__(np.random.default_rng(0).random(poses.shape))
    )
    refused(layout, tmp_path, "no camera explains")


def test_calibration_finds_the_camera_through_outliers() -> None:
    generator = np.random.default_rng(1)
    world = generator.normal(loc=[0, 0, 900], scale=[900, 900, 400], size=(2000, 3))
    joints = layouts._static(0.7, world)
    pixels = layouts._through_lens(joints) + generator.normal(scale=2, size=(2000, 2))
    pixels[::40] += 150
    found = calibration.calibrate(world, pixels)
    np.testing.assert_allclose(found.to_camera(world), joints, atol=15)
    assert found.error_px < 4


# --- BVH ---------------------------------------------------------------------------------------------------------


def test_bvh_kinematics_agree_with_scipy(source: Path) -> None:
    generator = np.random.default_rng(0)
    angles = generator.uniform(-90, 90, size=(FRAMES, len(layouts.RIG), 3))
    root = generator.normal(size=(FRAMES, 3))
    (source / "a.bvh").write_text(layouts.bvh_text(angles, root))
    nodes, values, rate = bvh.read_bvh(source / "a.bvh")
    assert rate == pytest.approx(120, rel=1e-4)
    places, _ = bvh.positions(nodes, values)
    expected = layouts.bvh_positions(angles, root)
    names = ["end:Head" if name == "End Head" else name for name in expected]
    checked = 0
    for node, place in zip(nodes, np.moveaxis(places, 1, 0), strict=True):
        if node.name in names:
            np.testing.assert_allclose(place, list(expected.values())[names.index(node.name)], atol=1e-4)
            checked += 1
    assert checked > 20


def test_bvh_unit_is_guessed_from_the_legs_or_stated(source: Path, tmp_path: Path) -> None:
    layout = LAYOUTS["bvh"](source)
    summary = importers.import_data("bvh", source, tmp_path / "out", layout.options)
    assert "unit taken to be CMU (cgspeed) (no unit_mm given)" in summary["notes"]
    with h5py.File(tmp_path / "out.truth3d.h5") as file:
        joints = file["joints"][:]
    thigh = np.linalg.norm(joints[:, J["left_hip"]] - joints[:, J["left_knee"]], axis=-1)
    np.testing.assert_allclose(thigh, 56.444 * np.hypot(2.2, 7.0), rtol=1e-4)
    read = store.read_poses(tmp_path / "out.pose2d.h5")
    assert read.subject_names == ("01", "02")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("OFFSET 1.40000", "OFFSET one", r"a\.bvh: line 12: cannot be understood"),
        ("Frames: 25", "Frames: 26", "25 frames, but line .* says 26"),
        ("Frame Time: .0083333", "Frame Time: 0", "make no sense"),
        (
            "JOINT LeftLeg",
            "JOINT Tail",
            "no joint for left_knee .such as LeftLeg, .*; nearest here: .*names=.{left_knee: NAME}",
        ),
        ("CHANNELS 3 Z", "CHANNELS 4 Z", "line .*: cannot be understood"),
        ("17.000000", "x", "frame 0: expected"),
    ],
)
def test_bvh_errors_name_the_line(source: Path, tmp_path: Path, old: str, new: str, match: str) -> None:
    text = layouts.bvh_text(*layouts.bvh_angles(0))
    assert old in text
    (source / "a.bvh").write_text(text.replace(old, new))
    refused(Layout("bvh", source / "a.bvh"), tmp_path, match)
