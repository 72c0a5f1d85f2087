"""A Lightning callback that watches a lifter: ``Trainer(callbacks=[WatchCallback(poses, lift, "runs/mine", …)])``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tips_dist.watch import Seen, Watch

try:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback
except ImportError:  # the older name of the same
    from pytorch_lightning import LightningModule, Trainer
    from pytorch_lightning.callbacks import Callback

Of = Callable[[LightningModule, Tensor], Tensor]


class WatchCallback(Callback):  # type: ignore[misc]
    """Looks every so many batches, records a run folder, stops the fit when the verdict ends the run.

    With several processes the first one looks and all of them stop.

    Args:
        poses: held-out 2D poses, as for :class:`tips_dist.Watch`.
        lift: (module, poses (N, 17, 2)) -> depths (N, 17), on its device, in the units of a Watch.
        folder: the run folder to make.
        steps: how many batches the fit takes at most; a multiple of ``every``. Batches are counted, since
            ``trainer.global_step`` counts the steps of all optimisers together.
        every: batches between two looks.
        discriminate: (module, poses) -> scores (N,).
        others: further arguments of :class:`tips_dist.Watch`. Without ``save``, the module's ``state_dict`` is written.
    """

    def __init__(
        self,
        poses: Any,
        lift: Of,
        folder: Path | str,
        *,
        steps: int,
        every: int,
        discriminate: Of | None = None,
        **others: Any,
    ) -> None:
        self._poses, self._lift, self._discriminate = poses, lift, discriminate
        self._arguments = {"folder": folder, "steps": steps, "every": every, **others}
        self.every, self.batches = every, 0
        self.watch: Watch | None = None  # of the first process
        self.seen: Seen | None = None  # the last look

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch, or go on with what the folder holds."""
        if not trainer.is_global_zero:
            return

        def of(function: Of) -> Callable[[Tensor], Tensor]:
            return lambda poses: function(pl_module, poses.to(pl_module.device))

        given: dict[str, Any] = {
            "save": lambda path: torch.save(pl_module.state_dict(), path),
            "discriminate": None if self._discriminate is None else of(self._discriminate),
            **self._arguments,
        }
        self.watch = Watch(self._poses, of(self._lift), tensors=True, **given)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look when it is due; what the module logs goes into the history."""
        self.batches += 1
        if self.batches % self.every:
            return
        stop = False
        if self.watch is not None and self.watch.due(self.batches):
            training = pl_module.training
            pl_module.eval()
            try:
                numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
                self.seen = self.watch.check(self.batches, numbers)
            finally:
                pl_module.train(training)
            stop = self.seen.stop
        if trainer.strategy.reduce_boolean_decision(stop, all=False):
            trainer.should_stop = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that the run has ended."""
        if self.watch is not None:
            self.watch.finish()

    def state_dict(self) -> dict[str, Any]:
        """What goes into Lightning's checkpoint."""
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint: steps that were looked at already are not looked at again."""
        self.batches = int(state_dict["batches"])
