"""Ray between couriers and the office: calls for what is small, objects for what is large, a few of them at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tips_dist.files import UserError, write_text
from tips_dist.runfolder import layout
from tips_dist.study.cluster import at_home
from tips_dist.study.office import Office, Parcel, Superseded

OBJECT_BYTES = 100_000  # from which on parcels go as an object; Ray puts larger arguments into its store anyway
AT_ONCE = 8  # objects that the office fetches at a time, from all workers together
LISTENING_SECONDS = 30.0  # that the office keeps a question whether the study is to stop
DRIVER_SECONDS = 1.0  # between two looks whether the driver is still there
ANSWER_SECONDS = 600.0  # after which the office is given up; it waits for its own disk for a tenth of that


class Clerk:
    """The office as a Ray actor: on the driver's node, gone with the driver.

    Ray ends it only when it has learnt of the driver's end, and then lets it finish what it does, so it looks itself.
    """

    def __init__(self, run: str, mark: str) -> None:
        self._office = Office(Path(run), mark)
        threading.Thread(target=self._end_with_driver, name="driver", daemon=True).start()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._stop = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    async def call(self, method: str, *arguments: Any) -> Any:
        """Do what a :class:`Office` does, in a thread: a disk may be slow."""
        return await asyncio.to_thread(getattr(self._office, method), *arguments)

    async def take(self, session: str, parcels: Sequence[Parcel] | ray.ObjectRef) -> None:
        """Take parcels; those in an object stay where they are until there is room for them."""
        if isinstance(parcels, list) and len(parcels) == 1 and isinstance(parcels[0], ray.ObjectRef):
            async with self._room:
                await self.call("take", session, await parcels[0])
        else:
            await self.call("take", session, parcels)

    async def stopped(self) -> bool:
        """Whether the study is to stop: at once if it is, else when that is known or some time has passed."""
        self._watch = self._watch or asyncio.create_task(self._look())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), LISTENING_SECONDS)
        return self._stop.is_set()

    def _end_with_driver(self) -> None:
        while not self._office.over():
            time.sleep(DRIVER_SECONDS)
        os._exit(0)

    async def _look(self) -> None:
        while not await self.call("stopped"):
            await asyncio.sleep(0.5)
        self._stop.set()


class RayDesk:
    """The office as a courier reaches it, from any node (:class:`.courier.Desk`); the driver closes it in the end."""

    def __init__(self, clerk: Any, run: Path, mark: str) -> None:
        self.run, self.mark, self._clerk = run, mark, clerk
        self._listening: ray.ObjectRef | None = None

    def __enter__(self) -> RayDesk:
        return self

    def __exit__(self, *_: object) -> None:
        ray.kill(self._clerk)
        layout.DRIVER.at(self.run).unlink(missing_ok=True)

    def open(self, session: str, trials: Sequence[str], direct: bool) -> dict[str, int]:
        """See :meth:`.Office.open`."""
        found: dict[str, int] = self._answer(self._clerk.call.remote("open", session, list(trials), direct))
        return found

    def read(self, session: str, name: str, offset: int) -> bytes:
        """See :meth:`.Office.read`."""
        content: bytes = self._answer(self._clerk.call.remote("read", session, name, offset))
        return content

    def take(self, session: str, parcels: Sequence[Parcel]) -> None:
        """See :meth:`.Office.take`."""
        large = sum(len(parcel.content or b"") for parcel in parcels) > OBJECT_BYTES
        self._answer(self._clerk.take.remote(session, [ray.put(list(parcels))] if large else list(parcels)))

    def close(self, session: str) -> None:
        """See :meth:`.Office.close`."""
        self._answer(self._clerk.call.remote("close", session))

    def release(self, trial: str) -> None:
        """See :meth:`.Office.release`; an office that is gone holds nothing."""
        with contextlib.suppress(Superseded, UserError):
            self._answer(self._clerk.call.remote("release", trial))

    def stopped(self) -> bool:
        """Whether the study is to stop, as far as is known: one question is always under way."""
        self._listening = self._listening or self._clerk.stopped.remote()
        if not ray.wait([self._listening], timeout=0)[0]:
            return False
        answer, self._listening = self._listening, None
        return bool(self._answer(answer))

    def __reduce__(self) -> tuple[Any, ...]:
        return RayDesk, (self._clerk, self.run, self.mark)

    def _answer(self, reference: ray.ObjectRef) -> Any:
        try:
            return ray.get(reference, timeout=ANSWER_SECONDS)
        except RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, UserError | Superseded):
                raise cause from None
            raise Superseded(f"the office of {self.run} is gone ({type(error).__name__})") from error


def open_office(run: Path) -> RayDesk | None:
    """Start an office on this node, for a run folder whose lock we hold; None where all of Ray is this machine."""
    if at_home():
        layout.DRIVER.at(run).unlink(missing_ok=True)  # of a driver that was killed
        return None
    mark = secrets.token_hex(16)
    write_text(layout.DRIVER.at(run), mark)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": here, "max_concurrency": 10_000, "max_restarts": -1}
    return RayDesk(ray.remote(Clerk).options(**options).remote(str(run), mark), run, mark)
