"""A study as a job on a Ray cluster: packed, submitted once, followed, stopped; through Ray's Job Submission API."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tips_dist
from tips_dist.addresses import check_address, is_address
from tips_dist.config import Study
from tips_dist.files import StorageError, UserError
from tips_dist.sections import digest
from tips_dist.study import space
from tips_dist.study.cluster import prepare_environment
from tips_dist.study.packing import FORWARDED, PLUGINS, Order, entrypoint, pack, submission_id
from tips_dist.study.place import GRACE, grace_seconds
from tips_dist.study.records import StudyEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ray.job_submission import JobDetails, JobSubmissionClient

MARK = "tips-dist"  # the metadata key by which our jobs are known among others
EVENT = "tips-dist event "
SAVE_SECONDS = 15.0  # that a stopped job's trials get at least to save their state
END_SECONDS = 5.0  # and its driver to end
AGENT_SECONDS = 60.0  # that a cluster gets to become ready for jobs
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
READS = "tips-dist-reads"  # the metadata key of an errand: the job it was sent for
SILENCE_SECONDS = 60.0  # after which a connection that should bring something counts as broken

_TALKERS = (  # of temporary paths and web sockets
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)

T = TypeVar("T")


@dataclass(frozen=True)
class Submission:
    """A job that works on a study, or has."""

    id: str
    status: str
    fresh: bool  # started by this very call


@dataclass(frozen=True)
class JobAnswer:
    """Where a job stands; times are local."""

    id: str
    study: str | None
    digest: str | None  # of the study
    runs: str | None  # folder of run folders on the cluster
    trials: int
    status: str
    message: str | None
    started: str | None
    ended: str | None
    exit_code: int | None


class Jobs:
    """The jobs of one cluster. Every method raises ``UserError`` where the cluster is away or refuses us."""

    def __init__(self, address: str) -> None:
        """Connect to the dashboard at ``address``, ``http://HOST:8265``."""
        if not is_address(address) or check_address(address, "--address").scheme not in ("http", "https"):
            raise UserError(f"--address {address}: expected the URL of the cluster's dashboard, http://HOST:8265")
        self.address = address
        prepare_environment(address)
        from ray.exceptions import RayError
        from ray.job_submission import JobSubmissionClient

        for name in _TALKERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._errors: tuple[type[Exception], ...] = (RayError, OSError, RuntimeError, ValueError)
        self._client: JobSubmissionClient = self._asked(lambda: JobSubmissionClient(address))

    def submit(self, study: Study, study_file: Path, order: Order) -> Submission:
        """Submit a study, unless a job for it runs or has succeeded.

        Raises:
            UserError: a variable to forward is not set, the pose file is missing or too large to pack.
        """
        variables = _variables(order.forward)
        if order.storage is not None:
            check_address(order.storage, "--storage")
        base = submission_id(study, study_file, order)
        attempt = 1
        while True:
            identity = base if attempt == 1 else f"{base}-{attempt}"
            known = self._find(identity)
            if known is None:
                break
            if known.status not in ENDED or (known.status == "SUCCEEDED" and not order.again):
                return Submission(identity, str(known.status.value), fresh=False)
            attempt += 1
        with tempfile.TemporaryDirectory(prefix="tips-dist-job-") as name:
            folder = Path(name)
            inside = pack(study, study_file, folder, order.named(study_file))
            for plugin in order.plugins:
                (folder / PLUGINS).mkdir(exist_ok=True)
                shutil.copyfile(plugin, folder / PLUGINS / plugin.name)
            if variables:
                forwarded = folder / FORWARDED
                forwarded.touch(mode=0o600)
                forwarded.write_text(json.dumps({"variables": variables, "nonce": secrets.token_hex(16)}))
            try:
                self._sent(self._request(study, identity, folder, inside, order))
            except UserError:
                known = self._find(identity)  # somebody submitted the same study in this second
                if known is None:
                    raise
                return Submission(identity, str(known.status.value), fresh=False)
        return Submission(identity, "PENDING", fresh=True)

    def _sent(self, request: Callable[[], str]) -> None:
        """Submit; a head that has just started has no agent for a while, so that is waited for."""
        deadline = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                request()
                return
            except self._errors as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise self._refused(error) from None
            time.sleep(1.0)

    def _request(self, study: Study, identity: str, folder: Path, inside: Path, order: Order) -> Callable[[], str]:
        grace = max(grace_seconds(), SAVE_SECONDS)
        environment: dict[str, object] = {
            "working_dir": str(folder),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": f"{grace + END_SECONDS:.0f}", GRACE: f"{grace:g}"},
        }
        if order.package:
            environment["py_modules"] = [str(Path(tips_dist.__file__).parent)]
        trials = space.budgets(study)
        return functools.partial(
            self._client.submit_job,
            entrypoint=entrypoint(inside, order, self.address),
            submission_id=identity,
            runtime_env=environment,
            entrypoint_num_cpus=order.cpus or None,
            entrypoint_resources=dict(order.resources) or None,
            metadata={MARK: study.name, "digest": digest(study), "trials": str(trials), "runs": order.runs},
        )

    def list(self) -> list[JobAnswer]:
        """Our jobs, the newest first: see :func:`described`."""
        jobs = [job for job in self._asked(self._client.list_jobs) if MARK in (job.metadata or {})]
        return [described(job) for job in sorted(jobs, key=lambda job: job.start_time or 0, reverse=True)]

    def status(self, identity: str) -> JobAnswer:
        """One job."""
        return described(self._known(identity))

    def logs(self, identity: str) -> str:
        """Everything a job has printed so far."""
        self._known(identity)
        return str(self._asked(lambda: self._client.get_job_logs(identity)))

    def follow(self, identity: str) -> Iterator[str]:
        """Yield a job's lines from the first on, as they come, until it has ended.

        A connection that breaks is made again; lines already yielded are not repeated.
        """
        seen = 0
        while True:
            ended = self._known(identity).status in ENDED
            for number, line in enumerate(self._tail(identity), start=1):
                if number > seen:
                    seen = number
                    yield line
            if ended:
                return
            time.sleep(0.5)

    def _tail(self, identity: str) -> Iterator[str]:
        """Lines from the first on, until the job ends or the connection breaks."""
        stream = self._client.tail_job_logs(identity)
        loop, rest = asyncio.new_event_loop(), ""
        try:
            while True:
                try:
                    text = loop.run_until_complete(anext(stream))
                except StopAsyncIteration:
                    break
                except self._errors:
                    break
                *lines, rest = (rest + text).split("\n")
                yield from lines
        finally:
            with contextlib.suppress(Exception):
                loop.run_until_complete(stream.aclose())
            loop.close()
        if rest and self._known(identity).status in ENDED:  # else the connection broke within a line
            yield rest

    def wait(self, identity: str, pause: float = 1.0) -> int:
        """Wait for a job's end: the exit code of its ``tips-dist run`` (130 if it was stopped)."""
        while True:
            job = self._known(identity)
            if job.status in ENDED:
                code = job.driver_exit_code
                return {"SUCCEEDED": 0, "STOPPED": 130}.get(str(job.status.value), code if code and code > 0 else 1)
            time.sleep(pause)

    def stop(self, identity: str) -> bool:
        """Stop a job; its trials save their state. False if it had ended already."""
        self._known(identity)
        return bool(self._asked(lambda: self._client.stop_job(identity)))

    def output(self, identity: str, *, follow: bool = False) -> Iterator[bytes]:
        """Yield a job's output as bytes, from the first on; ``follow`` goes on with what comes later, without an end.

        Raises:
            UserError: it has none, or its node has gone.
            StorageError: the connection broke, or nothing came for ``SILENCE_SECONDS``.
        """
        import requests
        from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled

        address = f"{self.address.rstrip('/')}/api/v0/logs/{'stream' if follow else 'file'}"
        asked: dict[str, str | float] = {"node_id": self._begun(identity), "filename": f"job-driver-{identity}.log"}
        asked |= {"lines": -1, "interval": 0.1} if follow else {"lines": -1}
        try:
            with requests.get(
                address,
                params=asked,
                headers=get_auth_headers_if_auth_enabled({}),
                stream=True,
                timeout=(10.0, SILENCE_SECONDS),
            ) as answer:
                if answer.status_code != 200:
                    text = " ".join(answer.text.split())
                    raise UserError(f"{identity}: its output cannot be read; has its node gone? ({text[:200]})")
                yield from answer.iter_content(None)
        except requests.RequestException as error:
            raise StorageError(f"--address {self.address}: the connection broke ({error!r:.200})") from None

    def node(self, identity: str) -> str | None:
        """Ray's id of the node that a job's driver runs or ran on; None before it started."""
        found = self._known(identity).driver_node_id
        return None if found is None else str(found)

    def _begun(self, identity: str) -> str:
        """The node of a job, which must have started."""
        node = self.node(identity)
        if node is None:
            raise UserError(f"{identity}: has not started yet; 'tips-dist jobs status {identity}' says how it stands")
        return node

    def errand(self, identity: str, folder: Path, line: str) -> str:
        """Run a line of the shell, beside what lies in ``folder``, on the node of a job's driver; the errand's id.

        Raises:
            UserError: the job has not started yet, or the cluster refuses.
        """
        node = self._begun(identity)
        errand = f"reads-{identity}-{secrets.token_hex(4)}"
        self._sent(
            functools.partial(
                self._client.submit_job,
                entrypoint=line,
                submission_id=errand,
                runtime_env={"working_dir": str(folder)},
                entrypoint_label_selector={"ray.io/node-id": node},
                metadata={READS: identity},
            )
        )
        return errand

    def forget(self, errand: str, seconds: float = 10.0) -> None:
        """Stop an errand and take it off the cluster's list of jobs; whatever goes wrong there, it ends by itself."""
        with contextlib.suppress(*self._errors, UserError):
            self._client.stop_job(errand)
            deadline = time.monotonic() + seconds
            while self._known(errand).status not in ENDED and time.monotonic() < deadline:
                time.sleep(0.1)
            self._client.delete_job(errand)

    def _known(self, identity: str) -> JobDetails:
        job = self._find(identity)
        if job is None:
            raise UserError(f"{identity}: no such job on {self.address}; 'tips-dist jobs list' shows them")
        return job

    def _find(self, identity: str) -> JobDetails | None:
        try:
            return self._client.get_job_info(identity)
        except self._errors as error:
            if "404" in str(error):
                return None
            raise self._refused(error) from None

    def _asked(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except self._errors as error:
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> UserError:
        text = " ".join(str(error).split())
        if type(error).__name__ == "AuthenticationError":
            what = "takes another token than ours" if "nvalid" in text else "asks for a token"
            return UserError(
                f"--address {self.address}: the cluster {what}; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (a "
                "file) or RAY_AUTH_TOKEN to the cluster's"
            )
        return UserError(f"--address {self.address}: no answer as a Ray cluster's dashboard would give ({text[:200]})")


def described(job: JobDetails) -> JobAnswer:
    """What we show of a job: nothing of its environment."""
    metadata = job.metadata or {}
    return JobAnswer(
        id=job.submission_id,
        study=metadata.get(MARK),
        digest=metadata.get("digest"),
        runs=metadata.get("runs"),
        trials=int(metadata.get("trials", 0)),
        status=str(job.status.value),
        message=job.message,
        started=_time(job.start_time),
        ended=_time(job.end_time),
        exit_code=job.driver_exit_code,
    )


class Announcer:
    """Prints the events of a study so that :func:`heard` reads them at the other end.

    Changes of state at once; mere progress of a trial every few seconds, as a log is kept and sent whole.
    """

    def __init__(self, seconds: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._last: dict[str, tuple[str, float]] = {}  # trial -> (state, when it was told)

    def __call__(self, event: StudyEvent) -> None:
        """Print one event, perhaps."""
        state, told = self._last.get(event.trial, ("", 0.0))
        now = self._clock()
        if event.state == state and now - told < self._seconds:
            return
        self._last[event.trial] = (event.state, now)
        print(EVENT + json.dumps({**dataclasses.asdict(event), "verdicts": dict(event.verdicts)}), flush=True)


def heard(line: str) -> StudyEvent | None:
    """The event of a line of a job's log, or None for any other line."""
    if not line.startswith(EVENT):
        return None
    try:
        return StudyEvent(**json.loads(line.removeprefix(EVENT)))
    except (ValueError, TypeError):
        return None


def _variables(names: Sequence[str]) -> dict[str, str]:
    for name in names:
        if "=" in name:
            raise UserError(f"--env {name.partition('=')[0]}=…: name the variable only; its value is taken from here")
        if name not in os.environ:
            raise UserError(f"--env {name}: no such environment variable is set here")
    return {name: os.environ[name] for name in names}


def _time(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(milliseconds / 1000))
