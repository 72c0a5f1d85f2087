"""One thread per test process: small networks gain nothing from more, and a busy machine makes more ruinously slow.

``make test`` runs two processes. A file's tests stay together, so that what a file sets up is set up once; tests that
start Ray stay in one process, since two clusters at a time would wait for each other's processors.
"""

import os
from collections.abc import Sequence

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
START_RAY = ("tests/study/", "tests/chaos/", "tests/test_end_to_end.py", "tests/test_examples.py", "tests/test_cli.py")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Say which process each test belongs to."""
    for item in items:
        path = item.nodeid.split("::")[0]
        item.add_marker(pytest.mark.xdist_group("ray" if path.startswith(START_RAY) else path))
