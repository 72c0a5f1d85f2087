"""One tiny study with the real loop, evaluated: what answers are made from."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from studies.answers.material import Ground, Material, load
from tests.study.conftest import run_trials_inline
from tips_dist import cli
from tips_dist.data import procedural
from tips_dist.data.writer import write_poses, write_truth
from tips_dist.study.monitored import monitored_train

STUDY = """
name: tiny
data: {poses: made.pose2d.h5}
representations: [solo, torso_legs]
seeds: 3
model: {width: 12, discriminator_blocks: 1, student_blocks: 1}
training: {steps: 100, batch_size: 16, evaluate_every: 10, validation_poses: 64, generator_lr: 3.0e-3, judge: both}
stopping: {divergence: off, plateau: off}
search: {trials: 2, sampler: grid}
space:
  losses.bend: {choice: [0.0, 1.0]}
distillation: {teachers: 3, steps: 20, batch_size: 32}
"""


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Procedural people; two sequences of the test split get an action that training lacks."""
    folder = tmp_path_factory.mktemp("ground")
    poses, joints = procedural.generate(1200, 5, cameras=2)
    tested = {poses.sequence_names[code] for code in np.unique(poses.sequence[poses.rows("test")])[:1]}
    names = enumerate(poses.sequence_names)
    named = tuple(f"cartwheel_{place}" if name in tested else name for place, name in names)
    poses = dataclasses.replace(poses, sequence_names=named)
    write_poses(folder / "made.pose2d.h5", poses)
    write_truth(folder / "made.truth3d.h5", joints, poses.digest)
    return Ground.read(folder / "made")


@pytest.fixture(scope="session")
def runs(ground: Ground) -> Path:
    """A folder with the run of one study, as ``make study-results`` leaves it."""
    folder = ground.truth.path.parent
    (folder / "tiny.yaml").write_text(STUDY)

    def run_trials(study, run, poses, search, unfinished, progress, train):  # type: ignore[no-untyped-def]
        run_trials_inline(study, run, poses, search, unfinished, progress, train or monitored_train)

    words = ["tips-dist", "run", f"{folder}/tiny.yaml", "--runs", f"{folder}/results/tiny", "--truth",
             str(ground.truth.path)]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit):
        patch.setattr("tips_dist.study.tuning.run_trials", run_trials)
        patch.setattr("tips_dist.study.run.connected", lambda *arguments: contextlib.nullcontext())
        patch.setattr(sys, "argv", words)
        cli.main()
    return folder / "results"


@pytest.fixture(scope="session")
def material(runs: Path, ground: Ground) -> Material:
    """The run, loaded."""
    (run,) = (runs / "tiny").glob("tiny-*")
    return load(run, ground)
