"""A discriminator whose learning rate is raised mid-run breaks its seed, and only its seed."""

from pathlib import Path

import pytest

from tests.training.worlds import tiny, world
from tips_dist.files import read_json_lines
from tips_dist.training.loop import train
from tips_dist.training.values import Moments, Values

BROKEN, FROM_STEP, STEPS, RAISE = 1, 120, 340, 100


def test_a_raised_discriminator_rate_is_told_and_its_neighbours_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = tiny(
        "solo", f"training.steps={STEPS}", "training.evaluate_every=20", "training.batch_size=32", "model.width=24",
        "training.generator_lr=1e-3", "training.discriminator_lr=2e-2", "stopping.divergence=default",
        "stopping.policy.drift_alarm=1000.0",  # the discriminator's own detectors are under test
    )  # fmt: skip
    real = Values.moments

    def raised(self: Values, step: int) -> dict[str, list[Moments]]:
        moments = real(self, step)
        if step >= FROM_STEP and len(self.rows) == 3:  # until the broken one is taken out
            own = moments["discriminator"][BROKEN]
            moments["discriminator"][BROKEN] = own._replace(rate=own.rate * RAISE)
        return moments

    monkeypatch.setattr(Values, "moments", raised)
    outcome = {seed.seed: seed for seed in train(configuration, [0, 1, 2], world(), tmp_path).seeds}
    broken = outcome[BROKEN]
    assert broken.verdict == "diverged"
    assert "discriminator" in broken.reason
    assert broken.onset is not None
    assert FROM_STEP < broken.onset <= FROM_STEP + 100
    assert broken.stopped_step <= broken.onset + 120  # patience: six evaluation steps
    assert all(outcome[seed].verdict in ("healthy", "plateaued") for seed in (0, 2))
    assert all(outcome[seed].stopped_step == STEPS for seed in (0, 2))
    rows = list(read_json_lines(tmp_path / "history.jsonl"))
    assert {row["seed"] for row in rows if row["step"] == STEPS} == {0, 2}
