"""What a study asks for: counted as its trials really hold and write it."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.training.worlds import tiny, world
from tips_dist.cli import app
from tips_dist.commands import foretelling
from tips_dist.commands.foretelling import CARD, Site
from tips_dist.config import Configuration, Study
from tips_dist.forecast import Forecast, Packed, flops, forecast, fullest, makespan
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


def foretold(study: Study, packed: Packed = lambda own: 1) -> list[Forecast]:
    return forecast(study, world(), lambda name: study.search.trials, packed)


def test_parameters_are_those_of_the_networks_and_sizes_those_of_the_largest_trial() -> None:
    for part in foretold(parse_study(STUDY, "test")):
        state = State(tiny(part.representation, "model.width=32"), (0,), torch.device("cpu"))
        networks = sum(parameters_per_seed(net, 1) for net in (state.lifter, state.discriminator))
        assert part.parameters == networks
        assert (part.trials, part.seeds, part.steps) == (3, 2, 40)
        numbers = sum(tensor.nbytes for tensor in state.tensors().values()) + 4 * networks  # and gradients
        assert 2 * numbers <= part.held_bytes <= 2.2 * numbers


@pytest.mark.parametrize("judge", ["averaged", "both"])
def test_the_disk_that_a_trial_takes_is_at_most_what_was_said(tmp_path: Path, judge: str) -> None:
    study = parse_study(STUDY, "test", ["space={}", "search.trials=1", f"training.judge={judge}", "model.width=64"])
    (said, _) = foretold(study)
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
        return foretold(parse_study(STUDY, "test", ["space={}", "search.trials=1", *overrides]))[0].memory()

    whole = memory("seeds=4", "training.batch_size=256")
    assert memory("seeds=2", "training.batch_size=256") < whole > memory("seeds=4", "training.batch_size=64")
    monkeypatch.setattr("tips_dist.forecast.PROBE", 1.0)
    assert memory("seeds=4", "training.batch_size=256") == pytest.approx(whole, rel=0.01)


def test_a_program_of_many_trials_holds_poses_once_and_all_else_for_each() -> None:
    study = parse_study(STUDY, "test", ["space={}", "search.trials=1"])
    (alone, _), (packed, _) = foretold(study), foretold(study, lambda own: 3)
    assert packed.memory(3) == pytest.approx(alone.memory(3), rel=0.02)
    assert alone.memory(3) == 3 * alone.memory() - 2 * alone.data_bytes
    assert alone.memory(workers=2) == alone.memory() - alone.kept_bytes // 2
    assert alone.data_bytes == 2 * world().poses.nbytes


def test_the_step_that_is_timed_is_one_of_all_trials_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def probe(configuration: Configuration, seeds: int, threads: int) -> tuple[float, float]:
        rows.append(seeds)
        return 0.5 * seeds, 100.0 * seeds

    monkeypatch.setattr("tips_dist.forecast._probe", probe)
    study = parse_study(STUDY, "test", ["search.trials=7", "resources.pack=3", "resources.cpus=1000"])
    here = Site(study)
    parts = forecast(study, world(), lambda name: 7, here.packed)
    assert rows == [6, 6]  # two seeds of three trials
    assert [here.programs(part) for part in parts] == [3, 3]
    assert here.seconds(parts) == 6 * 40 * 3.0  # one program after another
    assert [part.kept_bytes for part in parts] == [200, 200]
    assert here.memory(parts[0]) == parts[0].memory(3)
    monkeypatch.setattr(foretelling, "cores", lambda: 4000)
    assert here.seconds(parts) == 2 * 40 * 3.0  # four at a time, then the other two


def test_cards_take_shares_and_whole_trials() -> None:
    def place(cards: int, *overrides: str) -> tuple[Site, list[Forecast]]:
        study = parse_study(STUDY, "test", ["resources.pack=1", *overrides])
        return Site(study, cards), foretold(study)

    def seconds(cards: int, *overrides: str) -> float:
        found, parts = place(cards, *overrides)
        return found.seconds(parts) * CARD / sum(part.operations for part in parts)

    assert seconds(1) == pytest.approx(1)
    assert seconds(1, "resources.gpus=0.25") == pytest.approx(8 / 6)  # six programs of which four fit: two rounds
    assert seconds(8) == pytest.approx(1 / 6, rel=0.1)  # two cards stand idle
    assert seconds(8, "resources.gpus=8", "resources.workers=8") == pytest.approx(1 / 8)
    assert seconds(8, "resources.max_concurrent=1") == pytest.approx(1)
    assert place(8, "resources.gpus=0.25")[0].room == 32


def test_small_trials_fill_a_program_that_large_ones_do_not() -> None:
    study = parse_study(STUDY, "test", ["search.trials=64", "resources.gpus=0"])
    largest = study.configuration("solo", {"model.width": 32})
    assert Site(study).packed(largest) == 8
    assert fullest(study, "solo", Site(study).packed) == 8  # as many, of the largest
    sizes = "space={model.width: {choice: [64, 256]}}"
    study = parse_study(STUDY, "test", ["search.trials=64", "training.batch_size=256", sizes])
    assert Site(study).packed(study.configuration("solo", {"model.width": 256})) == 1
    assert fullest(study, "solo", Site(study).packed) == 8 * 64 / 256


def test_the_last_of_some_programs_ends() -> None:
    assert makespan([3.0, 1.0, 1.0, 1.0], 2) == 3.0
    assert makespan([1.0, 1.0, 3.0], 2) == 4.0
    assert makespan([1.0] * 10, 8) == 2.0


def test_a_dry_run_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY)
    result = CliRunner().invoke(app, ["run", "study.yaml", "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [part["representation"] for part in found["parts"]] == ["solo", "torso_legs"]
    one, packed = found["parts"][0], found["here"]["programs"]["solo"]
    assert packed["together"] in (2, 3)  # two places or one for six trials
    assert packed["memory"] == one["data_bytes"] + packed["together"] * (one["memory"] - one["data_bytes"])
    assert [place["cards"] for place in found["cards"]] == [1, 8]
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]
    told = CliRunner().invoke(app, ["run", "study.yaml", "--dry-run"]).output
    assert "Nothing was started." in told
    assert "torso_legs" in told
