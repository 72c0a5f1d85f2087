"""What a study asks for: counted as its trials really hold and write it."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.training.worlds import tiny, world
from tips_dist.cli import app
from tips_dist.forecast import flops, forecast
from tips_dist.models import parameters_per_seed
from tips_dist.study_file import parse_study
from tips_dist.training.loop import train
from tips_dist.training.state import State

STUDY = """
name: small
representations: [solo, torso_legs]
seeds: 2
model: {width: 16, discriminator_blocks: 1}
training: {steps: 40, batch_size: 16, evaluate_every: 10, checkpoint_every: 2, validation_poses: 64, candidates: 4}
search: {trials: 3, sampler: random}
space: {model.width: {choice: [8, 32]}, training.generator_lr: {log_uniform: [1.0e-4, 1.0e-3]}}
"""


def test_parameters_are_those_of_the_networks_and_sizes_those_of_the_largest_trial() -> None:
    parts = forecast(parse_study(STUDY, "test"), world())
    for part in parts:
        state = State(tiny(part.representation, "model.width=32"), (0,), torch.device("cpu"))
        networks = sum(parameters_per_seed(net, 1) for net in (state.lifter, state.discriminator))
        assert part.parameters == networks
        assert (part.trials, part.seeds, part.steps) == (3, 2, 40)
        assert part.seconds == pytest.approx(3 * 40 * part.step_seconds)


@pytest.mark.parametrize("judge", ["averaged", "both"])
def test_the_disk_that_a_trial_takes_is_at_most_what_was_said(tmp_path: Path, judge: str) -> None:
    study = parse_study(STUDY, "test", ["space={}", "search.trials=1", f"training.judge={judge}", "model.width=64"])
    (said, _) = forecast(study, world())
    train(study.configuration("solo"), (0, 1), world(), tmp_path)
    taken = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert 0.4 * said.disk < taken < said.disk


def test_operations_follow_the_turned_views() -> None:
    few, one, all_three = (
        flops(tiny("solo", *more), 1) for more in (["training.turned_every=2"], [], ["training.turns=all"])
    )
    assert few < one < all_three
    assert all_three - one == pytest.approx(4 * (one - few))


def test_memory_grows_with_seeds_and_batch_also_where_the_probe_is_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    def memory(*overrides: str) -> int:
        return forecast(parse_study(STUDY, "test", ["space={}", "search.trials=1", *overrides]), world())[0].memory

    whole = memory("seeds=4", "training.batch_size=256")
    assert memory("seeds=2", "training.batch_size=256") < whole > memory("seeds=4", "training.batch_size=64")
    monkeypatch.setattr("tips_dist.forecast.PROBE_NUMBERS", 64 * 16)
    assert memory("seeds=4", "training.batch_size=256") == pytest.approx(whole, rel=0.1)


def test_a_dry_run_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY)
    result = CliRunner().invoke(app, ["run", "study.yaml", "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [part["representation"] for part in found["parts"]] == ["solo", "torso_legs"]
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]
    told = CliRunner().invoke(app, ["run", "study.yaml", "--dry-run"]).output
    assert "Nothing was started." in told
    assert "torso_legs" in told
