"""How long importing 1.5 million poses takes, and how much memory: ``python benchmarks/import_scale.py [FORMAT ...]``.

Writes a synthetic source of that size in the format's layout (procedural motion, every recording different), imports
it without thinning and with the default, each in a process of its own, and prints seconds (of the clock, and
of the processor) and the peak of resident memory.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from tips_dist.data import cameras, procedural
from tips_dist.data.importers import h36m_fetch, import_data, mpi_inf_3dhp

POSES = 1_500_000
ACTIONS = 30


def motion(rows: int, seed: int) -> tuple[Any, Any]:
    made, truth = procedural.generate(rows, seed)
    return made.poses, truth


def embedded(values: Any, joints: int, places: tuple[int, ...]) -> Any:
    result = np.zeros((len(values), joints, values.shape[-1]), np.float64)
    result[:, places] = values
    return result


def h36m(folder: Path, poses: int) -> None:
    rows = poses // (7 * ACTIONS)
    for s, subject in enumerate(h36m_fetch.SUBJECTS):
        for action in range(ACTIONS):
            flat, joints = motion(rows, s * ACTIONS + action)
            path = folder / "processed" / subject / f"Action-{action}" / "annot.h5"
            path.parent.mkdir(parents=True)
            with h5py.File(path, "w") as file:
                file["pose/2d"] = embedded(flat, 32, h36m_fetch.JOINTS_OF_32)
                file["pose/3d"] = embedded(joints, 32, h36m_fetch.JOINTS_OF_32)
                file["camera"] = np.arange(rows) * 4 // rows
                file["frame"] = np.arange(rows) * 50


def videopose3d(folder: Path, poses: int) -> None:
    rows = poses // (7 * ACTIONS * 4)
    positions_3d: dict[str, Any] = {}
    positions_2d: dict[str, Any] = {}
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # z up into the camera's axes
    for s, subject in enumerate(h36m_fetch.SUBJECTS):
        positions_3d[subject], positions_2d[subject] = {}, {}
        for action in range(ACTIONS):
            joints = motion(rows, s * ACTIONS + action)[1].astype(np.float64)
            walk = np.random.default_rng(action).uniform(-800, 800, size=(rows, 1, 3))
            camera = joints + walk
            world = camera @ turn.T
            flat = cameras.pinhole(np.add(camera, [0, 0, 1500.0]))
            name = f"Action {action}"
            positions_3d[subject][name] = (embedded(world, 32, h36m_fetch.JOINTS_OF_32) / 1000).astype("f4")
            positions_2d[subject][name] = [flat.astype("f4") for _ in range(4)]
    np.savez_compressed(folder / "data_3d_h36m.npz", positions_3d=np.array(positions_3d))
    np.savez_compressed(folder / "data_2d_h36m_gt.npz", positions_2d=np.array(positions_2d))


def mpi(folder: Path, poses: int) -> None:
    rows = poses // (16 * 14)
    for recording in range(16):
        flat, joints = motion(rows * 14, recording)
        cells: dict[str, Any] = {name: np.empty((14, 1), dtype=object) for name in ("annot2", "annot3", "univ_annot3")}
        for camera in range(14):
            part = slice(camera * rows, (camera + 1) * rows)
            cells["annot2"][camera, 0] = embedded(flat[part], 28, mpi_inf_3dhp.JOINTS_OF_28).reshape(rows, 56)
            cells["annot3"][camera, 0] = embedded(joints[part], 28, mpi_inf_3dhp.JOINTS_OF_28).reshape(rows, 84)
            cells["univ_annot3"][camera, 0] = cells["annot3"][camera, 0]
        path = folder / f"S{recording // 2 + 1}" / f"Seq{recording % 2 + 1}" / "annot.mat"
        path.parent.mkdir(parents=True)
        scipy.io.savemat(path, cells)


def arrays(folder: Path, poses: int) -> None:
    flat, joints = np.empty((poses, 17, 2), "f4"), np.empty((poses, 17, 3), "f4")
    for start in range(0, poses, 50_000):
        count = min(50_000, poses - start)
        flat[start : start + count], joints[start : start + count] = motion(count, start)
    sequence = np.arange(poses) // 2000
    np.savez(folder / "all.npz", poses=flat, joints=joints, sequence=sequence, frame=np.arange(poses) * 50)


def coco(folder: Path, poses: int) -> None:
    with (folder / "results.json").open("w") as stream:
        stream.write("[")
        for start in range(0, poses, 50_000):
            flat = motion(min(50_000, poses - start), start)[0].round(2)
            keypoints = np.concatenate([flat, np.full((*flat.shape[:-1], 1), 0.9)], axis=-1).reshape(-1, 51)
            for row, values in enumerate(keypoints.tolist(), start=start):
                entry = {"image_id": f"video_{row // 5000}/{row:09d}.jpg", "keypoints": values, "score": 0.9}
                stream.write(("," if row else "") + json.dumps(entry))
        stream.write("]")


LAYOUTS: dict[str, Any] = {
    "h36m_fetch": (h36m, ".", {}), "h36m_videopose3d": (videopose3d, ".", {"allow_pickle": True}),
    "mpi_inf_3dhp": (mpi, ".", {}), "arrays": (arrays, "all.npz", {}), "coco": (coco, "results.json", {}),
}  # fmt: skip


def measure(format: str, source: str, prefix: str, options: str) -> None:
    """In a process of its own: import and print the figures."""
    start, cpu = time.perf_counter(), time.process_time()
    summary = import_data(format, Path(source), Path(prefix), json.loads(options))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    # Not ru_maxrss: that one remembers the process that started this one.
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 2**20
    print(f"{format:14} {summary['seen']:>9,} seen {summary['kept']:>9,} kept", end=" ")
    print(f"{seconds:6.1f} s ({cpu:5.1f} s CPU) {peak:5.2f} GiB at most")
    for why, count in summary["dropped"].items():
        print(f"{'':14} {count:>9,} {why}")


def main(formats: list[str]) -> None:
    for format in formats:
        build, source, options = LAYOUTS[format]
        key = "minimum_change_2d" if format == "coco" else "minimum_change_mm"
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            build(folder, POSES)
            for extra in ({key: 0.0}, {}):
                arguments = [format, str(folder / source), str(folder / "out"), json.dumps(options | extra)]
                subprocess.run([sys.executable, __file__, "--measure", *arguments], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:6])
    else:
        main(sys.argv[1:] or list(LAYOUTS))
