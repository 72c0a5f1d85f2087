"""An example plug-in: a lifter that passes messages along bones, a loss, a signal and an importer."""

import csv
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tips_dist import geometry, losses
from tips_dist.data.importers.pipeline import Clip, ImportRecord, Options, Source
from tips_dist.data.importers.splits import splits_by_name
from tips_dist.files import UserError
from tips_dist.models import per_seed
from tips_dist.registry import register
from tips_dist.skeleton import BONES, JOINTS, Representation
from tips_dist.stability.signals import Look
from tips_dist.training.terms import Scene


def graph() -> Tensor:
    """Bones both ways and a loop at each joint, rows normalised: (17, 17)."""
    matrix = torch.eye(len(JOINTS))
    for parent, child in BONES:
        matrix[parent, child] = matrix[child, parent] = 1
    return matrix / matrix.sum(1, keepdim=True)


class GraphLifter(nn.Module):
    """A plain module of one seed, (B, 17, 2) -> (B, 17): three rounds of messages, then all joints together."""

    graph: Tensor

    def __init__(self, representation: Representation, width: int) -> None:
        super().__init__()
        features = max(4, width // 8)
        self.register_buffer("graph", graph())
        self.first = nn.Linear(2, features)
        self.rounds = nn.ModuleList(nn.Linear(2 * features, features) for _ in range(3))
        self.last = nn.Sequential(nn.Linear(len(JOINTS) * features, width), nn.ReLU(), nn.Linear(width, len(JOINTS)))

    def forward(self, poses: Tensor) -> Tensor:
        """Depth offsets; poses have a root-to-head distance of about 0.1, so scale them to 1 first."""
        features = torch.relu(self.first(poses * geometry.CAMERA_DISTANCE))
        for layer in self.rounds:
            features = features + torch.relu(layer(torch.cat((features, self.graph @ features), dim=-1)))
        depths: Tensor = self.last(features.flatten(1))
        return depths


register("lifters", "graph", per_seed(GraphLifter))


@register("losses", "even_sides")
def even_sides(scene: Scene) -> Tensor:
    """Left and right bones are equally long: one value per seed. Weight: ``losses.extra.even_sides``."""
    return losses.bone_asymmetry(scene.pose).mean(-1)


@register("signals", "graph/stretch")
def stretch(look: Look) -> Tensor:
    """The longest bone over the mean one, averaged over poses: large where a limb runs away."""
    return losses.bone_ratios(look.pose).amax(-1).mean(-1)


class CsvPoses:
    """An importer of CSV files, one per sequence: 34 columns of x and y in pixels, one frame a line, no header."""

    USES = ("validation_share", "test_share")

    @staticmethod
    def open_source(path: Path, options: Options, record: ImportRecord) -> Source:
        """Stream each file as one clip of one camera."""
        files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path}: no .csv file in it")
        splits = splits_by_name([file.stem for file in files], options, record)
        clips = (_clip(file, splits[file.stem]) for file in files)
        return Source(f"csv ({path.name})", 0.0, truth=False, clips=clips, total=len(files))


def _clip(file: Path, split: str) -> Clip:
    with file.open(newline="") as stream:
        rows = [[float(cell) for cell in row] for row in csv.reader(stream)]
    if not rows or {len(row) for row in rows} != {2 * len(JOINTS)}:
        raise UserError(f"{file}: expected {2 * len(JOINTS)} numbers on each line")
    poses = np.array(rows, np.float32).reshape(-1, len(JOINTS), 2)
    return Clip("nobody", file.stem, "one", split, np.arange(len(poses)), poses, joints=None)


register("importers", "csv_poses", CsvPoses, about="CSV files of 34 numbers a line (no 3D)")
