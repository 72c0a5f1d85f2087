"""The one door for built-in and foreign parts."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tips_dist import registry
from tips_dist.files import UserError
from tips_dist.registry import HOMES, SESSION, Origin, UnknownName, entries, entry, register, registering, unregister
from tips_dist.skeleton import REPRESENTATIONS, BodyPart, Representation
from tips_dist.study_file import parse_study

HALVES = Representation("halves", (BodyPart("low", tuple(range(9))), BodyPart("high", tuple(range(9, 17)))), blocks=2)


@pytest.fixture(autouse=True)
def clean() -> Any:
    """Whatever a test registers is gone afterwards."""
    before = {kind: set(registry._entries[kind]) for kind in HOMES}
    yield
    for kind, names in before.items():
        for name in [one.name for one in entries(kind) if one.source == SESSION and one.name not in names]:
            unregister(kind, name)


@pytest.mark.parametrize("kind", HOMES)
def test_every_kind_has_built_in_parts_that_came_in_by_the_same_door(kind: str) -> None:
    assert entries(kind)
    assert all(one.source == registry.BUILT_IN for one in entries(kind))


def test_a_registered_representation_can_be_named_in_a_study() -> None:
    register("representations", "halves", HALVES)
    assert "halves" in REPRESENTATIONS
    assert parse_study("name: a\nrepresentations: [halves]", "x").representations == ["halves"]
    unregister("representations", "halves")
    assert "halves" not in REPRESENTATIONS


def test_a_name_that_is_taken_names_both_sources() -> None:
    with registering(Origin("mine", "1.0", where="mine.py")), pytest.raises(UserError) as error:
        register("representations", "solo", HALVES)
    assert "mine 1.0 (mine.py)" in str(error.value)
    assert "taken by tips-dist" in str(error.value)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("representations", "wrong", HALVES),
        ("representations", "low", Representation("low", (BodyPart("low", (0, 1)),), blocks=1)),
        ("lifters", "x", object),
        ("losses", "x", 3),
        ("signals", "generator/x", len),
        ("detectors", "x", len),
        ("importers", "x", len),
        ("samplers", "x", 1),
        ("losses", "no name", len),
        ("loses", "x", len),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name(kind: str, name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"'{kind if kind not in HOMES else name}'"):
        register(kind, name, value)
    assert kind not in HOMES or name not in [one.name for one in entries(kind)]


def test_a_plug_in_that_fails_leaves_nothing() -> None:
    def load() -> None:
        with registering(Origin("bad")):
            register("losses", "half_done", len)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load()
    assert "half_done" not in [one.name for one in entries("losses")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("representations: [sola]", "representations: no representation 'sola' (did you mean 'solo'?)"),
        ("representations: [solo]\nsearch: {sampler: tpa}", "search.sampler: no sampler 'tpa' (did you mean 'tpe'?)"),
        ("representations: [solo]\nmodel: {lifter: paked}", "model.lifter: no lifter 'paked' (did you mean 'packed'?)"),
        ("representations: [solo]\nlosses: {extra: {graph: 1}}", "losses.extra: no losse 'graph'"),
        ("representations: [solo]\nlosses: {extra: {bend: 1}}", "losses.extra: bend is built in"),
        ("representations: [solo]\nspace: {losses.extra.graph: {uniform: [0, 1]}}", "losses.extra: no losse 'graph'"),
        ("representations: [solo]\ntraining: {signals: [x/y]}", "training.signals: no signal 'x/y'"),
        ("representations: [solo]\nstopping: {detectors: [drift]}", "stopping.detectors: drift is built in"),
    ],
)
def test_a_study_names_only_what_is_registered(text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        parse_study(f"name: a\n{text}", "study.yaml")
    assert f"study.yaml: {said.replace('losse ', 'loss ')}" in str(error.value)


def test_a_missing_name_says_what_to_do_and_is_a_key_error() -> None:
    with pytest.raises(UnknownName, match=r"--plugin FILE\.py"):
        entry("lifters", "graph")
    assert REPRESENTATIONS.get("nothing") is None


def test_checking_a_plain_study_imports_neither_torch_nor_optuna() -> None:
    code = (
        "import sys; from tips_dist.study_file import parse_study; "
        "parse_study('name: a\\nrepresentations: [solo]', 'x'); "
        "sys.exit('torch' in sys.modules or 'optuna' in sys.modules or 'ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
