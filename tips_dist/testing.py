"""Contract suites: what every registered part must keep. Authors of plug-ins inherit them; ours run on them too.

    from tips_dist.testing import LifterContract

    class TestGraph(LifterContract):
        name = "graph"          # the registered name; the plug-in is imported or loaded before

pytest runs the methods. Each suite needs a name alone, but for :class:`ImporterContract`, which needs a data set.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tips_dist import geometry, losses
from tips_dist.config import Policy, Study
from tips_dist.data.procedural import generate
from tips_dist.data.store import SPLITS, normalisation_scale, normalised, read_poses
from tips_dist.files import UserError
from tips_dist.models import load_weights, parameters_per_seed, save_weights
from tips_dist.models.base import BaseLifter, check_lifter
from tips_dist.registry import entry
from tips_dist.runfolder.records import Parameter
from tips_dist.skeleton import JOINTS, REPRESENTATIONS, ROOT
from tips_dist.stability.detectors import Detector, Recipe
from tips_dist.stability.signals import Measured, ValidationSet, further
from tips_dist.stability.verdicts import KINDS, Verdict
from tips_dist.study_file import parse_study
from tips_dist.training.sampling import stream
from tips_dist.training.terms import Scene

Signals = Mapping[str, "float | None"]


def some_poses(count: int = 96, seed: int = 0) -> Tensor:
    """Normalised 2D poses (count, 17, 2) of procedural motion."""
    poses, _ = generate(max(400, 4 * count), seed)
    rows = np.linspace(0, len(poses) - 1, count).astype(np.int64)
    return torch.from_numpy(normalised(poses, rows, normalisation_scale(poses)))


class RepresentationContract:
    """A representation can be lifted by and lets every joint be predicted."""

    name: str

    def test_a_lifter_of_it_predicts_every_joint_but_the_root(self) -> None:
        """No column of its depths stays empty."""
        lifter = entry("lifters", "packed").value(REPRESENTATIONS[self.name], 16, 1)
        lifter.draw([stream(0, "lifter")])
        depths = lifter(some_poses(8)[None])
        assert (depths[..., ROOT] == 0).all()
        assert (depths[..., ROOT + 1 :].abs().amax((0, 1)) > 0).all()

    def test_losses_weigh_every_joint(self) -> None:
        """Shares of the adversarial loss and weights of the cycle losses are positive."""
        representation = REPRESENTATIONS[self.name]
        assert (losses.joint_weights(representation)[1:] > 0).all()
        assert (losses.adversarial_shares(representation) > 0).all()


class LifterContract:
    """A lifter: shapes, seeds that do not mix, weights that come back."""

    name: str
    representation = "solo"
    width = 16

    def make(self, seeds: int, names: tuple[int, ...] | None = None) -> BaseLifter:
        """A pack of so many seeds, weights drawn as training does."""
        kind = entry("lifters", self.name).value
        made: BaseLifter = kind(
            REPRESENTATIONS[self.representation],
            kind.width_for(self.representation, self.width),
            seeds,
            batch_norm=False,
            dropout=0.0,
        )
        made.draw([stream(seed, "lifter") for seed in names or range(seeds)])
        return made

    def test_it_gives_depths_and_leaves_the_root_at_0(self) -> None:
        """(S, B, 17, 2) -> (S, B, 17), finite."""
        lifter = self.make(2)
        check_lifter(lifter)
        depths = lifter.eval()(some_poses(8).expand(2, -1, -1, -1))
        assert depths.shape == (2, 8, len(JOINTS))
        assert depths.isfinite().all()
        assert (depths[..., ROOT] == 0).all()

    def test_packed_equals_alone(self) -> None:
        """Seed 5 of a pack is seed 5 alone."""
        poses = some_poses(8)
        packed = self.make(3, (4, 5, 6)).eval()(poses.expand(3, -1, -1, -1))[1]
        torch.testing.assert_close(packed, self.make(1, (5,)).eval()(poses[None])[0], rtol=1e-4, atol=1e-5)

    def test_a_broken_seed_touches_no_neighbour(self) -> None:
        """Weights that are not finite leave the other rows, and their gradients, as they are: bit for bit."""
        poses = some_poses(8).expand(2, -1, -1, -1)
        sound, broken = self.make(2), self.make(2)
        with torch.no_grad():
            for parameter in broken.parameters():
                parameter.view(2, -1)[1] = math.nan
        depths = []
        for lifter in (sound, broken):
            found = lifter(poses)
            found.square().mean((1, 2)).sum().backward()
            depths.append(found[0].detach())
        assert torch.equal(*depths)
        for one, other in zip(sound.parameters(), broken.parameters(), strict=True):
            if one.grad is not None and other.grad is not None:
                assert torch.equal(one.grad.view(2, -1)[0], other.grad.view(2, -1)[0])

    def test_seeds_differ_and_repeat(self) -> None:
        """The weights are a function of the generator."""
        first, again, other = (self.make(1, (seed,)).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_weights_come_back_by_name(self, tmp_path: Path) -> None:
        """What was saved of one row lifts as that row did."""
        lifter, poses = self.make(2).eval(), some_poses(8)
        save_weights(tmp_path / "w.safetensors", lifter, 1, {"scale": 100.0})
        loaded, record = load_weights(tmp_path / "w.safetensors")
        assert record.lifter == self.name
        expected = lifter(poses.expand(2, -1, -1, -1))[1]
        torch.testing.assert_close(loaded(poses[None])[0], expected, rtol=1e-4, atol=1e-5)

    def test_parameters_are_counted(self) -> None:
        """A pack has S times the parameters of one seed."""
        assert parameters_per_seed(self.make(3), 3) == parameters_per_seed(self.make(1), 1) > 0


def some_scene(seeds: int = 2, batch: int = 8) -> Scene:
    """A step's lifts at random, with gradients to the depths."""
    poses = some_poses(seeds * batch).view(seeds, batch, 17, 2)
    generator = torch.Generator().manual_seed(0)

    def lifted(views: Tensor) -> tuple[Tensor, Tensor]:
        offsets = 0.5 * torch.randn(views.shape[:-1], generator=generator)
        offsets[..., ROOT] = 0
        offsets.requires_grad_()
        return geometry.lift(views, offsets), offsets

    pose, _ = lifted(poses)
    turn = geometry.rotation(torch.full((seeds, batch), 0.7), torch.zeros(seeds, batch))
    quarter = geometry.rotation(torch.full((seeds, batch), torch.pi / 2), torch.zeros(seeds, batch))
    seen, turned = geometry.rotate(pose, turn), geometry.rotate(pose, quarter)
    again, _ = lifted(geometry.project(seen))
    _, turned_offsets = lifted(geometry.project(turned))
    back = geometry.project(geometry.rotate(again, turn.transpose(-1, -2)))
    weights = torch.full((17,), 1 / 17)
    return Scene(poses, pose, seen, again, back, turned, turned_offsets, weights, weights, None)


class LossContract:
    """A term of the generator's loss: one finite value per seed, which no other seed touches."""

    name: str

    def test_it_gives_one_finite_value_per_seed(self) -> None:
        """(S,), and the same when asked again."""
        term, scene = entry("losses", self.name).value, some_scene()
        value = term(scene)
        assert value.shape == (2,)
        assert value.isfinite().all()
        assert torch.equal(value, term(scene))

    def test_it_can_be_learnt_from(self) -> None:
        """Its gradients are finite."""
        value = entry("losses", self.name).value(some_scene())
        assert value.requires_grad
        value.sum().backward()

    def test_a_broken_seed_touches_no_neighbour(self) -> None:
        """Values of seed 1 that are not finite leave seed 0 as it is: bit for bit."""
        term, scene = entry("losses", self.name).value, some_scene()

        def spoilt(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.dim() < 3:
                return value
            value = value.detach().clone()
            value[1] = math.nan
            return value

        values = {item.name: spoilt(getattr(scene, item.name)) for item in dataclasses.fields(scene)}
        assert torch.equal(term(scene)[0].detach(), term(Scene(**values))[0])

    def test_joints_that_are_not_there_are_allowed(self) -> None:
        """It takes a scene in which some joints are missing."""
        scene = some_scene()
        present = torch.ones(2, 8, 17, dtype=torch.bool)
        present[:, ::2, 3] = False
        whole = dataclasses.replace(scene, present=present, joints=scene.joints * present)
        whole = dataclasses.replace(whole, turned_joints=scene.joints * present)
        assert entry("losses", self.name).value(whole).isfinite().all()


class SignalContract:
    """A registered signal: one value per seed, from depths alone."""

    name: str

    def measured(self, depths: Tensor) -> Tensor | None:
        """What it says of depths (S, V, 17)."""
        poses = some_poses(depths.shape[1])
        people = np.arange(len(poses)) % 3
        validation = ValidationSet.build(poses.numpy(), some_poses(len(poses), 1).numpy(), people, 160.0, 10.0)
        found = Measured({}, depths, torch.ones(len(depths), 1), torch.ones(len(depths), 1))
        return further([self.name], validation, found, REPRESENTATIONS["solo"]).get(self.name)

    def depths(self, seeds: int = 2) -> Tensor:
        """Depths at random."""
        found = 0.5 * torch.randn(seeds, 64, 17, generator=torch.Generator().manual_seed(0))
        found[..., ROOT] = 0
        return found

    def test_it_gives_one_finite_value_per_seed_and_repeats(self) -> None:
        """Or nothing at all, if it may be undefined."""
        value = self.measured(self.depths())
        if value is None:
            assert entry("signals", self.name).options.get("may_be_undefined")
            return
        again = self.measured(self.depths())
        assert value.isfinite().all()
        assert again is not None
        assert torch.equal(value, again)

    def test_a_broken_seed_touches_no_neighbour(self) -> None:
        """Depths of seed 1 that are not finite leave seed 0 as it is."""
        broken = self.depths()
        broken[1] = math.nan
        sound, spoilt = self.measured(self.depths()), self.measured(broken)
        assert (sound is None) == (spoilt is None)
        if sound is not None and spoilt is not None:
            assert torch.equal(sound[0], spoilt[0])


def rough_series(seed: int, length: int = 40) -> list[Signals]:
    """A seeded random walk with spikes, missing values and, late, trouble of every kind."""
    rng = random.Random(seed)
    series: list[Signals] = []
    risk = 100.0
    for index in range(length):
        risk *= math.exp(rng.gauss(-0.02 if index < length // 2 else 0.15, 0.05))
        late = index > 3 * length // 4
        values: dict[str, float | None] = {
            "risk/total": None if rng.random() < 0.1 else risk,
            "depth/spread_ratio": 0.01 if late else rng.uniform(0.5, 1.5),
            "discriminator/loss": rng.choice([0.001, 0.9]) if late else rng.uniform(0.15, 0.3),
            "discriminator/accuracy": 0.999 if late else 0.6,
            "mirror/mixed": 0.2 if late else 0.0,
            "agreement/views": None if rng.random() < 0.1 else risk / 100,
            "rigidity/bone_ratio_variance": risk / 1000,
        }
        series.append(values)
    return series


class DetectorContract:
    """A detector: online, with state that dumps and loads, and verdicts that say why and since when."""

    name: str

    def make(self) -> Detector:
        """A fresh one with little patience."""
        made: Detector = entry("detectors", self.name).value(Policy(patience=2, plateau_patience=3), Recipe(), 2000)
        return made

    def verdicts(self, detector: Detector, series: list[Signals], start: int = 0) -> list[Verdict | None]:
        """What it says at each evaluation step."""
        return [detector.update(50 * (start + index + 1), signals) for index, signals in enumerate(series)]

    def test_dumped_and_loaded_goes_on_identically(self) -> None:
        """Wherever the series is cut."""
        series = rough_series(1)
        whole = self.verdicts(self.make(), series)
        for cut in (0, 1, 7, 20, 33, 39):
            before, after = self.make(), self.make()
            head = self.verdicts(before, series[:cut])
            after.load(json.loads(json.dumps(before.dump())))
            assert head + self.verdicts(after, series[cut:], start=cut) == whole

    def test_state_does_not_grow(self) -> None:
        """Memory is that of a few numbers."""
        detector = self.make()
        self.verdicts(detector, rough_series(2, 20))
        short = len(json.dumps(detector.dump()))
        self.verdicts(detector, rough_series(3, 400), start=20)
        assert len(json.dumps(detector.dump())) < short + 400

    def test_every_verdict_has_a_kind_a_reason_and_an_onset_that_is_not_later(self) -> None:
        """And finite values behind it."""
        for seed in range(5):
            for index, verdict in enumerate(self.verdicts(self.make(), rough_series(seed))):
                if verdict is None or verdict.kind == "healthy":
                    continue
                assert verdict.kind in KINDS
                assert verdict.reason
                assert verdict.onset is not None
                assert 0 <= verdict.onset <= 50 * (index + 1)
                assert all(math.isfinite(value) for value in verdict.values.values())

    def test_a_constant_healthy_start_raises_nothing(self) -> None:
        """Three calm steps are no trouble."""
        calm: Signals = {
            "risk/total": 50.0,
            "depth/spread_ratio": 1.0,
            "discriminator/loss": 0.24,
            "discriminator/accuracy": 0.6,
        }
        found = self.verdicts(self.make(), [calm] * 3)
        assert all(verdict is None or verdict.kind == "healthy" for verdict in found)

    def test_unrelated_signals_change_nothing(self) -> None:
        """A signal that it does not know is no news."""
        series = rough_series(4)
        more: list[Signals] = [{**signals, "something/else": 1.0} for signals in series]
        assert self.verdicts(self.make(), series) == self.verdicts(self.make(), more)


class ImporterContract:
    """An importer: the same source gives the same data set; what is not there is said, and nothing is left behind."""

    name: str
    options: Mapping[str, Any] = {}

    def source(self, folder: Path) -> Path:
        """Write a small data set in the importer's layout below ``folder`` and return what is to be imported."""
        raise NotImplementedError

    def test_it_imports_the_same_twice(self, tmp_path: Path) -> None:
        """Digests agree with the file, and counts with the splits."""
        from tips_dist.data.importers import import_data

        source = self.source(tmp_path)
        first, again = (import_data(self.name, source, tmp_path / name, self.options) for name in ("one", "two"))
        poses = read_poses(tmp_path / "one.pose2d.h5")
        assert first["digest"] == again["digest"] == poses.digest
        assert first["splits"] == {split: len(poses.rows(split)) for split in SPLITS}
        assert first["kept"] == first["seen"] - sum(first["dropped"].values())

    def test_what_is_not_there_is_said_and_nothing_is_written(self, tmp_path: Path) -> None:
        """One line, no traceback, no file."""
        from tips_dist.data.importers import import_data

        said = ""
        try:
            import_data(self.name, tmp_path / "nothing", tmp_path / "out", self.options)
        except UserError as error:
            said = str(error)
        assert said, "a source that is not there was imported"
        assert "\n" not in said
        assert not list(tmp_path.glob("out*"))


class SamplerContract:
    """A sampler: draws lie in the space and depend on the study, the history and the trial's number alone."""

    name: str
    space = "training.generator_lr: {log_uniform: [5.0e-5, 1.0e-3]}\n  losses.cycle_2d: {uniform: [1, 10]}"

    def study(self) -> Study:
        """A study of two keys with this sampler."""
        search = f"search: {{trials: 12, sampler: {self.name}}}"
        return parse_study(f"name: contract\nrepresentations: [solo]\n{search}\nspace:\n  {self.space}\n", "contract")

    def draws(self, folder: Path, count: int) -> list[dict[str, Parameter]]:
        """The first trials of a search that is told made-up risks."""
        from tips_dist.runfolder import TrialState, example
        from tips_dist.study.search import TrialSearch

        folder.mkdir()
        search, found = TrialSearch(self.study(), folder), []
        search.recover()
        for _ in range(count):
            trial = search.propose()
            assert trial is not None
            risk = abs(math.log(float(trial.parameters["training.generator_lr"])) + 8)
            done = example.trial(trial.id, [example.outcome(0, risk)]).outcome
            search.tell(trial.now(state=TrialState.FINISHED, outcome=done).write(folder))
            found.append(dict(trial.parameters))
        return found

    def test_it_draws_within_the_space_and_the_same_again(self, tmp_path: Path) -> None:
        """Nothing is hidden: not the time, not the process."""
        first, again = self.draws(tmp_path / "one", 10), self.draws(tmp_path / "two", 10)
        assert first == again
        assert len({json.dumps(point, sort_keys=True) for point in first}) > 1
        for point in first:
            self.study().configuration("solo", point)


class TrackerContract:
    """A tracker: takes a whole run, and the same run again, without a complaint. Set its library up to stay offline."""

    name: str

    def test_it_takes_a_whole_run_and_the_same_again(self, tmp_path: Path) -> None:
        """Curves, verdicts, the summary; what it has already is its own to know."""
        from tips_dist.report.summary import write_summary
        from tips_dist.runfolder import example
        from tips_dist.trackers import Tracking

        run = example.build(tmp_path / "run", trials=1, steps=200, depths=8)
        write_summary(run)
        said: list[str] = []
        for _ in range(2):
            tracking = Tracking(run, [self.name], said.append)
            tracking.update()
            tracking.summary()
            tracking.close()
        assert not said
