"""What a study asks for, before anything starts: work, memory, disk and time; ``run --dry-run`` prints it.

Operations are counted, memory and disk are counted from the tensors that a program holds and its trials write, and the
time comes from one real step of each representation, on this machine and as far as it carries.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
DRAWN = 72  # bytes for each pose of the batches up to the next evaluation step: indices, random numbers, angles, labels
PROBE = 1e11  # operations of the step that is timed, at most; some tenths of a second
STEPS = 3  # that are timed; the fastest tells
SIZES = ("model.width", "training.batch_size")  # by which packs and the memory of a step go
WIDEST = (*SIZES, "model.discriminator_blocks", "training.steps")  # what makes a trial larger

Packed = Callable[[Configuration], int]  # how many trials like this one train as one program


@dataclass(frozen=True)
class Forecast:
    """One representation's trials; where the search varies sizes, each trial is counted as the largest."""

    representation: str
    trials: int
    seeds: int
    steps: int
    parameters: int  # of lifter and discriminator of one seed
    operations: float  # floating-point operations of all trials' training steps
    disk: int  # bytes that all trials leave behind, at most
    step_seconds: float  # of one step of a program on this machine's CPU, of as many trials as train together there
    data_bytes: int  # that a program holds once: every pose and its mirror image
    held_bytes: (
        int  # that each of its trials adds: weights, gradients, moments, what is drawn up to the next evaluation
    )
    kept_bytes: int  # and between a step's way forward and back, which workers share
    largest: Configuration  # what the above was counted of

    def memory(self, together: float = 1, workers: int = 1) -> int:
        """Bytes that a process holds at once to train so many trials, besides Python, torch and Ray (0.3 GB)."""
        return int(self.data_bytes + together * (self.held_bytes + self.kept_bytes / workers))

    def plain(self) -> dict[str, object]:
        """The same as JSON, with the memory of a trial by itself."""
        values = {name: value for name, value in vars(self).items() if name != "largest"}
        return {**values, "memory": self.memory()}


def forecast(
    study: Study, poses: Poses, trials: Callable[[str], int], packed: Packed, threads: int = 1
) -> list[Forecast]:
    """What each representation's trials ask for; takes some seconds, for it times a step of each.

    Args:
        study: the study.
        poses: its data.
        trials: how many a representation gets.
        packed: how many trials like one train as one program on this machine's CPU.
        threads: of a program.
    """
    return [_of(study, name, poses, trials(name), packed, threads) for name in study.representations]


def fullest(study: Study, name: str, packed: Packed) -> float:
    """How many of the largest trials take the memory of the fullest program: small trials come in larger packs."""
    largest = _load(_largest(study, name))
    return max(packed(own) * _load(own) / largest for own in _sizes(study, name))


def makespan(lengths: Iterable[float], places: int) -> float:
    """When the last of some programs ends that begin in this order, each as soon as a place is free."""
    free = [0.0] * places
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def flops(configuration: Configuration, seeds: int) -> float:
    """Floating-point operations that a step needs: two per weight and pose forward, twice that backward.

    Lifter: the poses, the new views, and the turned views. Discriminator: real poses and new views, once.
    """
    training, name = configuration.training, configuration.representation
    turns = (3 if training.turns == "all" else 1) / training.turned_every
    lifter = lifter_parameters(name, matched_width(name, configuration.model.width))
    return 6.0 * seeds * training.batch_size * ((2 + turns) * lifter + 2 * _discriminator_parameters(configuration))


def _of(study: Study, name: str, poses: Poses, trials: int, packed: Packed, threads: int) -> Forecast:
    configuration = _largest(study, name)
    training, together = configuration.training, packed(configuration)
    weights = lifter_parameters(name, matched_width(name, configuration.model.width))
    players = weights + _discriminator_parameters(configuration)
    step_seconds, kept = _probe(configuration, together * study.seeds, threads)
    held = NUMBER * (COPIES * players + weights * (training.average > 0))
    drawn = DRAWN * training.batch_size * training.evaluate_every
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
        disk=int(trials * (judged * depths + states + candidates + looks * study.seeds * ROW_BYTES)),
        step_seconds=step_seconds,
        data_bytes=2 * poses.poses.nbytes,
        held_bytes=study.seeds * (held + drawn),
        kept_bytes=int(kept / together),
        largest=configuration,
    )


def _largest(study: Study, name: str) -> Configuration:
    """The configuration with the upper ends of what is searched and makes a trial larger."""
    return study.configuration(name, {key: max(ends) for key, ends in _searched(study, name, WIDEST).items()})


def _sizes(study: Study, name: str) -> Iterator[Configuration]:
    """Configurations of every size that is searched; of a range, its ends."""
    searched = _searched(study, name, SIZES)
    for values in itertools.product(*searched.values()):
        yield study.configuration(name, dict(zip(searched, values, strict=True)))


def _searched(study: Study, name: str, keys: Sequence[str]) -> dict[str, list[float]]:
    return {
        key: _ends(dimension)
        for key, dimension in study.space.items()
        if key in keys and (not dimension.only or name in dimension.only)
    }


def _ends(dimension: Dimension) -> list[float]:
    match dimension:
        case OneOf(choice=values):
            return [value for value in values if not isinstance(value, str)]
        case Uniform(uniform=ends) | LogUniform(log_uniform=ends) | Integer(int=ends):
            return [*ends]
    raise TypeError(f"{dimension!r} is no dimension")


def _load(configuration: Configuration) -> int:
    """What the memory of a step follows, but for the number of seeds."""
    return configuration.training.batch_size * configuration.model.width


def _discriminator_parameters(configuration: Configuration) -> int:
    width, blocks = configuration.model.width, configuration.model.discriminator_blocks
    return (2 * len(JOINTS) + 1 + blocks * 2 * (width + 1) + 1) * width + 1


def _probe(configuration: Configuration, seeds: int, threads: int) -> tuple[float, float]:
    """Seconds of a step of all seeds, and the bytes that it keeps between its way forward and back.

    Both grow with the batch and with the seeds, so that a smaller step tells of a large one.
    """
    training = configuration.training
    some = max(1, min(seeds, int(PROBE / flops(configuration, 1))))
    most = max(32, int(training.batch_size * PROBE / flops(configuration, some)))
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
            with _counted(state.tensors().values()) as kept:
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
def _counted(held: Iterable[Tensor]) -> Iterator[Mapping[int, int]]:
    """Which storages, and how many bytes of each, the body's graph keeps for its way back, those ``held`` aside."""
    kept: dict[int, int] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in held}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
