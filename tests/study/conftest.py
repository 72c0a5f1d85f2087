"""One local Ray for all tests of the study, and a small study to run on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes import FakeTraining, fake_conclude, fake_poses
from tips_dist.config import Resources, Study
from tips_dist.data.writer import write_poses
from tips_dist.study.cluster import Machine
from tips_dist.study_file import parse_study

LR = {"training.generator_lr": {"log_uniform": [1.0e-5, 1.0e-2]}}


def study_values(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "test",
        "data": {"poses": "fake.pose2d.h5"},
        "representations": ["solo", "torso_legs"],
        "seeds": 2,
        "training": {"steps": 40, "evaluate_every": 5, "checkpoint_every": 2, "batch_size": 256},  # one trial a pack
        "search": {"trials": 2, "sampler": "random"},
        "space": LR,
    }
    return {**values, **changes}


def study_text(**changes: Any) -> str:
    return str(yaml.safe_dump(study_values(**changes)))


def make_study(**changes: Any) -> Study:
    return parse_study(study_text(**changes), "test.yaml")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    from tips_dist.study.cluster import connected

    with connected(Resources(), None):
        yield


def launch_in(folder: Path, train: FakeTraining | None = None, progress: Any = None, **changes: Any) -> Path:
    """Start a study with a fake training loop in a folder; returns the run folder."""
    from tips_dist.study.run import start

    text = study_text(**changes)
    path = folder / "test.yaml"
    path.write_text(text)
    if not (folder / "fake.pose2d.h5").exists():
        write_poses(folder / "fake.pose2d.h5", fake_poses())
    return start(
        parse_study(text, str(path)),
        study_path=path,
        text=text,
        runs=folder / "runs",
        progress=progress,
        train=train or FakeTraining(),
        conclude=fake_conclude,
    )


@pytest.fixture
def launch(tmp_path: Path, ray_session: None) -> Callable[..., Path]:
    """Start a study on Ray in a fresh folder."""
    return lambda *arguments, **changes: launch_in(tmp_path, *arguments, **changes)


@pytest.fixture
def inline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Start a study in a fresh folder whose trials run in this process: no Ray, milliseconds."""
    use_inline(monkeypatch)
    return lambda *arguments, **changes: launch_in(tmp_path, *arguments, **changes)


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the small study when nothing disturbs it."""
    with pytest.MonkeyPatch.context() as patch:
        use_inline(patch)
        return launch_in(tmp_path_factory.mktemp("calm"))


def use_inline(patch: pytest.MonkeyPatch) -> None:
    """Run trials in this process instead of on Ray."""
    patch.setattr("tips_dist.study.tuning.run_trials", run_trials_inline)
    patch.setattr(
        "tips_dist.study.run.connected", lambda *arguments: contextlib.nullcontext(Machine("cores", 2.0, 1.0))
    )


def run_trials_inline(
    study: Study, run: Path, poses: Any, search: Any, unfinished: Any, progress: Any, train: Any
) -> None:
    """What :func:`tips_dist.study.tuning.run_trials` does, one trial after another in this process."""
    from tips_dist.runfolder import read_trial
    from tips_dist.study.trainable import run_trial

    waiting = list(unfinished)
    while trial := waiting.pop(0) if waiting else search.propose():
        run_trial(run, trial.id, poses, train, lambda report: None)
        search.tell(read_trial(run, trial.id))
