"""Starting Ray on machines as they are; Ray itself is a fake here, for real: tests/chaos/test_places.py."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tips_dist import cli
from tips_dist.files import UnavailableError, UserError, home
from tips_dist.study import starting
from tips_dist.study.cluster import prepare_environment

LONG = "/tmp/" + "long/" * 12


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_TMPDIR", "")  # so that what starting sets is taken back
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", None)


class FakeRay:
    """``ray.init`` as it fails: each try leaves a process behind, as Ray's do."""

    def __init__(self, failures: int) -> None:
        self.failures, self.left = failures, list[subprocess.Popen[bytes]]()

    def init(self, **options: object) -> None:
        assert all(one.poll() is not None for one in self.left), "what an earlier try started still runs"
        if len(self.left) < self.failures:
            code = "import time; time.sleep(600)  # ray"
            self.left.append(subprocess.Popen([sys.executable, "-c", code]))
            raise Exception("The current node timed out\nduring startup.")

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_try_that_fails_leaves_nothing_and_another_follows(
    failures: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRay(failures)
    monkeypatch.setitem(sys.modules, "ray", fake)
    starting.start_ray({})
    said = capsys.readouterr().err
    assert said.count("\n") == min(1, failures)
    assert not failures or said.startswith("Ray did not start (The current node timed out during startup.; ")
    assert all(one.poll() is not None for one in fake.left)


def test_ray_that_never_starts_is_no_fault_of_the_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeRay(99)
    monkeypatch.setitem(sys.modules, "ray", fake)
    mine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # a child that is not Ray's
    try:
        with pytest.raises(
            UnavailableError, match=r"Ray does not start here \(tried \d times?\): .* processes want .* CPU"
        ):
            starting.start_ray({}, seconds=1.0)
        assert fake.left
        assert all(one.poll() is not None for one in fake.left)
        assert mine.poll() is None
    finally:
        mine.kill()
        mine.wait()

    def fail() -> None:
        raise UnavailableError("not now")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert capsys.readouterr().err.endswith("tips-dist: not now\n")


def test_another_address_in_the_environment_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(0))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    starting.start_ray({})
    assert capsys.readouterr().err.startswith("RAY_ADDRESS is set, but a study joins a cluster by --address alone")


def test_the_raylet_finds_the_ports_of_its_agents(tmp_path: Path) -> None:
    from ray._private import parameter

    real = parameter.RayParams
    with starting.ports_known(str(tmp_path)):
        made = parameter.RayParams(num_cpus=1)
        node = os.environ[starting.NODE]
        (session,) = (tmp_path / "ray").iterdir()
        written = {path.name: int(path.read_text()) for path in session.iterdir()}
    assert (made.session_name, made.num_cpus) == (session.name, 1)
    assert written == {f"{key}_{node}": getattr(made, key) for key in starting.AGENT_PORTS}
    assert len(set(written.values())) == 4
    assert parameter.RayParams is real
    assert starting.NODE not in os.environ


def test_sockets_lie_where_their_paths_are_short_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tempfile.mkdtemp(prefix="t", dir="/tmp")
    deep = tmp_path / ("x" * 60)
    deep.mkdir()
    try:
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setenv("TMPDIR", short)
        assert starting.session_room() == short
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setenv("TMPDIR", str(deep))
        assert starting.session_room((LONG, f"{short}/not-there", short)) == short
        (line,) = capsys.readouterr().err.splitlines()
        assert "is too long for Ray's sockets" in line
        assert line.endswith(f"Ray's session lies in {short}/ray")
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        with pytest.raises(
            UserError, match=r"TMPDIR .*: too long for Ray's sockets; a folder's name may have \d+ bytes"
        ):
            starting.session_room((LONG,))
        monkeypatch.setenv("RAY_TMPDIR", LONG)
        with pytest.raises(UserError, match="RAY_TMPDIR /tmp/long/"):
            starting.session_room()
    finally:
        Path(short).rmdir()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"http_proxy": "http://p:1"}, "127.0.0.1,localhost,::1"),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "intranet,localhost"}, "intranet,localhost,127.0.0.1,::1"),
    ],
)
def test_no_proxy_stands_before_loopback(
    given: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("no_proxy", given.get("no_proxy", "")) if given else None
    monkeypatch.setenv("NO_PROXY", given.get("NO_PROXY", "")) if given else None
    prepare_environment("auto")
    assert os.environ.get("no_proxy") == expected


def test_cards_that_are_hidden_are_hinted_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "unset it to use them" in starting.hidden_cards()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert starting.hidden_cards() == ""


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Any:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert home() == Path(tempfile.gettempdir())
    prepare_environment("auto")
