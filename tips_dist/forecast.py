"""What a study asks for, before anything starts: work, memory, disk and time; ``run --dry-run`` prints it.

Operations are counted, memory and disk are counted from the tensors that a trial holds and writes, and the time comes
from one real step of each representation, on this machine and as far as it carries.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from tips_dist.config import Configuration, Dimension, Integer, LogUniform, OneOf, Study, Uniform
from tips_dist.data.store import Poses
from tips_dist.models import lifter_parameters, matched_width
from tips_dist.skeleton import JOINTS
from tips_dist.training import precision
from tips_dist.training.engine import Engine, sampler_for
from tips_dist.training.sampling import Batch
from tips_dist.training.state import State

ROW_BYTES = 4096  # of history and TensorBoard files together, per seed and evaluation step (measured: 3.5 to 4 kB)
NUMBER = 4  # bytes of a float32
COPIES = 4  # of every weight: itself, its gradient, Adam's two moments
PROBE_NUMBERS = 2**22  # seeds x batch x width of the step that is timed, at most
STEPS = 3  # that are timed; the fastest tells
# What makes a trial larger.
WIDEST = ("model.width", "model.discriminator_blocks", "training.batch_size", "training.steps")


@dataclass(frozen=True)
class Forecast:
    """One representation's trials; where the search varies sizes, each trial is counted as the largest."""

    representation: str
    trials: int
    seeds: int
    steps: int
    parameters: int  # of lifter and discriminator of one seed
    operations: float  # floating-point operations of all trials' training steps
    memory: int  # bytes that a trial holds at once, besides Python, torch and Ray (0.3 GB)
    disk: int  # bytes that all trials leave behind, at most
    step_seconds: float  # of one step of all seeds of a trial, on this machine's CPU
    seconds: float  # of all trials' training steps there, one trial after another


def forecast(study: Study, poses: Poses, threads: int = 1) -> list[Forecast]:
    """What each representation's trials ask for; takes some seconds, for it times one step of each."""
    return [_of(study, name, poses, threads) for name in study.representations]


def flops(configuration: Configuration, seeds: int) -> float:
    """Floating-point operations that a step needs: two per weight and pose forward, twice that backward.

    Lifter: the poses, the new views, and the turned views. Discriminator: real poses and new views, once.
    """
    training, name = configuration.training, configuration.representation
    turns = (3 if training.turns == "all" else 1) / training.turned_every
    lifter = lifter_parameters(name, matched_width(name, configuration.model.width))
    return 6.0 * seeds * training.batch_size * ((2 + turns) * lifter + 2 * _discriminator_parameters(configuration))


def _of(study: Study, name: str, poses: Poses, threads: int) -> Forecast:
    configuration = _largest(study, name)
    training, trials = configuration.training, study.search.trials
    weights = lifter_parameters(name, matched_width(name, configuration.model.width))
    players = weights + _discriminator_parameters(configuration)
    step_seconds, kept = _probe(configuration, study.seeds, threads)
    held = study.seeds * NUMBER * (COPIES * players + weights * (training.average > 0)) + kept
    looks = training.steps // training.evaluate_every
    depths = looks * study.seeds * training.validation_poses * len(JOINTS) * 2 * training.record_depths
    judged = 1 + (training.judge == "both")
    states = 2 * study.seeds * NUMBER * ((COPIES - 1) * players + weights * (training.average > 0))
    candidates = 2 * study.seeds * training.candidates * weights * NUMBER  # those of both checkpoints that are kept
    return Forecast(
        representation=name,
        trials=trials,
        seeds=study.seeds,
        steps=training.steps,
        parameters=players,
        operations=trials * training.steps * flops(configuration, study.seeds),
        memory=int(held + 2 * poses.poses.nbytes),  # every pose and its mirror image
        disk=int(trials * (judged * depths + states + candidates + looks * study.seeds * ROW_BYTES)),
        step_seconds=step_seconds,
        seconds=trials * training.steps * step_seconds,
    )


def _largest(study: Study, name: str) -> Configuration:
    """The configuration with the upper ends of what is searched and makes a trial larger."""
    ends = {
        key: _upper(dimension)
        for key, dimension in study.space.items()
        if key in WIDEST and (not dimension.only or name in dimension.only)
    }
    return study.configuration(name, ends)


def _upper(dimension: Dimension) -> object:
    match dimension:
        case OneOf(choice=values):
            return max(values, key=float)
        case Uniform(uniform=(_, high)) | LogUniform(log_uniform=(_, high)) | Integer(int=(_, high)):
            return high
    raise TypeError(f"{dimension!r} is no dimension")


def _discriminator_parameters(configuration: Configuration) -> int:
    width, blocks = configuration.model.width, configuration.model.discriminator_blocks
    return (2 * len(JOINTS) + 1 + blocks * 2 * (width + 1) + 1) * width + 1


def _probe(configuration: Configuration, seeds: int, threads: int) -> tuple[float, float]:
    """Seconds of a step of all seeds, and the bytes that it keeps between its way forward and back.

    Both grow with the batch and with the seeds, so that a smaller step tells of a large one.
    """
    training = configuration.training
    some = max(1, min(seeds, PROBE_NUMBERS // (training.batch_size * configuration.model.width)))
    most = max(32, PROBE_NUMBERS // (some * configuration.model.width))
    batch = next(size for size in _halved(training.batch_size) if size <= most or size % 2)
    smaller = training.model_copy(update={"batch_size": batch, "turned_every": 1, "evaluate_every": 1 + STEPS})
    probe = configuration.model_copy(update={"training": smaller})
    factor = (seeds / some) * (training.batch_size / batch)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        state = State(probe, tuple(range(some)), torch.device("cpu"))
        poses = torch.randn(64, len(JOINTS), 2, generator=torch.Generator().manual_seed(0)).numpy()
        engine = Engine(state, sampler_for(state, poses))
        batches = engine.batches()
        with precision.applied(state.matmul):
            with _counted() as kept:
                engine.step(next(batches))
            took = min(_seconds(engine, batches) for _ in range(STEPS))
            return factor * took, factor * sum(kept.values())
    finally:
        torch.set_num_threads(before)


def _seconds(engine: Engine, batches: Iterator[Batch]) -> float:
    batch, began = next(batches), time.perf_counter()
    engine.step(batch)
    return time.perf_counter() - began


def _halved(size: int) -> Iterator[int]:
    yield size
    while size % 2 == 0:
        size //= 2
        yield size


@contextmanager
def _counted() -> Iterator[Mapping[int, int]]:
    """Which storages, and how many bytes of each, the body's graph keeps for its way back."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
