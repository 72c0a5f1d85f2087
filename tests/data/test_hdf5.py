"""HDF5 from anybody: what a file claims is looked at before it is read."""

from __future__ import annotations

import errno
import gzip
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tips_dist.data import procedural, store, writer
from tips_dist.data.hdf5 import reading
from tips_dist.files import UserError

TEXT = h5py.string_dtype()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    writer.write_poses(tmp_path / "p.pose2d.h5", procedural.generate(40, 0)[0])
    return tmp_path / "p.pose2d.h5"


def replace(file: Path, name: str, shape: tuple[int, ...], dtype: object) -> None:
    with h5py.File(file, "a") as opened:
        del opened[name]
        opened.create_dataset(name, shape=shape, dtype=dtype, chunks=True, compression="gzip")


SHIM = Path(__file__).resolve().parents[2].parent / "shared" / "cases" / "nolocks_shim.c"


@pytest.mark.skipif(not SHIM.exists() or shutil.which("cc") is None, reason="no shim beside this checkout, or no cc")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_read_and_written_and_a_run_says_what_to_do(tmp_path: Path, number: int) -> None:
    shim = tmp_path / "shim.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", f"-DERRNO_={number}", str(SHIM), "-o", str(shim), "-ldl"], check=True
    )  # fmt: skip
    code = """
import sys
from pathlib import Path
from tips_dist.data import procedural, store, writer
from tips_dist.files import UserError
from tips_dist.runfolder.lock import locked
folder = Path(sys.argv[1])
poses, _ = procedural.generate(60, 0)
writer.write_poses(folder / "a.pose2d.h5", poses)
assert store.read_poses(folder / "a.pose2d.h5").digest == poses.digest
try:
    with locked(folder):
        pass
except UserError as error:
    print(error)
"""
    environment = os.environ | {"LD_PRELOAD": str(shim)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert "this disk has no file locks" in done.stdout
    assert "put the runs on another disk" in done.stdout


def test_names_that_unfold_to_gigabytes_are_counted_first(file: Path) -> None:
    replace(file, "subject_names", (200_000,), TEXT)
    with pytest.raises(UserError, match="/subject_names: 200000 names of varying length"):
        store.read_poses(file)


def test_names_stop_where_they_become_too_much(file: Path) -> None:
    replace(file, "subject_names", (40,), TEXT)
    with h5py.File(file, "a") as opened:
        for row in range(40):
            opened["subject_names"][row] = "x" * 2**19
    with pytest.raises(UserError, match="/subject_names: more than 16777216 bytes of names"):
        store.read_poses(file)


def test_names_of_varying_length_are_read(file: Path) -> None:
    before = store.read_poses(file)
    replace(file, "subject_names", (len(before.subject_names),), TEXT)
    with h5py.File(file, "a") as opened:
        opened["subject_names"][:] = list(before.subject_names)
    assert store.read_poses(file).digest == before.digest


def test_attributes_are_few_and_short(file: Path) -> None:
    with h5py.File(file, "a") as opened:
        opened.attrs["joint_names"] = np.array(["x"] * 5000, dtype=TEXT)
    with pytest.raises(UserError, match="attribute joint_names: a list of 5000 texts"):
        store.read_poses(file)


def test_what_claims_more_than_it_stores_takes_no_memory(file: Path) -> None:
    replace(file, "poses", (10_000_000, 17, 2), np.float32)
    with pytest.raises(UserError, match="claims 1360000000 bytes of which hardly any are stored"):
        store.read_poses(file)


def test_lengths_are_compared_before_anything_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(file, "camera", (1_000_000,), np.int32)
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("it was read"))
    with pytest.raises(UserError, match="/camera has 1000000 rows, but /poses has 40"):
        store.read_poses(file)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pose2d.h5")
    with pytest.raises(UserError, match="is a pipe"), reading(tmp_path / "pipe.pose2d.h5"):
        pass


BOMB = Path(__file__).resolve().parents[2].parent / "shared" / "cases" / "vlbomb.h5.gz"


@pytest.mark.skipif(not BOMB.exists(), reason="the cases are not beside this checkout")
def test_names_that_unfold_to_gigabytes_are_bounded(tmp_path: Path) -> None:
    from tips_dist.data import importers

    (tmp_path / "b.h5").write_bytes(gzip.decompress(BOMB.read_bytes()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as caught:
        store.read_poses(tmp_path / "b.h5")
    assert "subject_names" in str(caught.value)
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        del file["sequence"], file["subject"]
        file.move("subject_names", "sequence")
        for name in ("poses", "camera", "frame", "split"):
            del file[name]
        file["poses"] = np.random.default_rng(0).normal(size=(len(file["sequence"]), 17, 2)).astype("f4")
    with pytest.raises(UserError, match="a name longer than 1000 bytes"):
        importers.import_data("arrays", tmp_path / "b.h5", tmp_path / "out")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB
