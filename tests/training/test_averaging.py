"""The moving average of the weights: its formula, seed by seed, and what is judged by it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.test_loop import StopAfter, history, records
from tests.training.worlds import tiny, world
from tips_dist.data.store import normalisation_scale, normalised
from tips_dist.files import UserError
from tips_dist.models import BaseLifter, Lifter, load_weights, parameters_per_seed
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.training import state as training_state
from tips_dist.training.averaging import CROSSED, Average, behind, decay_at
from tips_dist.training.engine import Engine, sampler_for
from tips_dist.training.loop import Interrupted, train
from tips_dist.training.state import State
from tips_dist.training.step import adversarial_step
from tips_dist.training.validation import validation_set

CPU = torch.device("cpu")


def engine(*overrides: str, seeds: tuple[int, ...] = (0, 1)) -> Engine:
    state = State(tiny("torso_legs", "training.average=0.9", *overrides), seeds, CPU)
    return Engine(state, sampler_for(state, normalised(world(), world().rows("train"), normalisation_scale(world()))))


def tensors(lifter: BaseLifter) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in lifter.state_dict().items()}


def test_the_warm_up_grows_into_the_decay() -> None:
    assert decay_at(0.9, 0) == 0.1
    assert decay_at(0.9, 10) == 11 / 20
    assert decay_at(0.9, 1000) == 0.9


def test_the_average_is_the_papers_formula_with_batch_norms_statistics() -> None:
    running = engine("model.batch_norm=true")
    state: Any = running.state
    expected = tensors(state.lifter)
    for age, batch in enumerate(running.batches()):
        running.step(batch)
        decay = min(0.9, (1 + age) / (10 + age))
        expected = {name: decay * expected[name] + (1 - decay) * one for name, one in tensors(state.lifter).items()}
    assert any("variance" in name for name in expected)
    for name, tensor in tensors(state.averaged).items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def restart(state: Any, seed: int) -> None:
    late = torch.tensor([one == seed for one in state.active])
    state.averaging.restart_where(late)
    state.note_averages([0.0] * len(late), late.tolist())


def test_a_restarted_seed_follows_its_own_warm_up_and_its_neighbour_does_not_notice() -> None:
    apart, untouched = engine(), engine()
    for number, (batch, same) in enumerate(zip(apart.batches(), untouched.batches(), strict=True)):
        if number == 5:
            restart(apart.state, 1)
        apart.step(batch)
        untouched.step(same)
    alone: Any = apart.state
    for name, tensor in tensors(alone.averaged).items():
        other = tensors(untouched.state.judged)[name]
        rows = len(tensor) // 2
        assert torch.equal(tensor[:rows], other[:rows]), name
        assert not torch.equal(tensor[rows:], other[rows:])
    assert alone.average_since == {0: 0, 1: 5}


def test_averages_of_different_ages_equal_those_of_packs_of_one() -> None:
    pack = [Lifter(engine().state.lifter.representation, 8, 2) for _ in range(2)]
    for lifter in pack:
        for parameter in lifter.parameters():
            torch.nn.init.normal_(parameter)
    before = tensors(pack[0])
    average = Average(pack[0], pack[1], [0.99, 0.99])
    average.update([3, 700])
    for name, tensor in tensors(average.lifter).items():
        raw, rows = tensors(pack[1])[name], len(tensor) // 2
        for row, age in enumerate((3, 700)):
            place = slice(row * rows, (row + 1) * rows)
            expected = torch.lerp(before[name][place], raw[place], 1 - decay_at(0.99, age))
            torch.testing.assert_close(tensor[place], expected)


def test_raw_training_does_not_depend_on_averaging(tmp_path: Path) -> None:
    for name, overrides in {"off": ["training.average=0"], "raw": ["training.judge=raw"]}.items():
        train(tiny("solo", *overrides), [0], world(), tmp_path / name)
    assert history(tmp_path / "off") == history(tmp_path / "raw")
    train(tiny(), [0], world(), tmp_path / "on")
    for one, other in zip(history(tmp_path / "on"), history(tmp_path / "off"), strict=True):
        for key in ("generator/loss", "discriminator/loss", "gradients/lifter", "updates/discriminator"):
            assert one[key] == other[key]
        assert one["consistency/cycle_2d"] != other["consistency/cycle_2d"]


def test_both_writes_the_raw_depths_beside_the_averaged_ones(tmp_path: Path) -> None:
    for judge in ("both", "averaged", "raw"):
        train(tiny("solo", f"training.judge={judge}"), [0, 1], world(), tmp_path / judge)
    depths = {path.relative_to(tmp_path).as_posix(): np.load(path) for path in tmp_path.glob("*/*.npy")}
    assert set(depths) == {"both/depths.npy", "both/depths_raw.npy", "averaged/depths.npy", "raw/depths.npy"}
    np.testing.assert_array_equal(depths["both/depths.npy"], depths["averaged/depths.npy"])
    np.testing.assert_array_equal(depths["both/depths_raw.npy"], depths["raw/depths.npy"])
    assert not np.array_equal(depths["raw/depths.npy"], depths["averaged/depths.npy"])


def test_the_candidates_are_averaged(tmp_path: Path) -> None:
    configuration = tiny("solo", "training.candidates=9", "model.batch_norm=true")
    train(configuration, [0], world(), tmp_path)
    lifter, record = load_weights(tmp_path / "candidates" / "seed0-step40.safetensors")
    poses = validation_set(world(), configuration, record.scale).poses
    np.testing.assert_allclose(lifter(poses[None])[0].detach(), np.load(tmp_path / "depths.npy")[-1, 0], atol=2e-3)


def test_compaction_takes_the_averages_along() -> None:
    running = engine(seeds=(0, 1, 2))
    state: Any = running.state
    for batch in running.batches():
        running.step(batch)
    before = tensors(state.averaged)
    restart(state, 2)
    state.compact([1])
    assert parameters_per_seed(state.averaged, 2) == parameters_per_seed(state.lifter, 2)
    for name, tensor in tensors(state.averaged).items():
        rows = len(tensor) // 2
        assert torch.equal(tensor[:rows], before[name][:rows])
        assert torch.equal(tensor[rows:], tensors(state.lifter)[name][rows:])
    assert state.average_since[2] == state.step


@pytest.mark.parametrize("decay", ["1.0", "-0.1", "1.5"])
def test_a_decay_outside_its_range_is_one_clear_error(decay: str) -> None:
    with pytest.raises(UserError, match=r"training\.average: "):
        tiny("solo", f"training.average={decay}")


def test_behind_is_the_share_of_depth_that_the_average_lacks() -> None:
    raw = torch.ones(2, 4, 17)
    averaged = raw.clone()
    averaged[1, 0, 7:] = -1  # one pose's torso
    averaged[1, 1, 7:] = 0.1
    parts, whole = REPRESENTATIONS["torso_legs"], REPRESENTATIONS["solo"]
    assert behind(averaged, raw, parts, 0.0).tolist() == [0.0, 0.25]
    assert behind(averaged, raw, parts, 0.2).tolist() == [0.0, 0.5]
    assert behind(averaged, raw, whole, 0.0).tolist() == [0.0, 0.25]  # 7 legs' joints against 10 of the torso
    assert behind(averaged, raw, whole, 0.2).tolist() == [0.0, 0.25]


CROSSING = ("training.steps=240", "training.evaluate_every=10", "training.average=0.998", "training.judge=both")
FLIP_AT = 201  # the first step after an evaluation step


def flip(monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    """Turn one seed's lifter into its mirror image before a step: what a crossing does, at once."""
    real = adversarial_step

    def flipping(lifter: Any, discriminator: Any, batch: Any, *rest: Any) -> Any:
        if flipping.state.step == FLIP_AT - 1:  # type: ignore[attr-defined]
            with torch.no_grad():
                for head in lifter.heads:
                    head.weight[row] *= -1
                    head.bias[row] *= -1
        return real(lifter, discriminator, batch, *rest)

    def remember(self: Engine, *arguments: Any) -> None:
        begin(self, *arguments)
        flipping.state = self.state  # type: ignore[attr-defined]

    begin = Engine.__init__
    monkeypatch.setattr(Engine, "__init__", remember)
    monkeypatch.setattr("tips_dist.training.engine.adversarial_step", flipping)


def test_an_average_begins_anew_behind_a_mirror_crossing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny("solo", *CROSSING), [0, 1, 2], world(), tmp_path / "calm")
    flip(monkeypatch, row=1)
    monkeypatch.setattr(training_state, "CROSSED", 2.0)  # no share is that large: restarts nothing
    train(tiny("solo", *CROSSING, "training.steps=220"), [0, 1, 2], world(), tmp_path / "left")
    monkeypatch.setattr(training_state, "CROSSED", CROSSED)
    train(tiny("solo", *CROSSING), [0, 1, 2], world(), tmp_path / "crossed")
    shares = {(row["step"], row["seed"]): row["average/opposed"] for row in history(tmp_path / "crossed")}
    assert shares[210, 1] > 0.9
    assert shares[220, 1] < CROSSED  # flat by now: the average spans 20 steps
    assert shares[230, 1] < CROSSED
    assert max(share for (_, seed), share in shares.items() if seed != 1) < CROSSED
    raw, averaged, left = (
        np.load(tmp_path / name).astype(np.float32)
        for name in ("crossed/depths_raw.npy", "crossed/depths.npy", "left/depths.npy")
    )
    assert (averaged[21, 1] == raw[21, 1]).all()  # begun anew before it was judged
    assert likeness(averaged[22:, 1], raw[22:, 1]) > 0.95
    assert np.abs(left[21, 1]).mean() < 0.3 * np.abs(raw[21, 1]).mean()  # what would have been judged
    calm = np.load(tmp_path / "calm" / "depths.npy")
    assert (calm[:, [0, 2]] == averaged[:, [0, 2]]).all()


def likeness(first: Any, second: Any) -> float:
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run leaves whose first seed crosses over, uninterrupted."""
    folder = tmp_path_factory.mktemp("crossed")
    with pytest.MonkeyPatch.context() as patch:
        flip(patch, row=0)
        train(tiny("solo", *CROSSING), [0, 1], world(), folder)
    return records(folder)


@pytest.mark.parametrize("stop_at", [215, 225])
def test_a_restarted_average_goes_on_exactly_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crossed: dict[str, bytes], stop_at: int
) -> None:
    """Interrupted between the two evaluation steps that decide, and just after the restart."""
    flip(monkeypatch, row=0)
    with pytest.raises(Interrupted):
        train(tiny("solo", *CROSSING), [0, 1], world(), tmp_path, should_stop=StopAfter(stop_at))
    train(tiny("solo", *CROSSING), [0, 1], world(), tmp_path)
    assert records(tmp_path) == crossed
