"""Small data sets that the evaluation tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tips_dist import geometry
from tips_dist.data.store import SPLITS, Poses, normalisation_scale, normalised
from tips_dist.models import Lifter, initialise, save_weights
from tips_dist.runfolder import Selection, StudyRecord, example, layout
from tips_dist.skeleton import HEAD, REPRESENTATIONS, ROOT
from tips_dist.training.validation import validation_rows

Joints = npt.NDArray[np.float32]


def small_poses(count: int = 60, seed: int = 0) -> Poses:
    """Random 2D points with bookkeeping: six sequences, two cameras, all three splits."""
    generator = np.random.default_rng(seed)
    sequence = (np.arange(count) * 6 // count).astype(np.int32)
    return Poses(
        poses=generator.normal(500, 100, (count, 17, 2)).astype(np.float32),
        subject=np.zeros(count, np.int32),
        sequence=sequence,
        camera=(np.arange(count) % 2).astype(np.int32),
        frame=np.arange(count, dtype=np.int32),
        split=np.array([0, 0, 1, 1, 2, 2], np.int8)[sequence],
        subject_names=("S1",),
        sequence_names=("walking_1", "running_1", "walking_2", "running_2", "walking_3", "running_3"),
        camera_names=("front", "side"),
        source="test",
        frame_rate_hz=50.0,
    )


def true_offsets(poses: Poses, joints: Joints) -> Tensor:
    """The depth offsets (N, 17) that a perfect lifter would predict: root-relative z in root-head distances."""
    unit = float(np.linalg.norm(joints[:, HEAD] - joints[:, ROOT], axis=-1).mean())
    depth = joints[:, :, 2] - joints[:, :1, 2]
    return torch.from_numpy((depth / unit).astype(np.float32))


def fitted_lifter(
    representation: str, inputs: Tensor, offsets: Tensor, *, steps: int = 150, width: int = 32, seed: int = 0
) -> Lifter:
    """A lifter taught (by truth; tests only) to predict ``offsets`` (N, 17) for ``inputs`` (N, 17, 2)."""
    generator = torch.Generator().manual_seed(seed)
    lifter = Lifter(REPRESENTATIONS[representation], width, blocks=1)
    initialise(lifter, [generator])
    optimiser = torch.optim.Adam(lifter.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(len(inputs), (128,), generator=generator)
        loss = (lifter(inputs[rows][None])[0] - offsets[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return lifter.eval()


def study_record(poses: Poses, scale: float, **sections: Any) -> StudyRecord:
    """What study.json holds, for a study of procedural poses."""
    study = example.study(
        **{
            "data": {"procedural": {"poses": len(poses), "seed": 3}},
            "representations": ["solo", "torso_legs"],
            "seeds": 2,
            "model": {"width": 32, "student_blocks": 1},
            "training": {"steps": 40, "evaluate_every": 10, "validation_poses": 32},
            "distillation": {"steps": 800, "batch_size": 128, "lr": 0.003},
            **sections,
        }
    )
    counts = {split: len(poses.rows(split)) for split in SPLITS}
    return example.study_record(study, data_digest=poses.digest, scale=scale, counts=counts)


SEEDS = (0, 1)
STEPS = (10, 20, 30, 40)
# Noise on the true depths at each evaluation step, so that the order of the checkpoints is known.
NOISE = {0: (0.4, 0.05, 0.2, 0.3), 1: (0.4, 0.3, 0.2, 0.1)}
RISKS = {0: (90.0, 60.0, 70.0, 80.0), 1: (90.0, 80.0, 70.0, 60.0)}  # in the order of the noise
# What multiplies the true depths of a part: the second seed of each trial is mirrored, in part or whole.
SIGNS = {("solo", 0): [1], ("solo", 1): [-1], ("torso_legs", 0): [1, 1], ("torso_legs", 1): [1, -1]}


def example_run(folder: Path, poses: Poses, joints: Joints) -> None:
    """A run folder as study and training write it, with depths made from truth, noise and signs."""
    scale = normalisation_scale(poses)
    study = study_record(poses, scale).save(layout.STUDY.at(folder)).study
    rows, offsets = validation_rows(poses, 32), true_offsets(poses, joints)
    inputs = torch.from_numpy(normalised(poses, poses.rows("train"), scale))
    generator = np.random.default_rng(0)
    entries = []
    for name in ("solo", "torso_legs"):
        representation, trial = REPRESENTATIONS[name], f"{name}-000"
        base = folder / "trials" / trial
        record = example.trial(trial, seeds=SEEDS, configuration=study.configuration(name)).write(folder)
        depths = np.zeros((len(STEPS), len(SEEDS), len(rows), 17), np.float16)
        for seed in SEEDS:
            signs = geometry.joint_signs(torch.tensor(SIGNS[name, seed]), representation).numpy()
            true = offsets[rows].numpy() * signs
            for index, noise in enumerate(NOISE[seed]):
                depths[index, seed] = true + generator.normal(0, noise, true.shape) * (np.arange(17) > 0)
            file = f"trials/{trial}/candidates/seed0-step30.safetensors" if seed == 0 else None
            entries.append(example.choice(record, example.outcome(seed, 70.0, 30), file=file))
        np.save(base / "depths.npy", depths)
        example.history(RISKS, every=10).save(layout.HISTORY.at(folder, trial))
        weights = {"scale": scale, "data_digest": poses.digest, "step": 30, "seed": 0, "risk": 70.0}
        lifter = fitted_lifter(name, inputs, offsets[poses.rows("train")])
        for step in (20, 30):  # step 20 was not selected
            candidate = base / "candidates" / f"seed0-step{step}.safetensors"
            signs_told = [1] * len(representation.lifters)
            save_weights(candidate, lifter, 0, {**weights, "step": step, "part_signs": signs_told})
        if name == "solo":
            save_weights(folder / "student" / "student.safetensors", lifter, 0, {**weights, "part_signs": [1]})
    Selection(rule="test", teachers=[], seeds=entries).save(layout.SELECTION.at(folder))
