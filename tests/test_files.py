import os
import subprocess
from pathlib import Path

import pytest

from tips_dist import files
from tips_dist.files import StorageError, UserError


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})

    def full(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"a\.json: cannot write: the disk is full"):
        files.write_with(path, full)
    assert files.read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_appending_to_a_full_disk_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="the disk is full"):
        files.append_json_lines(Path("/dev/full"), [{"a": 1}])


def test_non_finite_numbers_never_reach_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_last_line_cut_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    files.append_json_lines(path, [{"a": 1}, {"a": 2}])
    with path.open("ab") as stream:
        stream.write(b'{"a": 3')
    assert [row["a"] for row in files.read_json_lines(path)] == [1, 2]


def test_reading_what_is_missing_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match=r"bad\.json: not valid JSON"):
        files.read_json(tmp_path / "bad.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_storage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="permission denied"):
        files.write_text(tmp_path / "a", "x")


def test_what_is_no_ordinary_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in {
        tmp_path / "pipe": "is a pipe, socket or device, expected a study file",
        Path("/dev/zero"): "is a pipe, socket or device",
        tmp_path: "is a folder",
        tmp_path / "none": "no such study file",
        tmp_path / ("a/" * 3000): "File name too long",
        tmp_path / ("x" * 300): "File name too long",
        tmp_path / "\0": "null",
    }.items():
        with pytest.raises(UserError) as caught:
            files.read_text(path, "study file")
        assert words in str(caught.value)
        assert len(str(caught.value)) < 400
        assert "\n" not in str(caught.value)


def test_a_text_of_more_than_its_share_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_text("x" * 100)
    assert len(files.read_text(tmp_path / "large", most_bytes=100)) == 100
    with pytest.raises(UserError, match="larger than"):
        files.read_text(tmp_path / "large", most_bytes=99)


def test_files_follow_the_umask_whoever_writes_them(tmp_path: Path) -> None:
    def private(temporary: Path) -> None:
        temporary.unlink()
        temporary.touch(mode=0o600)

    for mask, wanted in ((0o027, 0o640), (0o002, 0o664), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            files.write_with(tmp_path / f"{mask:o}", private)
            files.write_text(tmp_path / f"{mask:o}.txt", "x")
        finally:
            os.umask(before)
        assert (tmp_path / f"{mask:o}").stat().st_mode & 0o777 == wanted
        assert (tmp_path / f"{mask:o}.txt").stat().st_mode & 0o777 == wanted


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = path.with_name(f".a.json.{files._HERE}-{dead.pid}.tmp")
    alive = path.with_name(f".a.json.{files._HERE}-{os.getppid()}.tmp")
    elsewhere = path.with_name(".a.json.elsewhere-1.tmp")
    for file in (left, alive, elsewhere):
        file.touch()
    files.write_json(path, {})
    assert sorted(tmp_path.iterdir()) == sorted([alive, elsewhere, path])
    assert sorted(files.drop_unfinished(tmp_path)) == sorted([alive, elsewhere])
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    path = tmp_path / "here" / "a.json"
    path.parent.mkdir()
    path.symlink_to(other)
    path.with_name(f".a.json.{files._HERE}-{os.getpid()}.tmp").symlink_to(other)
    (path.parent / "folder").symlink_to(tmp_path)
    (tmp_path / ".kept.tmp").touch()
    files.write_json(path, {})
    files.drop_unfinished(path.parent)
    assert other.read_text() == "mine"
    assert not path.is_symlink()
    assert (tmp_path / ".kept.tmp").exists()
