"""A run that the version before was interrupted in goes on, whatever knobs came since."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tips_dist.config import Configuration
from tips_dist.files import UserError
from tips_dist.runfolder import CheckpointRecord, RunFolder
from tips_dist.runfolder.records import Identity
from tips_dist.runfolder.weights import METADATA
from tips_dist.sections import recorded
from tips_dist.study.folder import check_unchanged, own_study
from tips_dist.training.identity import identity_of, why_other
from tips_dist.training.loop import train

FIXTURES = Path(__file__).parent / "fixtures"
TRIAL = "torso_legs-001"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURES, tmp_path / "fixtures")
    return tmp_path / "fixtures" / "interrupted"


def test_an_interrupted_run_of_the_version_before_ends_as_if_undisturbed(run: Path) -> None:
    folder = RunFolder(run)
    check_unchanged(run, folder.study)
    trial = folder.trial(TRIAL)
    steps: list[int] = []
    outcome = train(
        trial.configuration,
        trial.seeds,
        folder.poses(),
        trial.folder(run),
        report=lambda progress: steps.append(progress.step),
    )
    assert steps == [20, 30]  # it went on from step 15
    undisturbed = RunFolder(run.parent / "finished").trial(TRIAL)
    assert [seed.verdict for seed in outcome.seeds] == [seed.verdict for seed in undisturbed.seed_outcomes]
    ends = [
        [row for row in RunFolder(where).history(TRIAL) if row.step == 30] for where in (run, run.parent / "finished")
    ]
    for one, other in zip(*ends, strict=True):  # the risk is another now; what training measured is not
        for name in ("generator/loss", "discriminator/loss", "consistency/cycle_2d"):
            assert one.signals[name] == pytest.approx(other.signals[name], rel=1e-3), name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"average": 0.5}, "another configuration"),
        ({"generator_lr": 1e-3}, "another configuration"),
        ({"checkpoint_every": 7}, None),
    ],
)
def test_a_checkpoint_is_bound_to_the_values_that_change_its_numbers(
    change: dict[str, float], words: str | None, run: Path
) -> None:
    """Of the version before (known by digest) as of this one (known by its values)."""
    folder = RunFolder(run)
    configuration, digest = folder.trial(TRIAL).configuration, folder.study.data.digest
    other = configuration.model_copy(update={"training": configuration.training.model_copy(update=change)})
    was, now = (identity_of(one, digest, 1.0) for one in (configuration, other))
    assert (why_other(was, now) is None) == (words is None)
    if words is not None and "average" not in change:
        with pytest.raises(UserError, match=words):
            train(other, folder.trial(TRIAL).seeds, folder.poses(), folder.trial(TRIAL).folder(run))


def test_the_study_file_of_the_version_before_is_still_its_own(run: Path) -> None:
    record = RunFolder(run).study
    own = own_study(run, record)
    assert own.training.average > 0  # what the file means today
    assert record.resolved.training.average == 0.0  # what the run did
    assert record.asks_for(own, own)


def test_a_checkpoint_record_of_schema_1_is_read() -> None:
    from safetensors import safe_open

    (path,) = (FIXTURES / "interrupted" / "trials" / TRIAL / "checkpoint").iterdir()
    with safe_open(str(path), framework="np") as file:
        record = CheckpointRecord.parse(file.metadata()[METADATA], "x")
    assert record.identity.configuration is None
    assert record.step == 15


@pytest.mark.parametrize("knob", [("losses", "bend"), ("training", "average"), ("training", "judge")])
def test_a_checkpoint_from_before_a_knob_goes_on_where_the_knob_does_what_runs_did_then(knob: tuple[str, str]) -> None:
    """As if the knob were added today: the checkpoint's values lack it."""
    section, name = knob
    old = {"representation": "solo", "training": {"average": 0.0}}
    now = identity_of(recorded(Configuration, old), "d", 1.0)
    plain = json.loads(now.model_dump_json())
    plain["configuration"].setdefault(section, {}).pop(name, None)
    was = Identity.model_validate_json(json.dumps(plain))
    assert why_other(was, now) is None
    assert now.configuration is not None
    part = getattr(now.configuration, section)
    other = part.model_copy(update={name: "both" if name == "judge" else 0.5})
    changed = identity_of(now.configuration.model_copy(update={section: other}), "d", 1.0)
    assert why_other(was, changed) is not None
    assert f"{section}.{name} was" in str(why_other(was, changed))
