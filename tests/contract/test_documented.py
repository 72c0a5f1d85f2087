"""docs/plug-ins.md: its plug-ins load as they stand there, keep the contracts, and are as short as it is claimed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tips_dist import plugins, registry, testing
from tips_dist.data.procedural import generate

TEXT = (Path(__file__).parents[2] / "docs" / "plug-ins.md").read_text()
BLOCKS = dict(re.findall(r"^## An? (\w+)\n.*?```python\n(.*?)```", TEXT, flags=re.MULTILINE | re.DOTALL))
MOST_LINES = 40


class _Npy(testing.ImporterContract):
    options = {"validation_share": 0.4}  # noqa: RUF012

    def source(self, folder: Path) -> Path:
        poses, _ = generate(600, 0)
        source = folder / "source"
        source.mkdir()
        for index in range(6):
            np.save(source / f"take_{index}.npy", poses.poses[100 * index : 100 * index + 100])
        return source


SUITES: dict[str, tuple[type[Any], str]] = {
    "lifter": (testing.LifterContract, "mine"),
    "loss": (testing.LossContract, "small_feet"),
    "signal": (testing.SignalContract, "mine/depth_range"),
    "detector": (testing.DetectorContract, "bones"),
    "importer": (_Npy, "npy"),
    "sampler": (testing.SamplerContract, "early_tpe"),
}


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Loads the block of a heading as --plugin does; it is gone again afterwards."""
    before = dict(plugins._loaded)
    sources = []

    def load(heading: str) -> None:
        path = tmp_path / f"documented_{heading}.py"
        path.write_text(BLOCKS[heading])
        sources.append(plugins.load_file(path).source)

    yield load
    for kind in registry.HOMES:
        for one in registry.entries(kind):
            if one.source in sources:
                registry.unregister(kind, one.name)
    plugins._loaded.clear()
    plugins._loaded.update(before)


def test_there_is_one_of_each() -> None:
    assert list(BLOCKS) == list(SUITES)


@pytest.mark.parametrize("heading", SUITES)
def test_it_is_short_and_keeps_its_contract(heading: str, loaded: Callable[[str], None], tmp_path: Path) -> None:
    assert BLOCKS[heading].count("\n") <= MOST_LINES
    loaded(heading)
    kind, name = SUITES[heading]
    suite = kind()
    suite.name = name
    tests = [test for what, test in inspect.getmembers(suite, inspect.ismethod) if what.startswith("test_")]
    assert tests
    for number, test in enumerate(tests):
        folder = tmp_path / str(number)
        folder.mkdir()
        test(folder) if inspect.signature(test).parameters else test()
