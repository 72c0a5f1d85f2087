"""``train``: one configuration without Ray, for debugging."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tips_dist.commands.output import print_json, say
from tips_dist.report.tables import number, verdict_words

if TYPE_CHECKING:
    from tips_dist.training.loop import Progress


def train_alone(
    study_file: Path,
    folder: Path | None,
    representation: str | None,
    overrides: list[str],
    *,
    device: str = "auto",
    as_json: bool,
) -> None:
    """Train one configuration of a study in this process and print how its seeds ended."""
    from tips_dist.devices import device_for
    from tips_dist.files import UserError
    from tips_dist.monitoring import Monitor
    from tips_dist.runfolder.poses import study_poses
    from tips_dist.study_file import load_study
    from tips_dist.training.loop import train as run_training

    study = load_study(study_file, overrides)
    name = representation or study.representations[0]
    if name not in study.representations:
        raise UserError(f"--representation {name}: not in the study; it has {', '.join(study.representations)}")
    folder = folder or Path("runs") / f"{study.name}-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    monitor = Monitor(folder / "tensorboard")
    try:
        outcome = run_training(
            study.configuration(name),
            range(study.seed, study.seed + study.seeds),
            study_poses(study.data, study_file.parent),
            folder,
            report=_print_progress,
            device=device_for(device),
            monitor=monitor,
        )
    finally:
        monitor.close()
    if as_json:
        print_json(outcome.model_dump(mode="json"))
        return
    sizes = ", ".join(f"{network} {count:,}" for network, count in outcome.parameters.items())
    say(f"Parameters per seed: {sizes}")
    for seed in outcome.seeds:
        best = f"lowest risk {number(seed.best_risk, None)} at step {seed.best_step}"
        reason = f" ({seed.reason})" if seed.reason else ""
        say(f"Seed {seed.seed}: {seed.verdict}{reason}, stopped at step {seed.stopped_step}, {best}")
    say(f"Trained for {outcome.training_seconds:.1f} s; records in {folder}")


def _print_progress(progress: Progress) -> None:
    verdicts = verdict_words(dict(Counter(progress.verdicts.values())))
    say(
        f"step {progress.step}/{progress.steps}, risk {number(progress.risk, None)}, {verdicts}, "
        f"{progress.steps_per_second:.0f} seed-steps/s",
        stderr=True,
    )
