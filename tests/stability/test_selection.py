import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.test_models import built
from tips_dist.files import UserError
from tips_dist.models import save_weights
from tips_dist.stability.selection import select


def run_folder(path: Path, seeds: list[dict[str, Any]], teachers: int = 2) -> Path:
    """Two trials that share ``seeds`` between them, each with its lowest-risk candidate on disk."""
    path.mkdir(exist_ok=True)
    (path / "study.json").write_text(json.dumps({"resolved": {"distillation": {"teachers": teachers}}}))
    for number in (0, 1):
        trial = f"solo-{number:03d}"
        mine = [
            {"verdict": "healthy", "onset": None, "best_step": 50, "stopped_step": 100, "reason": "", **seed}
            for seed in seeds[number::2]
        ]
        folder = path / "trials" / trial
        folder.mkdir(parents=True)
        record = {"id": trial, "representation": "solo", "outcome": {"seeds": mine}}
        (folder / "trial.json").write_text(json.dumps(record))
        for seed in mine:
            if seed["best_step"]:
                file = folder / "candidates" / f"seed{seed['seed']}-step{seed['best_step']}.safetensors"
                save_weights(file, built("solo", [0]), 0, {"part_signs": [-1], "sign_confidence": [0.9]})
    return path


def seed(number: int, risk: float | None, **more: Any) -> dict[str, Any]:
    return {"seed": number, "best_risk": risk, **more}


def test_teachers_are_the_lowest_risks_over_all_trials(tmp_path: Path) -> None:
    run = run_folder(tmp_path, [seed(0, 5.0), seed(1, 3.0), seed(2, 9.0), seed(3, 4.0)])
    found = select(run)
    assert [(one["seed"], one["risk"]) for one in found["teachers"]] == [(1, 3.0), (3, 4.0)]
    assert found["teachers"][0]["part_signs"] == [-1]
    assert (run / found["teachers"][0]["file"]).exists()
    assert json.loads((run / "selection.json").read_text()) == found
    assert all(row["why"] for row in found["seeds"])


def test_a_diverged_seed_may_keep_a_candidate_from_before_its_onset_only(tmp_path: Path) -> None:
    before = seed(0, 1.0, verdict="diverged", onset=80)
    after = seed(1, 0.5, verdict="diverged", onset=20)
    found = select(run_folder(tmp_path, [before, after, seed(2, 2.0)]))
    assert [one["seed"] for one in found["teachers"]] == [0, 2]
    assert "after the onset of 'diverged' at 20" in next(row["why"] for row in found["seeds"] if row["seed"] == 1)


def test_seeds_without_a_candidate_say_why(tmp_path: Path) -> None:
    run = run_folder(tmp_path, [seed(0, None, best_step=None, verdict="non_finite"), seed(1, 2.0), seed(2, 3.0)])
    next((run / "trials" / "solo-000" / "candidates").glob("seed2-*")).unlink()
    why = {row["seed"]: row["why"] for row in select(run)["seeds"]}
    assert why[0] == "no evaluation step with a finite risk"
    assert "is missing" in why[2]


def test_nothing_to_select_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    run = run_folder(tmp_path, [seed(0, None, best_step=None)])
    with pytest.raises(UserError, match="nothing to select"):
        select(run)
    assert not (run / "selection.json").exists()


def test_ties_are_broken_by_trial_and_seed(tmp_path: Path) -> None:
    found = select(run_folder(tmp_path, [seed(3, 1.0), seed(2, 1.0), seed(1, 1.0), seed(0, 1.0)]))
    assert [(one["trial"], one["seed"]) for one in found["teachers"]] == [("solo-000", 1), ("solo-000", 3)]


def test_seeds_that_agree_up_to_mirroring_are_told_from_one_that_does_not(tmp_path: Path) -> None:
    run = run_folder(tmp_path, [seed(0, 1.0), seed(9, 9.0), seed(1, 2.0), seed(9, 9.0), seed(2, 3.0)])
    folder = run / "trials" / "solo-000"
    record = json.loads((folder / "trial.json").read_text())
    record |= {"seeds": [0, 1, 2], "configuration": {"training": {"evaluate_every": 50}}}
    (folder / "trial.json").write_text(json.dumps(record))
    depths = np.random.default_rng(0).normal(size=(2, 3, 64, 17)).astype(np.float16)
    depths[0, 1] = -depths[0, 0]  # the same answer, mirrored
    np.save(folder / "depths.npy", depths)
    mirrored = folder / "candidates" / "seed1-step50.safetensors"
    save_weights(mirrored, built("solo", [0]), 0, {"part_signs": [1], "sign_confidence": [0.9]})
    apart = {row["seed"]: row["disagreement"] for row in select(run)["seeds"] if row["trial"] == "solo-000"}
    assert apart[0] == apart[1] < 0.6 * apart[2]
