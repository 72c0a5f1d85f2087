"""A signal at any phase leaves nothing half and says how to go on; real signals, sent from within the phase."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import FakeTraining
from tests.study.conftest import launch_in, use_inline
from tips_dist import cli
from tips_dist.data.writer import write_truth
from tips_dist.files import UserError
from tips_dist.mirror import Mirror
from tips_dist.runfolder import RunFolder, TrialState, read_trials
from tips_dist.study import run as studies
from tips_dist.study.status import status

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
FIXTURES = Path(__file__).parent / "runfolder" / "fixtures"


@pytest.fixture(autouse=True)
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:  # whoever starts the tests in the background has some of them ignored, as nohup does
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURES, tmp_path / "fixtures")
    return tmp_path / "fixtures" / "finished"


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def hit(number: int, after: int = 0) -> Callable[..., Any]:
    """A function that sends us a signal at its call after so many."""
    left = [after]

    def strike(*_: Any, **__: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), number)

    return strike


def struck(monkeypatch: pytest.MonkeyPatch, target: str, number: int, after: int = 0) -> None:
    """Let a function of ours receive a signal before it does its work."""
    module, name = target.rsplit(".", 1)
    owner = __import__(module, fromlist=[name])
    strike, real = hit(number, after), getattr(owner, name)

    def both(*arguments: Any, **options: Any) -> Any:
        strike()
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, both)


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[Any, str]:
    monkeypatch.setattr(sys, "argv", ["tips-dist", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, capsys.readouterr().err


PHASES = {
    "selection": (["select", "RUN"], "os.fsync"),
    "distillation": (["distill", "RUN"], "os.fsync"),
    "distillation, training": (["distill", "RUN"], "tips_dist.distillation.initialise"),
    "evaluation": (["evaluate", "RUN", "--truth", "TRUTH"], "os.fsync"),
    "evaluation, lifting": (["evaluate", "RUN", "--truth", "TRUTH"], "tips_dist.evaluation.evaluate.load_weights"),
    "fetch": (["fetch", "URL", "-o", "COPY"], "os.fsync"),
    "import": (["data", "import", "arrays", "POSES", "-o", "OUT"], "os.fsync"),
    "generation": (["data", "generate", "-o", "OUT", "--poses", "200"], "os.fsync"),
    "summary": (["summary", "RUN"], "os.fsync"),
}


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("phase", PHASES)
def test_a_command_leaves_nothing_half_and_says_how_to_go_on(
    phase: str,
    number: int,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    poses = RunFolder(run).poses()
    truth, given = tmp_path / "t.truth3d.h5", tmp_path / "given.npz"
    write_truth(truth, np.random.default_rng(0).normal(0, 300, (len(poses), 17, 3)).astype(np.float32), poses.digest)
    np.savez(given, poses=poses.poses[:50])
    Mirror(run, f"file://{tmp_path}/backup").round(ended=True)
    places = {
        "RUN": str(run),
        "TRUTH": str(truth),
        "POSES": str(given),
        "URL": f"file://{tmp_path}/backup/{run.name}",
        "COPY": str(tmp_path / "copy"),
        "OUT": str(tmp_path / "out" / "new"),
    }
    words, target = PHASES[phase]
    words = [places.get(word, word) for word in words]
    before = content(tmp_path)
    struck(monkeypatch, target, number)
    code, said = command(monkeypatch, capsys, *words)
    assert code == 130, said
    assert f"tips-dist {words[0]}" in said
    assert "Traceback" not in said
    after = content(tmp_path)
    new = {name for name in after if after[name] != before.get(name)} - {"fixtures/finished/lock"}
    assert all(name.startswith("copy/") for name in new), new  # a fetch goes on where it was
    assert not [name for name in after if name.endswith(".tmp")]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("phase", ["start", "trials", "conclusion", "extension"])
def test_a_study_is_interrupted_at_any_phase_and_goes_on(
    phase: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_inline(monkeypatch)
    cli._listen()
    strike = hit(number)
    if phase == "start":
        struck(monkeypatch, "tips_dist.study.run.check_unchanged", number)
    if phase == "conclusion":
        monkeypatch.setattr("tests.study.conftest.fake_conclude", strike)

    if phase == "trials":
        struck(monkeypatch, "tests.fakes.fake_risk", number, after=3)
    if phase == "extension":
        begun = launch_in(tmp_path, FakeTraining())
        struck(monkeypatch, "tips_dist.study.run.extend", number)
    with pytest.raises(studies.StudyInterrupted) as caught:  # noqa: PT012 (two ways to begin)
        if phase == "extension":
            studies.resume(begun, trials=1, train=FakeTraining(), conclude=lambda *_: None)
        else:
            launch_in(tmp_path, FakeTraining())
    run = caught.value.run
    assert not list(run.parent.rglob("*.tmp"))
    assert all(trial.state is not TrialState.RUNNING for trial in read_trials(run))
    assert "running" not in status(run).trials
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.MonkeyPatch.context() as patch:
        use_inline(patch)
        studies.resume(run, train=FakeTraining(), conclude=lambda *_: None)
    assert status(run).done


@pytest.mark.parametrize(("state", "unsaved"), [(TrialState.PENDING, ()), (TrialState.RUNNING, ("solo-000",))])
def test_the_state_is_called_saved_where_every_worker_said_so(
    state: TrialState, unsaved: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_inline(monkeypatch)
    run = launch_in(tmp_path, FakeTraining())
    trial = read_trials(run)[0].now(state=TrialState.RUNNING).write(run)
    grace = 0.2 if unsaved else 600.0
    with pytest.raises(studies.StudyInterrupted) as caught, studies._interruptible(run, grace):  # noqa: PT012 (the body)
        os.kill(os.getpid(), signal.SIGINT)
        trial.now(state=state).write(run)
        if state is TrialState.RUNNING:
            time.sleep(60)  # longer than it is granted
    assert caught.value.unsaved == unsaved
    assert ("the state is saved" in caught.value.words()) is not bool(unsaved)


def test_a_wrong_grace_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_inline(monkeypatch)
    monkeypatch.setenv("TIPS_DIST_GRACE", "long")
    with pytest.raises(UserError, match="TIPS_DIST_GRACE=long: expected a number"):
        launch_in(tmp_path, FakeTraining())
    assert not (tmp_path / "runs").exists()


def test_a_killed_driver_leaves_no_trial_running_for_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_inline(monkeypatch)
    run = launch_in(tmp_path, FakeTraining())
    trial = read_trials(run)[0].now(state=TrialState.RUNNING).write(run)
    found = status(run)
    assert found.trials["interrupted"] == 1
    assert "running" not in found.trials
    assert found.running[0].trial == trial.id
    assert found.running[0].stuck is not None
    assert "resume" in found.running[0].stuck
