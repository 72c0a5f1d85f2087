"""``import tips_dist``: what it offers, and what it costs."""

import subprocess
import sys

import pytest

import tips_dist


@pytest.mark.parametrize("name", tips_dist.__all__)
def test_everything_offered_is_there_and_documented(name: str) -> None:
    assert getattr(tips_dist, name).__doc__
    assert name in dir(tips_dist)


def test_the_import_brings_nothing_heavy_along() -> None:
    heavy = ["torch", "ray", "optuna", "numpy", "pandas", "pydantic", "matplotlib"]
    code = f"import sys, tips_dist; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tips_dist.nothing
