"""Ray Tune around the search: places trials, restarts them, streams their reports. It holds no state that matters."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ray
from ray import tune
from ray.tune.execution import class_cache, tune_controller
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.search import Searcher

from tips_dist import plugins
from tips_dist.config import Resources, Study
from tips_dist.data.store import Poses
from tips_dist.files import StorageError, UserError
from tips_dist.runfolder import Trial, TrialState, layout, read_trial
from tips_dist.runfolder.lock import timestamp
from tips_dist.runfolder.spent import Spent
from tips_dist.stability import ranking
from tips_dist.study.cluster import at_home, cards_in_words, settled, share
from tips_dist.study.courier import at_hand
from tips_dist.study.desk import RayDesk, open_office
from tips_dist.study.heartbeats import Heartbeats
from tips_dist.study.looks import seeds_at
from tips_dist.study.packs import Packs
from tips_dist.study.preflight import Needs, barred, lacks_here, needs_of, no_card, placed_elsewhere
from tips_dist.study.reasons import Actors, Failures
from tips_dist.study.records import StudyEvent, patiently
from tips_dist.study.room import Room, inheriting
from tips_dist.study.search import TrialSearch
from tips_dist.study.trainable import SPENT, VERDICT, Train, one_by_one, run_pack
from tips_dist.terminal import notice

FINISHED: str = Searcher.FINISHED
LACKING_SECONDS = 5.0
OnEvent = Callable[[StudyEvent], None]

# Tune would hand the driver's cloud keys to its workers as `env_vars`, which Ray logs. No worker needs them.
_KEYS = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
class_cache.ENV_VARS_TO_PROPAGATE.difference_update(_KEYS)
tune_controller.RayActorManager = Actors


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
    wanted = None if at_home() else needs_of(plugins.used(study))
    without = barred(wanted, resources, ray.nodes())
    for why in without.values():
        notice(f"{why}; trials go to other nodes")
    asked = tune.PlacementGroupFactory(
        [share(resources)] * resources.workers,
        strategy="PACK",
        **placed_elsewhere(list(without), resources.workers),
    )
    room = Room(resources)
    packs = Packs(study, search, resources, room)
    if words := packs.words():
        notice(words)
    desk = open_office(run)
    strangers = wanted is not None
    driver = Driver(study, run, search, unfinished, progress, strangers=strangers, room=room, packs=packs, desk=desk)
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
    config: Mapping[str, list[str]],
    data: list[Any],
    run: str,
    train: Train | None,
    resources: Resources,
    wanted: Needs | None = None,
    desk: RayDesk | None = None,
) -> None:
    """What a Ray worker runs for a pack of trials (see :func:`tips_dist.study.trainable.run_pack`)."""
    why = lacks_here(wanted) if wanted else None  # a node that came later
    why = why or no_card(resources)
    if why is not None:
        time.sleep(LACKING_SECONDS)  # so that it does not take trial after trial
        tune.report({"lacks": why})
        return
    from tips_dist.study.monitored import monitored_together, monitored_train

    trials = config["trials"]
    device = "cuda" if resources.gpus else "cpu"
    with contextlib.ExitStack() as stack:
        if resources.workers > 1:
            from tips_dist.study.spread import spread

            train = functools.partial(
                cast("Any", train or monitored_train), plan=stack.enter_context(spread(resources, device))
            )
        together = monitored_together if train is None and len(trials) > 1 else one_by_one(train or monitored_train)
        try:
            with at_hand(Path(run), trials, desk, tune.report) as (folder, tell):
                run_pack(
                    folder,
                    trials,
                    ray.get(data[0]),
                    together,
                    tell,
                    threads=max(1, int(resources.cpus)),
                    device=device,
                    heartbeat=resources.heartbeat_seconds,
                    node=ray.get_runtime_context().get_node_id(),
                )
        except StorageError as error:
            tune.report({"halt": str(error)})


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
        packs: Packs | None = None,
        desk: RayDesk | None = None,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.study, self.run, self.search, self.progress = study, run, search, progress
        self.halted: str | None = None  # why no further trial may start
        self.live: dict[str, list[Trial]] = {}  # Tune's trial id -> our trials, a pack
        self.pruned: dict[str, tuple[int, str]] = {}  # our trial id -> the step at which it was stopped, and why
        self._again = deque(unfinished)
        self._looked: dict[tuple[str, int], ranking.Seeds] = {}  # what ended trials' seeds were at a step
        self.failures = Failures()
        self._strangers = strangers  # nodes that may lack something: a trial that runs may come back
        self._lacking: Counter[str] = Counter()  # our trial id -> how often it met a node that lacks something
        self._said: set[str] = set()
        self._room = room
        self._packs = packs or Packs(study, search, study.resources)
        self._last: dict[str, dict[str, Any]] = {}  # our trial id -> its last report
        self._ended: set[str] = set()  # trials of packs that still train, whose worker is done with them
        self._desk = desk
        self._taken: dict[str, list[str]] = {}  # Tune's trial id -> all trials that its worker took on

    def training(self) -> Iterable[Trial]:
        """The trials that workers work on."""
        return (trial for pack in self.live.values() for trial in pack if trial.id not in self._ended)

    def suggest(self, trial_id: str) -> dict[str, list[str]] | str | None:
        """The next pack of trials: unfinished ones first, under their old ids and parameters."""
        limit, live = self.study.resources.max_concurrent, sum(1 for _ in self.training())
        if (limit and live >= limit) or (self._room is not None and len(self.live) > self._room()):
            return None  # one waits for a place and no more: who proposes late knows more
        if self.halted or layout.STOP.at(self.run).exists():
            return FINISHED
        try:
            first = self._again.popleft() if self._again else self.search.propose()
            others = sum(self._to_do(trial) for trial in self.training())
            pack = [] if first is None else self._packs.fill(first, self._again, others, live)
        except UserError as error:
            self.halted = str(error)
            return FINISHED
        if not pack:
            may_come_back = self.live if self._strangers else [pack for pack in self.live.values() if len(pack) > 1]
            return None if may_come_back else FINISHED
        self.live[trial_id] = pack
        self._taken[trial_id] = [trial.id for trial in pack]
        for trial in pack:
            self.progress(StudyEvent(trial.id, trial.representation, "queued", steps=trial.steps))
        return {"trials": self._taken[trial_id]}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a report on to whoever watches; learn how one trial of a pack ended as soon as it has."""
        if "halt" in result:
            self.halted = result["halt"]
        elif "lacks" in result:
            for trial in self.live[trial_id]:
                self._lacks(trial, result["lacks"])
        elif result.get("done") or (found := self._of(trial_id, result)) is None:
            return
        elif "ended" in result:
            self._ended.add(found.id)
            with contextlib.suppress(UserError):  # it is asked again when the pack has ended
                if (trial := read_trial(self.run, found.id)).state.final:
                    self.live[trial_id].remove(found)
                    self._tell(trial)
        elif "step" in result:
            self._last[found.id] = result
            self.progress(self._event(found, result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the search how the trials of a pack ended, as their records say."""
        if result and "step" in result and (found := self._of(trial_id, result)) is not None:
            self._last[found.id] = result
        pack = self.live.pop(trial_id)
        for identity in self._taken.pop(trial_id):
            if self._desk is not None:
                self._desk.release(identity)  # so that its record is ours alone
        seconds = float((result or {}).get("time_total_s", 0.0))
        for trial in pack:
            self._ended.discard(trial.id)
            failed = error and len(pack) == 1
            try:
                trial = patiently(functools.partial(self._settle, trial, failed, seconds))
            except UserError as problem:
                self.halted = str(problem)
            if error and not failed and not trial.state.final:  # whose fault it was is seen when each is alone
                self._packs.separate(trial)
                self._again.append(trial)
            self._tell(trial)

    def _of(self, trial_id: str, result: dict[str, Any]) -> Trial | None:
        """The trial of a pack that a report is about; None where it has ended."""
        named = result.get("trial")
        return next((trial for trial in self.live.get(trial_id, ()) if named in (None, trial.id)), None)

    def _to_do(self, trial: Trial) -> float:
        """The share of its steps that a trial has still to take, as far as is known."""
        return 1 - float(self._last.get(trial.id, {}).get("step", 0)) / trial.steps

    def _tell(self, trial: Trial) -> None:
        """Tell the search of a trial that has ended, and whoever watches of any."""
        try:
            if trial.state.final:
                patiently(lambda: self.search.tell(trial))
        except UserError as problem:
            self.halted = str(problem)
        self.progress(self._event(trial, self._last.get(trial.id, {})))

    def prune(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the scheduler stops this trial now."""
        trial = self._of(trial_id, result)
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

    def _settle(self, trial: Trial, error: bool, seconds: float) -> Trial:
        """The trial as its record says, after writing into it what its worker could not."""
        told = self._last.get(trial.id, {}).items()
        spent = Spent(**{key.removeprefix(SPENT): n for key, n in told if key.startswith(SPENT)})
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
