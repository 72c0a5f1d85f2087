"""The pose file: what goes in comes out, and everything that is wrong with a file gets one clear line."""

import dataclasses
import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tips_dist.data import hdf5, procedural, store, writer
from tips_dist.files import StorageError, UserError

MADE, TRUTH = procedural.generate(400, seed=3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.pose2d.h5"
    writer.write_poses(path, MADE)
    return path


def test_reads_what_was_written(file: Path) -> None:
    read = store.read_poses(file)
    for field in dataclasses.fields(store.Poses):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(MADE, field.name))
        if field.name in store.COLUMNS:
            assert getattr(read, field.name).dtype == store.COLUMNS[field.name][0]
    assert read.digest == MADE.digest


@pytest.mark.parametrize("field", [*store.COLUMNS, *store.NAMES, "source", "frame_rate_hz"])
def test_digest_changes_with_every_field(field: str) -> None:
    value: Any = getattr(MADE, field)
    if isinstance(value, np.ndarray):
        changed: Any = value.copy()
        changed[-1] += 1
    else:
        changed = value + (("more",) if isinstance(value, tuple) else "x" if isinstance(value, str) else 1.0)
    assert dataclasses.replace(MADE, **{field: changed}).digest != MADE.digest


def test_digest_does_not_depend_on_block_size() -> None:
    blocks = store.ContentDigest()
    for start in range(0, len(MADE), 7):
        blocks.update({column: getattr(MADE, column)[start : start + 7] for column in store.COLUMNS})
    names = {key: getattr(MADE, key) for key in store.NAMES}
    assert blocks.hexdigest(names, MADE.source, MADE.frame_rate_hz) == MADE.digest


def _with_stretches_and_scores() -> store.Poses:
    stretch = np.full(len(MADE), store.ORDINARY, np.int32)
    stretch[[40, 41, 42, 90, 91, 92]] = [0, 0, 0, 1, 1, 1]
    scores = np.full((len(MADE), 17), 0.5, np.float32)
    scores[7, 3] = 0.0
    return dataclasses.replace(MADE, stretch=stretch, scores=scores)


def test_stretches_and_scores_travel_with_the_poses(tmp_path: Path) -> None:
    poses = _with_stretches_and_scores()
    writer.write_poses(tmp_path / "a.pose2d.h5", poses)
    read = store.read_poses(tmp_path / "a.pose2d.h5")
    assert read.digest == poses.digest != MADE.digest
    np.testing.assert_array_equal(read.stretch, poses.stretch)
    assert np.argwhere(~read.present).tolist() == [[7, 3]]
    assert [rows.tolist() for rows in read.stretches()] == [[40, 41, 42], [90, 91, 92]]
    ordinary = np.concatenate([read.rows(split) for split in store.SPLITS])
    assert set(range(len(MADE))) - set(ordinary.tolist()) == {40, 41, 42, 90, 91, 92}


def test_files_of_the_first_schema_open_as_they_were(file: Path, tmp_path: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened.attrs["schema_version"] = 1
        del opened["stretch"]
        opened["score"] = np.zeros((len(MADE), 17), np.float32)  # written by the first schema, but read by nobody
    read = store.read_poses(file)
    assert read.digest == MADE.digest  # which its truth file names
    assert read.scores is None
    assert read.present.all()
    assert (read.stretch == store.ORDINARY).all()


def test_every_column_of_the_second_schema_must_be_there(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        del opened["stretch"]
    with pytest.raises(UserError, match="/stretch: no such data set"):
        store.read_poses(file)


def test_rows_of_the_splits_part_the_file() -> None:
    rows = np.concatenate([MADE.rows(split) for split in store.SPLITS])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(MADE)))
    assert rows.dtype == np.int64


def _replace(name: str, values: Any) -> Any:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = values

    return change


def _nan(file: h5py.File) -> None:
    file["poses"][37, 5, 1] = np.nan


def _bad_code(file: h5py.File) -> None:
    file["sequence"][12] = 99


def _external(file: h5py.File) -> None:
    del file["poses"]
    file["poses"] = h5py.ExternalLink("other.h5", "/poses")


def _soft(file: h5py.File) -> None:
    file.move("poses", "elsewhere")
    file["poses"] = h5py.SoftLink("/elsewhere")


def _external_storage(file: h5py.File) -> None:
    del file["poses"]
    file.create_dataset("poses", (400, 17, 2), "f4", external=[("raw.bin", 0, 400 * 17 * 2 * 4)])


def _virtual(file: h5py.File) -> None:
    del file["poses"]
    layout = h5py.VirtualLayout((400, 17, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "poses", shape=(400, 17, 2))
    file.create_virtual_dataset("poses", layout)


def _huge(file: h5py.File) -> None:
    for name in ("poses", "subject", "sequence", "camera", "frame", "split"):
        file[name].resize(10**11, axis=0)


def _changed(file: h5py.File) -> None:
    file["poses"][0, 0, 0] += 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_nan, ["/poses row 37", "left_knee", "not a finite"]),
        (_bad_code, ["/sequence row 12", "99"]),
        (_replace("split", np.full(400, 3, np.int8)), ["/split row 0", "code 3", "0..2"]),
        (_replace("frame", np.zeros(399, np.int32)), ["/frame has 399 rows", "/poses has 400"]),
        (_replace("poses", np.zeros((400, 16, 2), np.float32)), ["/poses", "(400, 16, 2)", "(N, 17, 2)"]),
        (_replace("poses", np.zeros((400, 17, 2))), ["/poses is float64", "expected float32"]),
        (_replace("subject", np.zeros((400, 1), np.int32)), ["/subject", "(400, 1)", "(N)"]),
        (_replace("subject_names", 3), ["/subject_names", "list of names"]),
        (lambda f: f.attrs.__setitem__("schema_version", 7), ["schema_version is 7", "reads 1 to 2"]),
        (lambda f: f.attrs.__setitem__("joint_names", ["a"] * 17), ["joint_names", "'a' at 0", "hip"]),
        (lambda f: f.attrs.__setitem__("frame_rate_hz", np.nan), ["frame_rate_hz", "number"]),
        (lambda f: f.attrs.__delitem__("source"), ["source", "text"]),
        (lambda f: f.__delitem__("camera"), ["/camera", "no such data set"]),
        (_external, ["/poses", "link"]),
        (_soft, ["/poses", "link"]),
        (_external_storage, ["/poses", "another file"]),
        (_virtual, ["/poses", "another file"]),
        (_huge, ["/poses", "claims"]),
        (_changed, ["digest", "changed or damaged"]),
    ],
)
def test_a_bad_file_gets_one_line_that_names_the_place(file: Path, change: Any, words: list[str]) -> None:
    with h5py.File(file, "r+") as opened:
        change(opened)
    with pytest.raises(UserError) as caught:
        store.read_poses(file)
    for word in [str(file), *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_foreign_and_truncated_files(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file.*data generate -o.*data import"):
        store.read_poses(tmp_path / "none.pose2d.h5")
    foreign = tmp_path / "foreign.h5"
    foreign.write_text("hello")
    with pytest.raises(UserError, match="not an HDF5 file"):
        store.read_poses(foreign)
    truth = tmp_path / "some.truth3d.h5"
    writer.write_truth(truth, TRUTH, MADE.digest)
    with pytest.raises(UserError, match="a truth file"):
        store.read_poses(truth)
    with pytest.raises(UserError, match="is a folder"):
        store.read_poses(tmp_path)
    whole = file.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match="truncated or damaged"):
            store.read_poses(file)


def test_truth_carries_the_digest_of_its_poses(tmp_path: Path) -> None:
    writer.write_truth(tmp_path / "t.h5", TRUTH, MADE.digest)
    with h5py.File(tmp_path / "t.h5") as file:
        assert file.attrs["poses_digest"] == MADE.digest
        assert file["joints"].shape == (400, 17, 3)
        assert file["joints"].dtype == np.float32


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')")

    monkeypatch.setattr(writer, "_extend", full)
    with pytest.raises(StorageError, match="disk is full"):
        writer.write_poses(file, MADE)
    with pytest.raises(StorageError, match="disk is full"):
        writer.write_dataset(file, tmp_path / "t.h5", lambda opened: opened.append(vars(MADE), TRUTH))
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_full_disk_is_said_in_words() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OSError) as caught, hdf5.writing(full) as opened:
        opened.create_dataset("x", data=np.zeros(100_000))
    assert caught.value.errno is not None
    assert caught.value.errno in (errno.ENOSPC, errno.EIO, errno.EINVAL)


def test_a_file_that_cannot_grow_leaves_the_old_ones(tmp_path: Path) -> None:
    """A real failing disk, as far as one can have it without mounting one: the kernel refuses to write on."""
    program = """
import resource, signal, sys
from pathlib import Path
from tips_dist.data import procedural
from tips_dist.files import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    procedural.write(Path(sys.argv[1]) / "made", 20_000, 0)
except StorageError as error:
    print(error)
"""
    procedural.write(tmp_path / "made", 100, 0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "cannot write" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_normalised_poses_have_a_mean_root_to_head_distance_of_a_tenth() -> None:
    scale = store.normalisation_scale(MADE)
    rows = MADE.rows("train")
    result = store.normalised(MADE, rows, scale)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result[:, 0], 0.0)
    assert np.linalg.norm(result[:, 10], axis=-1).mean() == pytest.approx(0.1, rel=1e-5)


def test_no_train_rows_is_said() -> None:
    empty = dataclasses.replace(MADE, split=np.full(len(MADE), 2, np.int8))
    with pytest.raises(UserError, match="no rows in the train split"):
        store.normalisation_scale(empty)


def test_a_validation_split_that_decides_nothing_is_refused() -> None:
    store.check_decidable(procedural.generate(2000, seed=0)[0])
    empty = dataclasses.replace(MADE, split=np.zeros(len(MADE), np.int8))
    with pytest.raises(UserError, match=r"validation split is empty.*validation_subjects"):
        store.check_decidable(empty)
    single = np.where(MADE.sequence == 0, 1, 0).astype(np.int8)
    with pytest.raises(UserError, match="holds a single sequence"):
        store.check_decidable(dataclasses.replace(MADE, split=single))
