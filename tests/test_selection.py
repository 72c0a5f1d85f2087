from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.models.test_models import built
from tips_dist.files import UserError
from tips_dist.models import save_weights
from tips_dist.runfolder import SeedOutcome, Selection, example, layout
from tips_dist.runfolder.example import outcome
from tips_dist.selection import select


def run_folder(path: Path, seeds: Sequence[SeedOutcome], teachers: int = 2) -> Path:
    """Two trials that share ``seeds`` between them, each with its lowest-risk candidate on disk."""
    study = example.study(distillation={"teachers": teachers})
    example.study_record(study).save(layout.STUDY.at(path))
    for number in (0, 1):
        trial = example.trial(f"solo-{number:03d}", seeds[number::2]).write(path)
        for seed in trial.seed_outcomes:
            if seed.best_step:
                weights(path / layout.candidate_file(trial.id, seed.seed, seed.best_step), -1)
    return path


def weights(file: Path, sign: int) -> None:
    about = {"scale": 1000.0, "part_signs": [sign], "sign_confidence": [0.9]}
    save_weights(file, built("solo", [0]), 0, about)


def test_teachers_are_the_lowest_risks_over_all_trials(tmp_path: Path) -> None:
    run = run_folder(tmp_path, [outcome(0, 5.0), outcome(1, 3.0), outcome(2, 9.0), outcome(3, 4.0)])
    found = select(run)
    assert [(one.seed, one.risk) for one in found.teachers] == [(1, 3.0), (3, 4.0)]
    assert found.teachers[0].part_signs == [-1]
    assert (run / found.teachers[0].file).exists()
    assert Selection.load(run / "selection.json") == found
    assert all(row.why for row in found.seeds)


def test_a_diverged_seed_may_keep_a_candidate_from_before_its_onset_only(tmp_path: Path) -> None:
    before = outcome(0, 1.0, verdict="diverged", onset=80)
    after = outcome(1, 0.5, verdict="diverged", onset=20)
    found = select(run_folder(tmp_path, [before, after, outcome(2, 2.0)]))
    assert [one.seed for one in found.teachers] == [0, 2]
    assert "after the onset of 'diverged' at 20" in next(row.why for row in found.seeds if row.seed == 1)


def test_seeds_without_a_candidate_say_why(tmp_path: Path) -> None:
    run = run_folder(tmp_path, [outcome(0, None, verdict="non_finite"), outcome(1, 2.0), outcome(2, 3.0)])
    next((run / "trials" / "solo-000" / "candidates").glob("seed2-*")).unlink()
    why = {row.seed: row.why for row in select(run).seeds}
    assert why[0] == "no evaluation step with a finite risk"
    assert "is missing" in why[2]


def test_nothing_to_select_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    run = run_folder(tmp_path, [outcome(0, None)])
    with pytest.raises(UserError, match="nothing to select"):
        select(run)
    assert not (run / "selection.json").exists()


def test_ties_are_broken_by_trial_and_seed(tmp_path: Path) -> None:
    found = select(run_folder(tmp_path, [outcome(3, 1.0), outcome(2, 1.0), outcome(1, 1.0), outcome(0, 1.0)]))
    assert [(one.trial, one.seed) for one in found.teachers] == [("solo-000", 1), ("solo-000", 3)]


def test_seeds_that_agree_up_to_mirroring_are_told_from_one_that_does_not(tmp_path: Path) -> None:
    run = run_folder(tmp_path, [outcome(0, 1.0), outcome(9, 9.0), outcome(1, 2.0), outcome(9, 9.0), outcome(2, 3.0)])
    folder = run / "trials" / "solo-000"
    depths = np.random.default_rng(0).normal(size=(2, 3, 64, 17)).astype(np.float16)
    depths[0, 1] = -depths[0, 0]  # the same answer, mirrored
    np.save(folder / "depths.npy", depths)
    weights(folder / "candidates" / "seed1-step50.safetensors", 1)
    apart = {row.seed: row.disagreement or 0.0 for row in select(run).seeds if row.trial == "solo-000"}
    assert 0 < apart[0] == apart[1] < 0.6 * apart[2]
