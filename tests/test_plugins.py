"""Plug-ins: loaded once, recorded, the same everywhere, and errors that name them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.fakes import fake_poses
from tips_dist import plugins, registry
from tips_dist.cli import app
from tips_dist.files import UserError
from tips_dist.runfolder import StudyRecord
from tips_dist.study.folder import check_plugins, create
from tips_dist.study_file import parse_study

TEXT = '''
"""A plug-in for tests."""
__version__ = "1.2"
import tips_dist.registry as td

@td.register("losses", "smooth")
def smooth(scene):
    return scene.pose.square().mean((1, 2, 3))
'''
STUDY = "name: a\nrepresentations: [solo]\nlosses: {extra: {smooth: 0.5}}\n"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plug-in is loaded before or after, whatever is installed."""
    before = {kind: dict(found) for kind, found in registry._entries.items()}
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(plugins, "_broken", {})
    monkeypatch.setattr(plugins, "_looked", True)
    yield
    for kind, found in registry._entries.items():
        built_in = {name: one for name, one in found.items() if one.source == registry.BUILT_IN}
        found.clear()
        found.update({**before[kind], **built_in})


def written(tmp_path: Path, text: str = TEXT, name: str = "mine.py") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_file_is_loaded_once_and_known_by_version_and_digest(tmp_path: Path) -> None:
    first = plugins.load_file(written(tmp_path))
    assert plugins.load_file(written(tmp_path)) is first
    assert (first.name, first.version) == ("mine", "1.2")
    assert str(registry.entry("losses", "smooth").source) == f"mine 1.2 ({tmp_path / 'mine.py'})"
    with pytest.raises(UserError, match="another source"):
        plugins.load_file(written(tmp_path, TEXT + "# changed\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_the_kind\n", "line 1: ModuleNotFoundError"),
        ("x = 1\ny = (\n", "line 2: SyntaxError"),
        ("import tips_dist.registry as r\nr.register('losses', 'bend', len)\n", "the name is taken by tips-dist"),
        ("import tips_dist.registry as r\nr.register('lifters', 'l', int)\n", "expected a subclass"),
        ("import tips_dist.registry as r\nr.register('losses', 'kept', len)\n1 / 0\n", "line 3: ZeroDivisionError"),
    ],
)
def test_one_that_fails_is_named_with_the_line_and_leaves_nothing(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        plugins.load_file(written(tmp_path, text))
    assert str(tmp_path / "mine.py") in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not plugins.loaded()
    assert all(one.source == registry.BUILT_IN for one in registry.entries("losses"))


def test_the_command_line_loads_it_and_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["plugins", "--json", "--plugin", str(written(tmp_path))])
    assert found.exit_code == 0, found.output
    listed = json.loads(found.stdout)
    assert {"kind": "losses", "name": "smooth", "source": f"mine 1.2 ({tmp_path / 'mine.py'})"} in listed["registered"]
    assert [one["name"] for one in listed["plugins"]] == ["mine"]


def started(tmp_path: Path) -> tuple[Path, StudyRecord]:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    study = parse_study(STUDY, "study.yaml")
    run = create(study, fake_poses(), path, STUDY, [], tmp_path / "runs")
    return run, StudyRecord.load(run / "study.json")


def test_a_study_records_the_plug_ins_that_decide_it_and_goes_on_with_the_same_alone(tmp_path: Path) -> None:
    plugin = plugins.load_file(written(tmp_path))
    run, record = started(tmp_path)
    (recorded,) = record.plugins
    assert (recorded.name, recorded.version, recorded.digest) == ("mine", "1.2", plugin.digest)
    assert check_plugins(run, record) == [plugin]
    plugins._loaded["mine"] = dataclasses.replace(plugin, digest="f" * 64)
    with pytest.raises(UserError) as error:
        check_plugins(run, record)
    assert plugin.digest[:12] in str(error.value)
    assert "f" * 12 in str(error.value)
    plugins._loaded.clear()
    with pytest.raises(UserError, match=r"is not loaded; --plugin .*mine\.py"):
        check_plugins(run, record)


def test_a_record_without_plug_ins_is_one_of_before(tmp_path: Path) -> None:
    plugins.load_file(written(tmp_path))
    run, record = started(tmp_path)
    old = record.plain()
    del old["plugins"]
    assert StudyRecord.parse(json.dumps(old), "x").plugins == []
    with pytest.raises(UserError, match="was started without plug-in mine"):
        check_plugins(run, StudyRecord.parse(json.dumps(old), "x"))


def test_what_was_registered_by_hand_cannot_travel() -> None:
    registry.register("losses", "smooth", len)
    with pytest.raises(UserError, match=r"this session.*registered by hand"):
        plugins.used(parse_study(STUDY, "x"))


def test_a_worker_gets_files_along_and_must_have_the_same_packages(tmp_path: Path) -> None:
    plugin = plugins.load_file(written(tmp_path))
    (tmp_path / "mine.py").unlink()
    plugins.ensure([plugin])
    plugins._loaded.clear()
    registry.unregister("losses", "smooth")
    plugins.ensure([plugin])
    assert registry.entry("losses", "smooth").source == plugin.source
    with pytest.raises(UserError, match=r"other 3.*is not installed; install the same other-package"):
        plugins.ensure([plugins.Plugin("other", "3", "a" * 64, "other-package")])


def test_installed_ones_are_found_when_a_name_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, TEXT, "installed_mine.py")
    written(tmp_path, "import nothing_of_the_kind", "installed_bad.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [importlib.metadata.EntryPoint(name, f"installed_{name}", plugins.GROUP) for name in ("mine", "bad")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: points)
    monkeypatch.setattr(plugins, "_looked", False)
    study = parse_study(STUDY, "x")
    assert [plugin.name for plugin in plugins.used(study)] == ["mine"]
    assert "installed plug-in bad (installed_bad): ModuleNotFoundError" in plugins.broken()[0]
    sys.modules.pop("installed_mine")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return scene.pose.mean()", r"loss 'smooth' of mine 1\.2 .*gave \(\), expected one value per seed \(2,\)"),
        ("return scene.nothing", "loss 'smooth' of mine 1.2 .*AttributeError"),
    ],
)
def test_a_term_that_fails_in_training_is_named(body: str, said: str, tmp_path: Path) -> None:
    from tests.training.worlds import tiny, world
    from tips_dist.training.loop import train

    plugins.load_file(written(tmp_path, TEXT.replace("return scene.pose.square().mean((1, 2, 3))", body)))
    configuration: Any = tiny("solo", "losses.extra.smooth=0.5")
    with pytest.raises(UserError, match=said):
        train(configuration, [0, 1], world(), tmp_path / "trial")
