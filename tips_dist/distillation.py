"""Many teachers into one student: a whole-pose network that learns their mean depths from 2D poses alone.

Teachers are the candidates that ``selection.json`` lists, many of each seed and of whichever representations were
chosen. Each one's depths are sign-resolved, pose by pose where the network holds poses mirrored (module
``pose_signs``), averaged with those it gives for the mirrored pose, and averaged over teachers, weighted by what is
known without truth: confidence in the sign, the risk, and agreement with the median of all, so that one teacher that is
wrong (mirrored, or flat) has little to say. The errors of single checkpoints, the oracle's included, are in part noise
of the adversarial game, which the mean has less of. Teachers are read one after the other, so memory does not depend on
their number.

The student learns that mean (arXiv 2205.05980, section 3.4: mean squared error on the depths only) on the train poses,
and stops on a part of them that it does not see, whole sequences at a time. A second output learns, from the same
features and without moving them, how far the teachers were apart (as deep ensembles do, arXiv 1612.01474): where they
disagree none can be right for sure. It is no error bar: what all teachers get wrong does not show.

Shapes: N train poses; inputs (N, 17, 2) normalised, depth offsets and their spread (N, 17) in root-to-head distances.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tips_dist import config, geometry, pose_signs
from tips_dist.data.store import Poses, normalised
from tips_dist.devices import threads_for
from tips_dist.files import UserError
from tips_dist.model_card import write_card
from tips_dist.models import BaseLifter, Lifter, initialise, load_weights, save_weights
from tips_dist.phases import phase
from tips_dist.runfolder import RunFolder, layout
from tips_dist.runfolder.choices import Disagreement, StudentLoss, StudentModel, StudentRecord, Teacher
from tips_dist.runfolder.poses import expect
from tips_dist.runfolder.weights import read_weights_record
from tips_dist.skeleton import JOINTS, LEGS, MIRROR, PARENT, REPRESENTATIONS, ROOT, TORSO, Representation
from tips_dist.tensors import numbers, places
from tips_dist.training.sampling import stream

HELD_OUT = 0.1  # share of the train sequences that the student stops on
EVALUATIONS = 40  # looks at the held-out part
PATIENCE = 10  # looks without an improvement of a thousandth before it stops
LEAST = 0.05  # of confidence and of agreement: even a teacher unsure of its sign keeps some weight
PARTS = {"legs": LEGS, "torso": TORSO}
MIXED = 0.1  # share of mirrored poses from which a teacher's signs are told pose by pose
SAMPLE = 1024  # poses on which teachers are compared with their median
LEAST_SPREAD = 1e-3  # root-to-head distances: teachers that are closer count as equal
_CHUNK = 16_384

Heard = Callable[[int, int], None]  # teachers heard, of how many


@dataclass(frozen=True)
class LoadedTeacher:
    """A candidate chosen for distillation; its weights are read when they are needed, and not kept."""

    path: Path
    representation: Representation
    part_signs: Tensor  # (P,) +1 or -1
    confidence: Tensor  # (17,) 0..1
    entry: Teacher  # as selection.json has it

    @property
    def lifter(self) -> BaseLifter:
        """Its network."""
        return load_weights(self.path)[0]


@dataclass
class Learning:
    """What happened while the student learned: mean squared errors of depth offsets at each look."""

    steps: list[int]
    train: list[float]
    held_out: list[float]
    best_step: int = 0


def distill(run: Path, poses: Poses, *, device: str | None = None, progress: Heard | None = None) -> Path:
    """Train the student of a run from its selected teachers; write ``student/``; return the weights' path.

    Deterministic: the same run folder and poses give the same student.

    Args:
        run: the run folder.
        poses: those of the run.
        device: where teachers lift; a card where there is one. (The student is small and learns on the processor.)
        progress: hears of every teacher.

    Raises:
        UserError: there is no selection, no teacher in it, or ``poses`` are not those of the run.
    """
    folder = RunFolder(run)
    record, selection = folder.study, folder.selection
    study = record.resolved
    expect(poses, record, run, "the poses given")
    if selection is None:
        raise UserError(f"{layout.SELECTION.at(run)}: no such file; `tips-dist select {run}` writes it")
    teachers = load_teachers(run, selection.teachers)
    if not teachers:
        raise UserError(f"{layout.SELECTION.at(run)}: no teacher was selected, so there is nothing to distil")
    rows, scale = poses.rows("train"), record.data.scale
    inputs = torch.from_numpy(normalised(poses, rows, scale))
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    held_out = torch.from_numpy(held_out_rows(poses.sequence[rows], study.seed))
    with (
        phase("distilling the student", study.distillation.steps) as told,
        threads_for(study.distillation.batch_size, study.model.width),
    ):
        targets, spread, disagreement = teach(teachers, inputs, device=where, progress=progress)
        apart = spread if len(teachers) > 1 else None
        student, learning = train_student(
            inputs, targets, held_out, study.distillation, study.model, study.seed, apart, told
        )
    weights = layout.STUDENT_WEIGHTS.at(run)
    kept = save_weights(
        weights,
        student,
        0,
        {
            "kind": "student",
            "scale": scale,
            "data_digest": poses.digest,
            "step": learning.best_step,
            "seed": study.seed,
            "part_signs": [1],
            "study": study.name,
            "source": poses.source,
        },
    )
    StudentRecord(
        digest=hashlib.sha256(weights.read_bytes()).hexdigest(),
        data_digest=poses.digest,
        scale=scale,
        settings=study.distillation,
        model=StudentModel(representation=kept.representation, width=study.model.width, blocks=kept.blocks),
        teachers=[teacher.entry for teacher in teachers],
        disagreement=disagreement,
        loss=StudentLoss(steps=learning.steps, train=learning.train, held_out=learning.held_out),
        best_step=learning.best_step,
        stopped_step=learning.steps[-1],
        counts={"train": len(rows) - int(held_out.sum()), "held_out": int(held_out.sum())},
    ).save(layout.STUDENT.at(run))
    write_card(weights)
    return weights


def load_teachers(run: Path, entries: Sequence[Teacher]) -> list[LoadedTeacher]:
    """Load the teachers that ``selection.json`` lists.

    Raises:
        UserError: a teacher's weights are missing or damaged, or its signs do not fit its representation.
    """
    teachers = []
    for entry in entries:
        representation = REPRESENTATIONS[read_weights_record(run / entry.file).representation]
        count = len(representation.lifters)
        signs, confidence = (
            torch.tensor(values, dtype=torch.float32) for values in (entry.part_signs, entry.sign_confidence)
        )
        if signs.shape != (count,) or confidence.shape != (count,):
            raise UserError(
                f"{layout.SELECTION.at(run)}: teacher {entry.file}: expected {count} part_signs and as many "
                f"sign_confidence, one for each lifter of {representation.name}"
            )
        sure = geometry.joint_signs(confidence, representation)
        teachers.append(LoadedTeacher(run / entry.file, representation, signs, sure, entry))
    return teachers


def teach(
    teachers: Sequence[LoadedTeacher],
    inputs: Tensor,
    *,
    device: torch.device | None = None,
    progress: Heard | None = None,
) -> tuple[Tensor, Tensor, Disagreement]:
    """The depths the student is to learn and the teachers' spread (N, 17) each, and a summary of how far they disagree.

    The spread is the (weighted) standard deviation over teachers, in units of the root-to-head distance.

    Raises:
        UserError: a teacher predicts depths that are not finite.
    """
    where = device or torch.device("cpu")
    some = inputs[:: max(1, len(inputs) // SAMPLE)]
    told = torch.stack([_both_sides(teacher, some, where) for teacher in teachers])  # (T, some, 17)
    weights = torch.stack([teacher.confidence.clamp_min(LEAST) for teacher in teachers])
    weights = weights * evidence([teacher.entry for teacher in teachers])[:, None] * agreement(told)
    weights = weights / weights.sum(0)
    mean, square = torch.zeros_like(inputs[..., 0]), torch.zeros_like(inputs[..., 0])
    for place, (teacher, weight) in enumerate(zip(teachers, weights, strict=True)):
        outputs = _both_sides(teacher, inputs, where)
        mean += weight * outputs
        square += weight * outputs.square()
        if progress is not None:
            progress(place + 1, len(teachers))
    spread = (square - mean.square()).clamp_min(0).sqrt()
    per_joint = spread.mean(0)
    return (
        mean,
        spread,
        Disagreement(
            mean=float(per_joint[1:].mean()),
            relative_to_depth_spread=float(per_joint[1:].mean()) / max(float(mean[:, 1:].std()), 1e-9),
            per_joint=dict(zip(JOINTS, per_joint.tolist(), strict=True)),
            weights={name: weights[:, list(joints)].mean(1).tolist() for name, joints in PARTS.items()},
        ),
    )


def evidence(entries: Sequence[Teacher]) -> Tensor:
    """What each teacher's risk is worth, (T,): the square of the lowest over its own, as of errors that add up."""
    seconds = [entry.second_risk for entry in entries]
    risks = [entry.risk for entry in entries] if None in seconds else [risk for risk in seconds if risk is not None]
    return torch.tensor([(min(risks) / max(risk, 1e-9)) ** 2 for risk in risks], dtype=torch.float32)


def agreement(outputs: Tensor) -> Tensor:
    """How each teacher's depths (T, N, 17) correlate with the teachers' median, legs and torso apart: (T, 17).

    At least :data:`LEAST`: a mirrored part correlates negatively, a flat one not at all, and neither can be right.
    """
    ordered, count = outputs.sort(dim=0).values, len(outputs)
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    shares = torch.full((count, len(JOINTS)), 1.0)
    for joints in PARTS.values():
        part = list(joints)
        theirs, common = outputs[..., part].flatten(1), median[:, part].flatten()
        theirs, common = theirs - theirs.mean(1, keepdim=True), common - common.mean()
        correlation = (theirs * common).sum(1) / (theirs.norm(dim=1) * common.norm()).clamp_min(1e-9)
        shares[:, part] = correlation.clamp_min(LEAST)[:, None]
    return shares


@torch.inference_mode()
def _both_sides(teacher: LoadedTeacher, inputs: Tensor, device: torch.device) -> Tensor:
    """Sign-resolved depths (N, 17), averaged over the pose and its mirror image."""
    lifter = teacher.lifter.to(device)
    outputs: list[Tensor] = []
    by_pose = None
    for part in torch.split(inputs, _CHUNK):
        chunk = part.to(device)
        both = torch.cat((chunk, mirror(chunk)))
        raw = lifter(both[None])
        if by_pose is None:  # the first chunk tells whether the network holds poses mirrored
            by_pose = bool((_signs(teacher, both, raw).mirrored > MIXED).any())
        if by_pose:
            signs = _signs(teacher, both, raw).joints(teacher.representation)[0]
        else:
            signs = geometry.joint_signs(teacher.part_signs, teacher.representation).to(device)
        straight, mirrored = (raw[0] * signs).chunk(2)
        outputs.append(((straight + mirrored[:, places(MIRROR, mirrored.device)]) / 2).cpu())
    found = torch.cat(outputs).clone()
    if not bool(found.isfinite().all()):
        raise UserError(f"teacher {teacher.entry.file}: predicts non-finite depths; it cannot teach")
    return found


def _signs(teacher: LoadedTeacher, poses: Tensor, raw: Tensor) -> pose_signs.PoseSigns:
    own = teacher.part_signs[None].to(poses.device)
    return pose_signs.resolve_pose_signs(poses, raw, teacher.representation, signs=own)


def mirror(poses: Tensor) -> Tensor:
    """The mirror image (..., 17, 2) of poses: left and right change places and sides."""
    return poses[..., places(MIRROR, poses.device), :] * numbers((-1.0, 1.0), poses.device)


def held_out_rows(sequences: npt.NDArray[np.int32], seed: int) -> npt.NDArray[np.bool_]:
    """Mark (N,) the rows of a tenth of the sequences, at least one; of every tenth row if there is one sequence."""
    kinds = np.unique(sequences)
    if len(kinds) < 2:
        rows: npt.NDArray[np.bool_] = np.arange(len(sequences)) % round(1 / HELD_OUT) == 0
        return rows
    count = max(1, round(HELD_OUT * len(kinds)))
    chosen = np.random.default_rng(seed).permutation(kinds)[:count]
    return np.isin(sequences, chosen)


def train_student(
    inputs: Tensor,
    targets: Tensor,
    held_out: Tensor,
    settings: config.Distillation,
    model: config.Model,
    seed: int,
    spread: Tensor | None = None,
    told: Callable[[int, int], object] = lambda step, steps: None,
) -> tuple[Lifter, Learning]:
    """Fit a whole-pose network to ``targets`` (N, 17); keep the weights that were best on the ``held_out`` rows (N,).

    With ``spread`` (N, 17) a second output learns its logarithm. ``told`` hears how many steps are done, of how many.

    The rate falls along a cosine. It stops early once :data:`PATIENCE` looks in a row bring no improvement.
    """
    generator = stream(seed, "student")
    student = Lifter(REPRESENTATIONS["solo"], model.width, blocks=model.student_blocks, spread=spread is not None)
    logarithms = None if spread is None else spread.clamp_min(LEAST_SPREAD).log()
    initialise(student, [generator])
    optimiser = torch.optim.Adam(student.parameters(), lr=settings.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / settings.steps)))
    )
    seen, unseen = (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]
    every = max(1, settings.steps // EVALUATIONS)
    learning, best, best_weights, stale, running = Learning([], [], []), math.inf, {}, 0, 0.0
    for step in range(1, settings.steps + 1):
        rows = seen[torch.randint(len(seen), (settings.batch_size,), generator=generator)]
        learnt = targets[rows] if logarithms is None else torch.stack((targets[rows], logarithms[rows]), dim=1)
        batch, wanted = flipped(inputs[rows], learnt, generator)
        batch = disturbed(batch, settings.noise, settings.joint_dropout, generator)
        if logarithms is None:
            loss = depth_loss = (student(batch[None])[0] - wanted).square().mean()
        else:
            depths, apart = student.with_spread(batch[None])
            depth_loss = (depths[0] - wanted[:, 0]).square().mean()
            loss = depth_loss + (apart[0] - wanted[:, 1])[:, 1:].square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        running += depth_loss.item()
        if step % every and step < settings.steps:
            continue
        error = _error(student, inputs[unseen], targets[unseen])
        learning.steps.append(step)
        learning.train.append(running / (step - (learning.steps[-2] if len(learning.steps) > 1 else 0)))
        learning.held_out.append(error)
        running = 0.0
        stale = 0 if error < 0.999 * best else stale + 1
        if error < best:
            best, best_weights, learning.best_step = error, copy.deepcopy(student.state_dict()), step
        told(step, settings.steps)
        if stale >= PATIENCE:
            break
    student.load_state_dict(best_weights)
    return student.eval(), learning


def flipped(inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror half of the poses (B, 17, 2) at random, and what is known of their joints (B, ..., 17) with them."""
    chosen = torch.rand(len(inputs), generator=generator) < 0.5
    return (
        torch.where(chosen[:, None, None], mirror(inputs), inputs),
        torch.where(chosen.view(-1, *[1] * (targets.ndim - 1)), targets[..., list(MIRROR)], targets),
    )


def disturbed(inputs: Tensor, noise: float, joint_dropout: float, generator: torch.Generator) -> Tensor:
    """Imitate a detector on poses (B, 17, 2): Gaussian noise on every joint, the root included, and lost joints.

    ``noise`` is a share of the mean root-to-head distance; a lost joint lies where its parent does. The pose is
    centred on its root again, so that noise of the root moves all others, as it does in use.
    """
    if noise:
        inputs = inputs + torch.randn(inputs.shape, generator=generator) * (noise / geometry.CAMERA_DISTANCE)
        inputs = inputs - inputs[:, ROOT : ROOT + 1]
    if joint_dropout:
        lost = torch.rand(inputs.shape[:2], generator=generator) < joint_dropout
        joints = list(inputs.unbind(1))
        for child, parent in enumerate(PARENT):  # a parent comes before its children
            if parent >= 0:
                joints[child] = torch.where(lost[:, child, None], joints[parent], joints[child])
        inputs = torch.stack(joints, dim=1)
    return inputs


@torch.inference_mode()
def _error(student: Lifter, inputs: Tensor, targets: Tensor) -> float:
    errors = [
        (student(batch[None])[0] - wanted).square().sum()
        for batch, wanted in zip(torch.split(inputs, _CHUNK), torch.split(targets, _CHUNK), strict=True)
    ]
    return float(torch.stack(errors).sum()) / targets.numel()
