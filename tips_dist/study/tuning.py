"""Ray Tune around the search: places trials, restarts them, streams their reports. It holds no state that matters."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ray
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tips_dist import plugins
from tips_dist.config import Resources, Study
from tips_dist.data.store import Poses
from tips_dist.files import StorageError, UserError
from tips_dist.runfolder import Alive, Trial, TrialState, layout, read_trial
from tips_dist.runfolder.lock import timestamp
from tips_dist.runfolder.spent import Spent
from tips_dist.stability import ranking
from tips_dist.study.cluster import at_home, cards_in_words, settled, share
from tips_dist.study.courier import at_hand
from tips_dist.study.desk import RayDesk, open_office
from tips_dist.study.looks import seeds_at
from tips_dist.study.preflight import Needs, barred, lacks_here, needs, no_card, placed_elsewhere
from tips_dist.study.reasons import Failures
from tips_dist.study.records import StudyEvent, patiently
from tips_dist.study.room import Room, inheriting
from tips_dist.study.search import TrialSearch
from tips_dist.study.trainable import SPENT, VERDICT, Train, run_trial
from tips_dist.terminal import notice

FINISHED: str = Searcher.FINISHED
LACKING_SECONDS = 5.0
OnEvent = Callable[[StudyEvent], None]

# Tune would hand the driver's cloud keys to its workers as `env_vars`, which Ray logs. No worker needs them.
_KEYS = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
class_cache.ENV_VARS_TO_PROPAGATE.difference_update(_KEYS)


def run_trials(
    study: Study,
    run: Path,
    poses: Poses,
    search: TrialSearch,
    unfinished: Sequence[Trial],
    progress: OnEvent,
    train: Train | None = None,
) -> None:
    """Run every unfinished trial and every one that the search still proposes. Ray is connected.

    Trials keep away from nodes that lack what they need (study/preflight.py); each is said once.

    Raises:
        StorageError: the run folder can no longer be written; what was saved stays, and the study can be resumed.
        UserError: something is missing on so many nodes that no trial can be placed.
    """
    if not unfinished and not search.remaining():
        return
    resources = settled(study.resources, ray.nodes())
    trials = len(unfinished) + search.remaining()
    if words := cards_in_words(study.resources, resources, ray.nodes(), trials):
        notice(words)
    wanted = None if at_home() else needs(plugins.used(study))
    without = barred(wanted, resources, ray.nodes())
    for why in without.values():
        notice(f"{why}; trials go to other nodes")
    asked = tune.PlacementGroupFactory(
        [share(resources)] * resources.workers,
        strategy="PACK",
        **placed_elsewhere(list(without), resources.workers),
    )
    desk = open_office(run)
    driver = Driver(
        study, run, search, unfinished, progress, strangers=wanted is not None, room=Room(resources), desk=desk
    )
    trainable = tune.with_parameters(
        trial_function,
        data=[ray.put(poses)],  # in a list, so that Ray passes the reference on: one copy per node, none per trial
        run=str(run),
        train=train,
        resources=resources,
        wanted=wanted,
        desk=desk,
    )
    with desk or contextlib.nullcontext(), tempfile.TemporaryDirectory(prefix="tips-dist-ray-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(trainable, asked),
            tune_config=tune.TuneConfig(
                search_alg=driver, scheduler=driver.failures, num_samples=-1, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                name="study",
                stop=Pruning(driver),
                failure_config=tune.FailureConfig(max_failures=resources.max_failures),
                callbacks=[Heartbeats(driver), Quiet()],
                progress_reporter=Silent(),
                verbose=0,
            ),
        )
        with inheriting():
            tuner.fit()
    if driver.halted:
        raise StorageError(driver.halted)
    search.recover()  # what a write that was tried twice left behind


def trial_function(
    config: Mapping[str, str],
    data: list[Any],
    run: str,
    train: Train | None,
    resources: Resources,
    wanted: Needs | None = None,
    desk: RayDesk | None = None,
) -> None:
    """What a Ray worker runs for one trial (see :func:`tips_dist.study.trainable.run_trial`)."""
    why = lacks_here(wanted) if wanted else None  # a node that came later
    why = why or no_card(resources)
    if why is not None:
        time.sleep(LACKING_SECONDS)  # so that it does not take trial after trial
        tune.report({"trial": config["trial"], "lacks": why})
        return
    if train is None:
        from tips_dist.study.monitored import monitored_train

        train = monitored_train
    device = "cuda" if resources.gpus else "cpu"
    with contextlib.ExitStack() as stack:
        if resources.workers > 1:
            from tips_dist.study.spread import spread

            train = functools.partial(cast("Any", train), plan=stack.enter_context(spread(resources, device)))
        try:
            with at_hand(Path(run), [config["trial"]], desk, tune.report) as (folder, tell):
                run_trial(
                    folder,
                    config["trial"],
                    ray.get(data[0]),
                    train,
                    tell,
                    threads=max(1, int(resources.cpus)),
                    device=device,
                    heartbeat=resources.heartbeat_seconds,
                    node=ray.get_runtime_context().get_node_id(),
                )
        except StorageError as error:
            tune.report({"trial": config["trial"], "halt": str(error)})


class Driver(Searcher):  # type: ignore[misc]
    """Hands the search's trials to Tune and takes their results back to it."""

    def __init__(
        self,
        study: Study,
        run: Path,
        search: TrialSearch,
        unfinished: Sequence[Trial],
        progress: OnEvent,
        *,
        strangers: bool = False,
        room: Callable[[], int] | None = None,
        desk: RayDesk | None = None,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.study, self.run, self.search, self.progress = study, run, search, progress
        self.halted: str | None = None  # why no further trial may start
        self.live: dict[str, Trial] = {}  # Tune's trial id -> our trial
        self.pruned: dict[str, tuple[int, str]] = {}  # our trial id -> the step at which it was stopped, and why
        self._again = deque(unfinished)
        self._looked: dict[tuple[str, int], ranking.Seeds] = {}  # what ended trials' seeds were at a step
        self.failures = Failures()
        self._strangers = strangers  # nodes that may lack something: a trial that runs may come back
        self._lacking: Counter[str] = Counter()  # our trial id -> how often it met a node that lacks something
        self._said: set[str] = set()
        self._room = room
        self._desk = desk

    def suggest(self, trial_id: str) -> dict[str, str] | str | None:
        """The next trial: unfinished ones first, under their old ids and parameters."""
        limit = self.study.resources.max_concurrent
        if (limit and len(self.live) >= limit) or (self._room is not None and len(self.live) > self._room()):
            return None  # one waits for a place and no more: who proposes late knows more
        if self.halted or layout.STOP.at(self.run).exists():
            return FINISHED
        try:
            trial = self._again.popleft() if self._again else self.search.propose()
        except UserError as error:
            self.halted = str(error)
            return FINISHED
        if trial is None:
            return None if self._strangers and self.live else FINISHED
        self.live[trial_id] = trial
        self.progress(StudyEvent(trial.id, trial.representation, "queued", steps=trial.steps))
        return {"trial": trial.id}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a report on to whoever watches."""
        if "halt" in result:
            self.halted = result["halt"]
        elif "lacks" in result:
            self._lacks(self.live[trial_id], result["lacks"])
        elif "step" in result and not result.get("done"):
            self.progress(self._event(self.live[trial_id], result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the search how a trial ended, as its record says."""
        trial = self.live.pop(trial_id)
        if self._desk is not None:
            self._desk.release(trial.id)  # so that its record is ours alone
        try:
            seconds = float((result or {}).get("time_total_s", 0.0))
            spent = Spent(**{key.removeprefix(SPENT): n for key, n in (result or {}).items() if key.startswith(SPENT)})
            trial = patiently(lambda: self._settle(trial, error, seconds, spent))
            if trial.state.final:
                patiently(lambda: self.search.tell(trial))
        except UserError as problem:
            self.halted = str(problem)
        self.progress(self._event(trial, result or {}))

    def prune(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the scheduler stops this trial now."""
        trial = self.live.get(trial_id)
        if trial is None or result.get("done") or not result.get("judged") or trial.thaw:
            return False  # a report without a risk decides nothing; one that was thawed is to go to its end
        identity, representation, step = trial.id, trial.representation, result["step"]
        reason = None
        if patiently(lambda: self.search.report(identity, representation, step, result["risk"])):
            reason = f"stopped by the {self.study.search.scheduler} scheduler at step {step}"
        elif self.study.stopping.trials == "test" and ranking.look(
            step, trial.steps, trial.configuration.training.evaluate_every
        ):
            found = patiently(lambda: ranking.surely_worse(identity, seeds_at(self.run, trial, step, self._looked)))
            reason = None if found is None else f"stopped at step {step}: {found.words()}"
        if reason is not None:
            self.pruned[identity] = (step, reason)
        return reason is not None

    def _lacks(self, trial: Trial, why: str) -> None:
        """A node that came later lacks something: the trial is tried elsewhere, or left for a later resume."""
        self._lacking[trial.id] += 1
        if self._lacking[trial.id] <= self.study.resources.max_failures:
            self._again.append(trial)
        else:
            read_trial(self.run, trial.id).now(error=why).write(self.run)
        if why not in self._said:
            self._said.add(why)
            notice(f"{why}; its trials are tried on other nodes, then left to `tips-dist resume {self.run}`")

    def _settle(self, trial: Trial, error: bool, seconds: float, spent: Spent) -> Trial:
        """The trial as its record says, after writing into it what its worker could not."""
        trial = read_trial(self.run, trial.id)
        if trial.state.final:
            return trial
        wall = round(trial.wall_seconds + seconds, 3)
        if trial.id in self.pruned:
            step, reason = self.pruned[trial.id]
            changes: dict[str, Any] = {
                "error": reason,
                "stopped_step": step,
                "stopped_spent": spent,
                "wall_seconds": wall,
                "ended": timestamp(),
            }
            return trial.now(state=TrialState.STOPPED, **changes).write(self.run)
        if error and not self.halted:
            reason = self.failures.told(trial.id)
            return trial.now(state=TrialState.FAILED, error=reason, wall_seconds=wall, ended=timestamp()).write(
                self.run
            )
        return trial  # interrupted: a later resume goes on with it

    def _event(self, trial: Trial, result: dict[str, Any]) -> StudyEvent:
        return StudyEvent(
            trial=trial.id,
            representation=trial.representation,
            state=trial.state if trial.state.final else str(result.get("state", trial.state)),
            step=result.get("step", 0),
            steps=trial.steps,
            risk=result.get("risk") if result.get("judged") else None,
            verdicts={key.removeprefix(VERDICT): n for key, n in result.items() if key.startswith(VERDICT)},
            steps_per_second=result.get("steps_per_second"),
            error=trial.error,
        )

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the run folder has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore (see :meth:`save`)."""

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles its searcher into snapshots that nobody reads


class Pruning(tune.Stopper):  # type: ignore[misc]
    """Lets the scheduler, or a test over seeds (stability/ranking.py), stop a trial.

    Verdicts stop seeds inside the training loop, which computes them.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial ends with this report."""
        return self._driver.prune(trial_id, result)

    def stop_all(self) -> bool:
        """Never: the search ends by having nothing left to propose."""
        return False


class Quiet(TrialProgressCallback):  # type: ignore[misc]
    """Stands in for Tune's own printer of trials, which speaks even when it is told to be silent."""

    def _print(self, msg: str) -> None:
        pass


class Silent(tune.ProgressReporter):  # type: ignore[misc]
    """Stands in for Tune's own table, which in a notebook clears the cell, ours with it, even when it is silent."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        """Never."""
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: str) -> None:
        """Nothing."""


class Heartbeats(tune.Callback):  # type: ignore[misc]
    """Finds workers that hang (no sign of life) and kills them, so that Tune starts their trials again."""

    def __init__(self, driver: Driver, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver, self._clock = driver, clock
        self._limit = driver.study.resources.heartbeat_seconds
        self._seen: dict[str, tuple[int, float]] = {}  # our trial id -> (mtime in ns, when it was new to us)
        self._before: dict[str, int] = {}  # our trial id -> mtime that an earlier worker left behind
        self._next = 0.0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker takes the trial on: what an earlier one left in its folder says nothing."""
        identity = trial.config["trial"]
        self._seen.pop(identity, None)
        self._before[identity] = _changed(layout.ALIVE.at(self._driver.run, identity))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look at every running trial, a few times per limit."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self._limit / 5
        for trial in list(self._driver.live.values()):
            path = layout.ALIVE.at(self._driver.run, trial.id)
            if self.hangs(trial.id, _changed(path), now):
                self._kill(path)

    def hangs(self, identity: str, changed: int, now: float) -> bool:
        """Whether a running worker's file is older than the limit.

        Age is counted by our own monotonic clock, from when we saw the file change: wall clocks jump and differ.

        Args:
            identity: our trial id.
            changed: the file's modification time, in ns; 0 if it is not there (not started, or storage is away).
            now: seconds on our clock.
        """
        if changed in (0, self._before.get(identity, 0)):
            self._seen.pop(identity, None)
            return False
        before = self._seen.get(identity)
        if before is None or before[0] != changed:
            self._seen[identity] = (changed, now)
            return False
        return now - before[1] > self._limit

    def _kill(self, path: Path) -> None:
        try:
            alive = Alive.load(path)
        except UserError:
            return
        self._seen.pop(path.parent.name, None)
        self._driver.failures.hung(path.parent.name, self._limit)
        if alive.node == ray.get_runtime_context().get_node_id():
            _kill_process(alive.pid)
        else:
            where = NodeAffinitySchedulingStrategy(alive.node, soft=False)
            ray.remote(_kill_process).options(num_cpus=0, scheduling_strategy=where).remote(alive.pid)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _kill_process(pid: int) -> None:
    """Kill a Ray worker on this node; a process id that meanwhile means something else is left alone."""
    with contextlib.suppress(OSError):
        if b"ray" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
