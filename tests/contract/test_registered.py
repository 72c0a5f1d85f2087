"""Everything built in, and the example plug-in, keeps the contracts that authors of plug-ins inherit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.testing.pytest_samplers import BasicSamplerTestCase

from tips_dist import plugins, registry, testing
from tips_dist.config import Policy, Uniform
from tips_dist.data.procedural import generate
from tips_dist.models import per_seed
from tips_dist.registry import BUILT_IN, entries
from tips_dist.stability.detectors import Judge, Recipe
from tips_dist.study.cma import CmaSampler

EXAMPLE = Path(__file__).parents[2] / "examples" / "graph_lifter" / "graph_lifter.py"


def names(kind: str) -> list[str]:
    return [one.name for one in entries(kind) if one.source == BUILT_IN]


@pytest.fixture(scope="module", autouse=True)
def example() -> Iterator[None]:
    """The example plug-in is loaded while this module runs."""
    loaded = dict(plugins._loaded)
    plugin = plugins.load_file(EXAMPLE)
    yield
    for kind in registry.HOMES:
        for one in entries(kind):
            if one.source == plugin.source:
                registry.unregister(kind, one.name)
    plugins._loaded.clear()
    plugins._loaded.update(loaded)


class _Named:
    """Runs a suite for every name of its kind."""

    every: list[str]

    @pytest.fixture(autouse=True)
    def _name(self, request: Any) -> None:
        self.name = request.param


def of(kind: str, *more: str) -> Any:
    return pytest.mark.parametrize("_name", [*names(kind), *more], indirect=True)


@of("representations")
class TestRepresentations(_Named, testing.RepresentationContract):
    pass


@of("lifters", "graph")
class TestLifters(_Named, testing.LifterContract):
    pass


@of("losses", "even_sides")
class TestLosses(_Named, testing.LossContract):
    pass


@pytest.mark.parametrize("_name", ["graph/stretch"], indirect=True)
class TestSignals(_Named, testing.SignalContract):
    pass


@of("detectors")
class TestDetectors(_Named, testing.DetectorContract):
    pass


class TestJudge(testing.DetectorContract):
    """All detectors together."""

    def make(self) -> Any:
        return Judge(2000, Recipe(), Policy(patience=2, plateau_patience=3))


@of("samplers")
class TestSamplers(_Named, testing.SamplerContract):
    @property
    def space(self) -> str:  # type: ignore[override]
        if self.name == "grid":
            return (
                "training.generator_lr: {choice: [1.0e-4, 2.0e-4, 5.0e-4]}\n  losses.cycle_2d: {choice: [1, 2, 3, 4]}"
            )
        return testing.SamplerContract.space


class TestCsvPoses(testing.ImporterContract):
    name = "csv_poses"
    options = {"validation_share": 0.4}  # noqa: RUF012

    def source(self, folder: Path) -> Path:
        poses, _ = generate(600, 0)
        source = folder / "source"
        source.mkdir()
        for index in range(6):
            rows = poses.poses[100 * index : 100 * index + 100].reshape(100, 34)
            text = "\n".join(",".join(f"{value:.2f}" for value in row) for row in rows)
            (source / f"take_{index}.csv").write_text(text + "\n")
        return source


class TestOptunasOwnSuiteOnCmaEs(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Any:
        space = {"x": Uniform(uniform=(-1.0, 1.0)), "y": Uniform(uniform=(0.0, 1.0))}
        return lambda: CmaSampler(space, 0)


def test_a_suite_notices_a_lifter_whose_seeds_mix() -> None:
    """Contracts must be able to fail."""
    from torch import nn

    from tips_dist.models import Lifter

    class Mixing(Lifter):
        def forward(self, poses: Any) -> Any:
            found = super().forward(poses)
            return found + 0.001 * found.mean(0, keepdim=True)

    registry.register("lifters", "mixing", Mixing)
    registry.register(
        "lifters", "narrow", per_seed(lambda representation, width: nn.Sequential(nn.Flatten(), nn.Linear(34, 34)))
    )
    try:
        suite = testing.LifterContract()
        suite.name = "mixing"
        with pytest.raises(AssertionError):
            suite.test_a_broken_seed_touches_no_neighbour()
        suite.name = "narrow"
        with pytest.raises(Exception, match=r"gave \(2, 34\)"):
            suite.test_it_gives_depths_and_leaves_the_root_at_0()
    finally:
        registry.unregister("lifters", "mixing")
        registry.unregister("lifters", "narrow")
