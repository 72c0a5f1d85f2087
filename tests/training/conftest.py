"""Workers of a trial that need not start: a process that has imported everything is forked instead."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess

import pytest

from tips_dist.training import execution
from tips_dist.training.follower import attend

_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(["tips_dist.training.follower"])


@dataclass(frozen=True)
class Forked:
    """A worker that runs what ``python -m tips_dist.training.follower`` runs."""

    process: ForkServerProcess

    def gone(self, patience: float = 1.0) -> str | None:
        self.process.join(patience)
        return f"exit status {self.process.exitcode}" if self.process.exitcode else None

    def end(self) -> None:
        self.process.join(0.2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@pytest.fixture
def warm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a trial's other workers in milliseconds; that Python starts them too is shown in ``test_execution``."""

    def launch(local: execution.Local, host: str, port: int, rank: int, size: int) -> execution.Helper:
        arguments = [host, str(port), str(rank), str(size), local.plan.device]
        process = _WARM.Process(target=attend, args=(arguments,), daemon=True)
        process.start()
        return Forked(process)

    monkeypatch.setattr(execution.Local, "launch", launch)
