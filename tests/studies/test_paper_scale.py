"""The papers' scale: its study says what docs/recipe.md says of the authors, and asks for what its comment says."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import intensity
from tests.conftest import Invoke
from tips_dist.config import Study
from tips_dist.data import procedural
from tips_dist.data.writer import write_poses
from tips_dist.report.live import duration
from tips_dist.study.search import TrialSearch
from tips_dist.study_file import load_study

ROOT = Path(__file__).parents[2]
FILE = ROOT / "studies" / "paper_h36m.yaml"
EPOCH = 1_559_752 // 8192
# What docs/recipe.md says of the authors -> the same as knobs.
AUTHORS: dict[str, tuple[str, dict[str, Any]]] = {
    "batch norm, dropout in the lifter": ("on, 0.5", {"model.batch_norm": True, "model.dropout": 0.5}),
    "random rotation": ("one angle per batch", {"training.rotation": "batch"}),
    "label swaps": ("10 % of batches", {"losses.label_swap": 0.1}),
    "x-flip": ("batch mirrored with probability 1/2", {"training.flip_probability": 0.5}),
    "90° consistency": ("all three, added up", {"training.turns": "all", "losses.consistency_90": 3 * 3.0}),
    "learning rate": ("2e-4 both", {"training.generator_lr": 2e-4, "training.discriminator_lr": 2e-4}),
    "batch size": ("8192", {"training.batch_size": 8192}),
    "width, length": ("1024, 800 epochs", {"model.width": 1024, "training.steps": 800 * EPOCH}),
}
NO_PRIOR = ("bone_prior", "bend", "cycle_3d", "r1")


@pytest.fixture
def study() -> Study:
    return load_study(FILE, [])


def authors() -> dict[str, str]:
    """The authors' column of docs/recipe.md."""
    rows = [line.split("|") for line in (ROOT / "docs" / "recipe.md").read_text().splitlines() if line.startswith("| ")]
    return {row[1].strip(): row[2].strip() for row in rows}


@pytest.mark.parametrize("choice", AUTHORS)
def test_the_recipe_is_the_authors(study: Study, choice: str) -> None:
    words, knobs = AUTHORS[choice]
    assert authors()[choice] == words
    for key, value in knobs.items():
        assert functools.reduce(getattr, key.split("."), study) == value, key


def test_both_of_their_losses_are_trials_of_every_representation(study: Study, tmp_path: Path) -> None:
    assert "cross entropy with real poses labelled 0.8" in authors()["loss"]
    assert study.representations == ["solo", "torso_legs", "torso_legs_shared", "five_parts", "five_parts_shared"]
    search = TrialSearch(study, tmp_path)
    search.recover()
    found = []
    while (trial := search.propose()) is not None:
        losses = trial.configuration.losses
        found.append((trial.representation, losses.adversarial_kind, losses.real_label))
        assert (losses.adversarial, losses.cycle_2d) == (1, 10)
        assert not any(getattr(losses, name) for name in NO_PRIOR)
    kinds = [("least_squares", 1.0), ("cross_entropy", 0.8)]
    assert sorted(found) == sorted((name, *kind) for name in study.representations for kind in kinds)


def test_an_epoch_is_190_batches_and_has_an_evaluation(study: Study) -> None:
    assert EPOCH == 190 == study.training.evaluate_every
    assert study.distillation.steps == 500 * EPOCH
    assert (study.stopping.divergence, study.stopping.plateau) == ("off", "off")


def test_it_asks_for_what_its_comment_says(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in for the data, as the comment says; steps are timed on a smaller batch than usual."""
    monkeypatch.setattr("tips_dist.forecast.PROBE", 1e9)
    monkeypatch.setattr("tips_dist.forecast.STEPS", 1)
    text = FILE.read_text()
    write_poses(tmp_path / "stand-in.pose2d.h5", procedural.generate(2000, 0, cameras=4)[0])
    words = ["run", FILE, "--dry-run", "--json", "--set", f"data.poses={tmp_path / 'stand-in.pose2d.h5'}"]

    def asked(*overrides: str) -> Any:
        code, out, err = invoke(*words, *(word for one in overrides for word in ("--set", one)))
        assert code == 0, err
        return json.loads(out)

    found = asked()
    parts = found["parts"]
    assert [(part["trials"], part["seeds"], part["steps"]) for part in parts] == [(2, 8, 152_000)] * 5
    assert f"{sum(part['operations'] for part in parts) / 1e15:,.0f} PFLOP" in text
    memory = max(part["memory"] for part in parts)
    assert f"{memory / 1e9:.0f} GB a trial ({memory / 8e9:.1f} GB a seed" in text
    assert f"{sum(part['disk'] for part in parts) / 1e9:.1f} GB of disk" in text
    assert f"at {intensity(8192, 1024):.0f} operations for each" in text
    assert f"a step's gradients ({8 * 4 * parts[0]['parameters'] / 1e9:.1f} GB)" in text
    one, eight = found["cards"]
    assert (one["cards"], one["at_once"], eight["cards"], eight["at_once"]) == (1, 1, 8, 8)
    assert f"one card, as written: about {duration(one['seconds'])}\n" in text
    assert f"(ten trials: two rounds): about {duration(eight['seconds'])}\n" in text
    (line,) = re.findall(r"^#     (--set .*)$", text, flags=re.MULTILINE)
    monkeypatch.setattr("tips_dist.forecast._probe", lambda *given: (1.0, parts[0]["kept_bytes"]))
    (shared,) = asked(*line.split()[1::2])["cards"]
    assert shared["seconds"] == pytest.approx(one["seconds"] / 8)
    assert f"one trial after another: about {duration(one['seconds'] / 8)}," in text
    assert max(program["memory"] for program in shared["programs"].values()) < memory / 6
