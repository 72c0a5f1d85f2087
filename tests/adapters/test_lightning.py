"""The Lightning callback, with the real Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tips_dist as td
from tests.test_watch import VIEWS


def lifter(explode_at: int | None = None) -> Any:
    """Depths proportional to x, by a factor that a batch sets; two optimisers, as a GAN has."""
    lightning = pytest.importorskip("lightning.pytorch")  # not before a test needs it: it takes seconds

    class Lifter(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.factor = nn.Parameter(torch.ones(()))

        def training_step(self, batch: Any, index: int) -> None:
            for optimiser in self.optimizers():
                optimiser.zero_grad()
                loss = 0 * self.factor
                self.manual_backward(loss)
                optimiser.step()
            with torch.no_grad():
                self.factor.fill_(20.0 if explode_at is not None and self.global_step > 2 * explode_at else 1.0)
            self.log("loss", loss)
            assert self.training

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD([self.factor], lr=0.1) for _ in range(2)]

    return Lifter()


def lift(module: Any, poses: Tensor) -> Tensor:
    assert not module.training
    found: Tensor = module.factor * (poses[..., 0] * poses[:, 2:3, 1].sign() + 0.3 * poses[..., 1])
    return found


def fitted(folder: Path, module: Any, batches: int, checkpoint: Path | None = None) -> tuple[Any, Any]:
    import lightning.pytorch

    from tips_dist.adapters.lightning import WatchCallback

    watching = WatchCallback(VIEWS, lift, folder, steps=200, every=10)
    trainer = lightning.pytorch.Trainer(
        max_epochs=1,
        limit_train_batches=batches,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watching],
    )
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(200, 1)), batch_size=1)
    trainer.fit(module, data, ckpt_path=checkpoint)
    return trainer, watching


def test_a_fit_that_runs_away_is_stopped_and_what_was_before_is_kept(tmp_path: Path) -> None:
    _, watching = fitted(tmp_path / "run", lifter(explode_at=100), 200)
    assert watching.seen.stop
    assert 100 < watching.batches < 200
    assert watching.watch.best_step <= 100
    assert torch.load(watching.watch.best_checkpoint)["factor"] == 1.0
    run = td.RunFolder(tmp_path / "run")
    assert run.trials[0].seed_outcomes[0].verdict == watching.seen.verdict.kind
    assert list(run.frame()["step"]) == list(range(10, watching.batches + 1, 10))  # batches, not optimisers' steps
    assert "loop/loss" in run.frame().columns


def test_a_sound_fit_is_left_alone(tmp_path: Path) -> None:
    _, watching = fitted(tmp_path / "run", lifter(), 50)
    assert watching.batches == 50
    assert not watching.seen.stop


def test_it_goes_on_from_a_checkpoint_of_lightning(tmp_path: Path) -> None:
    from tips_dist.adapters.lightning import WatchCallback

    trainer, before = fitted(tmp_path / "run", lifter(), 30)
    trainer.save_checkpoint(tmp_path / "at.ckpt")
    assert before.state_dict() == {"batches": 30}
    again = WatchCallback(VIEWS, lift, tmp_path / "run", steps=200, every=10)
    saved = torch.load(tmp_path / "at.ckpt", weights_only=False)["callbacks"]
    again.load_state_dict(next(state for name, state in saved.items() if "WatchCallback" in name))
    assert again.batches == 30
