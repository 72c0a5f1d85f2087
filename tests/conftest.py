"""One thread per test process: small networks gain nothing from more, and a busy machine makes more ruinously slow.

``make test`` runs two processes. A file's tests stay together, so that what a file sets up is set up once; tests that
start Ray stay in one process, since two clusters at a time would wait for each other's processors, and no others with
them, so that the other process can take these. Tests of commands share :func:`invoke`.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)
OWN_RAY = (
    *("tests/chaos/", "tests/test_end_to_end.py", "tests/test_examples.py", "tests/test_cli.py"),
    "tests/study/test_cluster.py",
)
Invoke = Callable[..., tuple[int, str, str]]


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Say which process each test belongs to."""
    for item in items:
        path = item.nodeid.split("::")[0]
        starts_ray = path.startswith(OWN_RAY) or "ray_session" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("ray" if starts_ray else path))


@pytest.fixture(autouse=True)
def plug_ins_stay_with_their_test() -> Iterator[None]:
    """What a test loads, the next one in the same process does not have (it would be named in a command to go on)."""
    before = _loaded()
    yield
    if (found := _loaded()) != before:
        sys.modules["tips_dist.plugins"]._loaded.clear()
        sys.modules["tips_dist.plugins"]._loaded.update({name: found[name] for name in before if name in found})


def _loaded() -> dict[str, object]:
    module = sys.modules.get("tips_dist.plugins")  # not imported for tests that need none
    return {} if module is None else dict(module._loaded)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Invoke:
    """Run the command line in this process, in an empty folder; returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    from tips_dist import cli

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tips-dist", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call
