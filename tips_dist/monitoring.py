"""TensorBoard files of one trial: every seed a curve, the seeds' mean with its band, verdicts as text.

Below a trial's ``tensorboard/`` the folder itself holds what is of the trial: mean and range of the seeds' most
telling signals (under tags of their own), the mean of the others (under the seeds' tags, so TensorBoard lays the
curves over each other), how many seeds have each verdict, the "Stability" layouts and the verdicts' texts; ``seed<k>/``
holds seed k. Monitoring decides nothing and never fails a run: what cannot be written is said once.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tips_dist.escaping import for_markdown
from tips_dist.stability.verdicts import HEALTHY, KINDS

logger = logging.getLogger(__name__)

EQUILIBRIUM = {"discriminator/real": "equilibrium/real", "discriminator/fake": "equilibrium/fake"}
BALANCE = "equilibrium/balance"  # constant 0.5: where real and fake meet in the balanced game
BANDED = (
    "risk/total",
    "consistency/cycle_2d",
    "rigidity/bone_ratio_variance",
    "distance/sliced_wasserstein",
    "discriminator/accuracy",
)  # signals whose lowest and highest seed are written beside the mean
PICTURED, PICTURED_SEEDS, PICTURE_EVERY = 4, 4, 20  # poses a picture; seeds drawn; evaluations between pictures


def band_tags(tag: str) -> list[str]:
    """The tags of a signal's mean, lowest and highest seed; only trials have them, so that charts match no seed."""
    return [f"seeds/{tag}/{name}" for name in ("mean", "low", "high")]


CHOSEN_BY = (  # metrics of the HParams table
    "risk/best",
    "risk/unbroken_seeds",
    band_tags("rigidity/bone_ratio_variance")[0],
    band_tags("discriminator/accuracy")[0],
)


def verdict_tag(kind: str) -> str:
    """The tag of how many seeds of a trial have a verdict."""
    return f"verdicts/{kind}"


# Categories hold charts of one kind: TensorBoard draws lines before margins, whatever the order within a category.
LAYOUT: dict[str, dict[str, list[Any]]] = {
    "Stability: risk": {"Risk: mean and range of seeds": ["Margin", band_tags("risk/total")]},
    "Stability: seeds and balance": {
        "The trial's risk so far (median of seeds)": ["Multiline", ["risk/best"]],
        "Seeds by verdict: a rise is a verdict that fell": ["Multiline", [verdict_tag(kind) for kind in KINDS]],
        "Seeds in play": ["Multiline", ["risk/unbroken_seeds"]],
        "Equilibrium: balanced at 0.5": ["Multiline", [*EQUILIBRIUM.values(), BALANCE]],
    },
    "Stability: bodies": {
        "2D cycle: mean and range of seeds": ["Margin", band_tags("consistency/cycle_2d")],
        "Rigidity: mean and range of seeds": ["Margin", band_tags("rigidity/bone_ratio_variance")],
    },
}


if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Monitor:
    """Writes what the training loop reports as TensorBoard events below ``folder``; ``None`` writes nothing.

    ``parameters`` are what TensorBoard's HParams table shows of this trial: its representation and its point of the
    search space. A folder that already holds events is continued: the first step written purges everything from
    it on, so that a resumed trial shows each step once. Files are opened at the first write.
    """

    def __init__(self, folder: Path | None, parameters: Mapping[str, float | int | str | bool] | None = None) -> None:
        self.folder = folder
        self.parameters = dict(parameters or {})
        self._writers: dict[str, SummaryWriter] = {}
        self._calls = 0
        self._told = False  # the first verdict of every seed

    def evaluation(self, step: int, rows: Sequence[Mapping[str, Any]], *, seeds_only: bool = False) -> None:
        """Write the history rows of one evaluation step: a row per seed; "group/name" keys are signals.

        A row without ``seed`` holds signals of the trial as a whole, such as its throughput. ``seeds_only`` leaves the
        trial's own series as they are: it has passed this step already, some of its seeds go on from there.
        """
        series: dict[str, list[float]] = {}
        for row in rows:
            values = {
                name: float(value)
                for name, value in row.items()
                if "/" in name and isinstance(value, int | float) and math.isfinite(value)
            }
            risk = row.get("risk")
            if isinstance(risk, int | float) and math.isfinite(risk):
                values["risk/total"] = float(risk)
            if "seed" in row:
                self._write(f"seed{row['seed']}", values, step)
            for name, value in values.items():
                series.setdefault(name, []).append(value)
        if seeds_only:
            return
        mean = {name: sum(values) / len(values) for name, values in series.items()}
        for name in BANDED:
            if name in mean:
                ends = (mean.pop(name), min(series[name]), max(series[name]))
                mean |= dict(zip(band_tags(name), ends, strict=True))
        for name, tag in EQUILIBRIUM.items():
            if name in mean:
                mean |= {tag: mean.pop(name), BALANCE: 0.5}
        fresh = self.folder is not None and not self._told and not any(self.folder.glob("events.out.tfevents.*"))
        self._write("", mean, step)
        for row in rows if fresh else ():
            if "seed" in row:
                self.verdict(step, row["seed"], row.get("verdict", HEALTHY), "as far as is known yet", None)
        self._told = True

    def verdict(self, step: int, seed: int, verdict: str, reason: str, onset: int | None) -> None:
        """Write a seed's verdict as text at the step where it fell; ``onset`` is the step where it began."""
        began = "" if onset is None else f" (began at step {onset})"
        text = f"**{for_markdown(verdict)}** at step {step}{began}: {for_markdown(reason)}"
        self._guarded("", step, lambda writer: writer.add_text(f"verdict/seed{seed}", text, step))

    def poses(self, step: int, seeds: Sequence[int], poses: Any, depths: Any) -> None:
        """Draw a few lifted validation poses and how depths move together, at the first and every 20th call.

        The first four seeds are drawn, and the first of them as a mesh; all lie with the trial, whose seeds may not be
        shown one by one.

        Args:
            step: the evaluation step.
            seeds: the S seeds, in the order of ``depths``.
            poses: (V, 17, 2) normalised 2D poses.
            depths: (S, V, 17) predicted offsets; signs as predicted, so a mirrored seed looks mirrored.
        """
        self._calls += 1
        if self.folder is None or self._calls % PICTURE_EVERY != 1 or not len(seeds):
            return
        import torch

        from tips_dist import drawing, geometry

        depths = torch.as_tensor(depths).float().cpu()
        chosen = [index * len(poses) // PICTURED for index in range(PICTURED)]
        flat = torch.as_tensor(poses).float().cpu()[chosen]
        lifted = geometry.lift(flat.expand(len(seeds), *flat.shape), depths[:, chosen]).numpy()
        for seed, figures in list(zip(seeds, lifted, strict=True))[:PICTURED_SEEDS]:
            self._picture(f"poses/seed{seed}", drawing.pose_picture(flat.numpy(), figures), step)
        together = drawing.depth_correlation(depths.numpy())
        heading = f"|correlation| of depths, {len(seeds)} seeds"
        self._picture("dependence/depths", drawing.matrix_picture(together, heading), step)
        mesh = [torch.as_tensor(part[None]) for part in drawing.stick_mesh(lifted[0])]
        tag = (
            f"{self.folder.parent.name} seed {seeds[0]}, lifted (left blue, right red)"  # all that the page shows of it
        )
        self._guarded("", step, lambda writer: writer.add_mesh(tag, *mesh, None, step))

    def _picture(self, tag: str, picture: Any, step: int) -> None:
        self._guarded("", step, lambda writer: writer.add_image(tag, picture, step, dataformats="HWC"))

    def close(self) -> None:
        """Flush and close all files; a closed monitor opens them again when written to."""
        writers, self._writers = list(self._writers.values()), {}
        for writer in writers:
            with contextlib.suppress(OSError):
                writer.close()

    def _write(self, name: str, values: Mapping[str, float], step: int) -> None:
        if self.folder is None or not values:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        # One event for all values of a step: fewer bytes and less time than an event per value.
        event = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._guarded(name, step, lambda writer: writer.file_writer.add_summary(event, step))

    def _guarded(self, name: str, step: int, write: Callable[[Any], None]) -> None:
        """Write with the writer of the trial (``""``) or of a seed; a disk that refuses ends it."""
        if self.folder is None:
            return
        try:
            write(self._writers.get(name) or self._open(self.folder / name, name, step))
        except OSError as error:
            logger.warning("%s: no more TensorBoard files are written (%s)", self.folder, error)
            self.folder = None
            self.close()

    def _open(self, folder: Path, name: str, step: int) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        resumed = any(folder.glob("events.out.tfevents.*"))
        writer = SummaryWriter(str(folder), purge_step=step if resumed else None)
        if name == "" and not resumed:
            writer.add_custom_scalars(LAYOUT)
            if self.parameters:
                from torch.utils.tensorboard.summary import hparams

                metrics = dict.fromkeys(CHOSEN_BY, 0.0)  # only the names count: the table shows the last scalar
                for summary in hparams(self.parameters, metrics):
                    writer.file_writer.add_summary(summary)
        self._writers[name] = writer
        return writer
