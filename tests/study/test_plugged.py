"""Which nodes lack a plug-in, asked of a real Ray of one node; two nodes: tests/chaos/test_plug_ins.py."""

from __future__ import annotations

import hashlib

import pytest

from tips_dist.config import Resources
from tips_dist.files import UserError
from tips_dist.plugins import Plugin
from tips_dist.study.plugged import lacking, placed_elsewhere

TEXT = "import tips_dist.registry\n"
FILE = Plugin("nothing_much", "1", hashlib.sha256(TEXT.encode()).hexdigest(), "nothing_much.py", TEXT)


def test_a_file_travels_and_a_package_that_is_nowhere_is_named_before_the_study_begins(ray_session: None) -> None:
    import ray

    assert lacking([], Resources(), ray.nodes()) == {}
    assert lacking([FILE], Resources(), ray.nodes()) == {}
    package = Plugin("absent", "2.0", "a" * 64, "absent-package")
    with pytest.raises(
        UserError, match=r"plug-in absent 2\.0 .*is not installed; install the same absent-package"
    ) as one:
        lacking([FILE, package], Resources(), ray.nodes())
    assert "\n" not in str(one.value)


def test_every_bundle_of_a_trial_keeps_away() -> None:
    assert placed_elsewhere([], 2) == {}
    assert placed_elsewhere(["a", "b"], 2) == {"bundle_label_selector": [{"ray.io/node-id": "!in(a,b)"}] * 2}
