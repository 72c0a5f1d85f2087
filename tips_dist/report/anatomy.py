"""Figures of bodies: what predicted depths depend on, and example poses lifted, from several views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tips_dist.drawing import BONE_SIDES, SIDE_COLOUR
from tips_dist.files import UserError
from tips_dist.geometry import CAMERA_DISTANCE, MINIMUM_DEPTH
from tips_dist.report.figures import Figure, new_figure
from tips_dist.report.runs import SeedRun, seed_runs
from tips_dist.runfolder import Dependence, RunFolder, layout
from tips_dist.skeleton import BONES, JOINTS, REPRESENTATIONS

Floats = NDArray[np.floating]
EXAMPLES = 3  # poses drawn per representation
COLUMN, ROW = 1.9, 2.6  # units between figures


@dataclass(frozen=True)
class Lifted:
    """The validation depths (V, 17) of a representation's run of lowest risk, at that checkpoint, as predicted."""

    representation: str
    trial: str
    seed: int
    step: int
    depths: Floats
    signs: tuple[int, ...]  # per independent lifter, resolved without truth; empty if unknown
    source: str = ""  # what lifted, in words; else trial, seed and step say it


def best_bodies(run: RunFolder) -> list[Lifted]:
    """Per representation the run of lowest risk whose depths were recorded."""
    teachers = run.selection.teachers if run.selection else []
    signs = {(row.trial, row.seed): tuple(row.part_signs) for row in teachers}
    runs = sorted(seed_runs(run), key=lambda item: np.inf if item.best_risk is None else item.best_risk)
    found = [next((body for item in runs if item.representation == name and (body := _depths(run, item, signs))), None)
             for name in run.representations]  # fmt: skip
    return [body for body in found if body is not None]


def student_body(run: RunFolder, poses: Floats) -> Lifted | None:
    """The validation poses (V, 17, 2), normalised, lifted by the student; None where there is none that can be read."""
    path = layout.STUDENT_WEIGHTS.at(run.path)
    if not path.is_file():
        return None
    from tips_dist.models.student import Student

    try:
        student = Student.load(path)
    except UserError:
        return None
    depths = student.lift(poses * student.record.scale)[..., 2]
    taught = f"the student of {len(run.student.teachers)} checkpoints" if run.student else "the student"
    return Lifted("student", "student", 0, 0, depths, tuple(student.record.part_signs or (1,)), taught)


def _depths(run: RunFolder, item: SeedRun, signs: Mapping[tuple[str, int], tuple[int, ...]]) -> Lifted | None:
    trial = run.trial(item.trial)
    if item.best_risk is None or not item.best_step or (table := run.depths(trial)) is None:
        return None
    row = item.best_step // trial.configuration.training.evaluate_every - 1
    depths = np.array(table[row, trial.seeds.index(item.seed)], float)  # of (E, S, V, 17)
    known = signs.get((item.trial, item.seed), ())
    return Lifted(item.representation, item.trial, item.seed, item.best_step, depths, known)


def dependence_figures(record: Dependence) -> list[Figure]:
    """Matrices of ``dependence.json``: what each depth listens to, and which depths move together."""
    found = []
    for name, values in record.representations.items():
        where = f"{values.trial} seed {values.seed} step {values.step}"
        listening = np.abs(np.array(values.input_gradient, float))
        together = np.abs(np.array(values.output_correlation, float))
        long_range = f"{values.long_range:.0%} of it joins keypoints more than {record.near_bones} bones apart"
        found += [
            _matrix(
                f"What depths depend on: {name}",
                listening / max(float(listening.max()), 1e-12),
                f"{where}: mean absolute input gradient, largest = 1; depths down, keypoints across; {long_range}.",
                "share",
            ),
            _matrix(
                f"Depths that move together: {name}",
                together,
                f"{where}: |correlation| of predicted depths over validation poses.",
                "|r|",
            ),
        ]
    return found


def _matrix(title: str, shares: Floats, caption: str, unit: str) -> Figure:
    figure = new_figure("", "", height=430)
    names = [name.replace("_", " ") for name in JOINTS]
    figure.add_heatmap(
        z=shares.astype(np.float32),
        x=names,
        y=names,
        zmin=0,
        zmax=1,
        colorscale="Blues",
        colorbar={"title": unit, "thickness": 12},
        hovertemplate="%{y} and %{x}: %{z:.2f}<extra></extra>",
    )
    figure.update_xaxes(tickangle=-60, showgrid=False, tickfont={"size": 10})
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"size": 10})
    return Figure(title, figure, caption, f"Matrix of 17 by 17 joints. {title}. {caption}")


def poses_figure(lifted: Lifted, poses: Floats) -> Figure:
    """A few validation poses (V, 17, 2), normalised, lifted by one run: 2D input, front, side and from above."""
    rows = [index * len(poses) // EXAMPLES for index in range(EXAMPLES)]
    solid = bodies(lifted, poses, rows)
    views = {
        "2D input": poses[rows] * CAMERA_DISTANCE,
        "front": solid[..., [0, 1]],
        "side": solid[..., [2, 1]],
        "above": solid[..., [0, 2]] * np.array([1, -1]),
    }
    figure = new_figure("", "", height=150 * EXAMPLES + 30, showlegend=True)
    for side, colour in SIDE_COLOUR.items():
        bones = [bone for bone, of in zip(BONES, BONE_SIDES, strict=True) if of == side]
        x: list[float | None] = []
        y: list[float | None] = []
        for column, points in enumerate(views.values()):
            for row, pose in enumerate(points):
                middle = (pose.max(axis=0) + pose.min(axis=0)) / 2
                for parent, child in bones:
                    for joint in (parent, child):
                        x.append(float(pose[joint, 0] - middle[0] + COLUMN * column))
                        y.append(float(-(pose[joint, 1] - middle[1]) - ROW * row))
                    x.append(None)
                    y.append(None)
        figure.add_scatter(
            x=x, y=y, mode="lines", name=side, line={"color": f"rgb{colour}", "width": 3}, hoverinfo="skip"
        )
    for column, name in enumerate(views):
        figure.add_annotation(x=COLUMN * column, y=1.6, text=name, showarrow=False)
    figure.update_xaxes(visible=False, range=[-COLUMN / 2, COLUMN * (len(views) - 0.5)])
    figure.update_yaxes(visible=False, range=[-ROW * (EXAMPLES - 0.5), 1.7], scaleanchor="x")
    resolved = "depth signs resolved without truth" if lifted.signs else "depth signs as predicted"
    source = lifted.source or f"{lifted.trial} seed {lifted.seed} step {lifted.step}"
    caption = f"{source[0].upper()}{source[1:]}, validation poses, {resolved}."
    alt = (
        f"{EXAMPLES} stick figures lifted by {lifted.representation}, as 2D input, from the front, the side and above."
    )
    return Figure(f"Lifted poses: {lifted.representation}", figure, caption, alt)


def bodies(lifted: Lifted, poses: Floats, rows: list[int]) -> Floats:
    """The validation poses of ``rows`` in 3D (R, 17, 3), centred on the hip's depth, signs resolved where known."""
    depth = np.maximum(MINIMUM_DEPTH, CAMERA_DISTANCE + lifted.depths[rows] * _joint_signs(lifted))
    return np.concatenate([poses[rows] * depth[..., None], (depth - CAMERA_DISTANCE)[..., None]], axis=-1)


def _joint_signs(lifted: Lifted) -> Floats:
    """(17,) factors that turn depths as predicted into sign-resolved ones; 1 where the signs are unknown."""
    if not lifted.signs or lifted.representation not in REPRESENTATIONS:
        return np.ones(len(JOINTS))
    return np.array(lifted.signs, float)[list(REPRESENTATIONS[lifted.representation].lifter_of)]
