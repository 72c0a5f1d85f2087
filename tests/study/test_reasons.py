"""Ray's errors in words; the texts are those that Ray 2.60 gave of workers killed, memory spent, a node that died."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError

from tips_dist.study import reasons, tuning
from tips_dist.study.reasons import Actors, Failures, last_error, reason_words

KILLED = """The actor died unexpectedly before finishing this task.
\tclass_name: ImplicitFunc
\tactor_id: 648b2eb21b918d44aac3c67901000000
\tpid: 17348
\tip: 127.0.0.1
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed \
by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed unexpectedly \
due to SIGSEGV or another unexpected error. If the process was killed by the kernel OOM killer (verifiable by checking \
for OOM in dmesg of the OOMing node), consider enabling resource isolation via --enable-resource-isolation."""
STARTUP = """The actor is not schedulable: Could not create the actor because worker startup repeatedly failed.
Failed to startup worker after retrying 5 times. This is most often caused by errors in the worker's Python \
environment setup. For example, pip / uv install failures."""
MEMORY = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1, ID: \
a5a84352460b4a376c3b4e18b48746cfa709f9196c11d698bed0d947) was 6.50GB used / 23.54GB limit (0.276134)
OOM kill reason: Memory usage 6928654336B exceeded threshold of 6875211264B (27.2% of 25276510208B limit)
Object store memory usage: [- objects spillable: 0
- bytes spillable: 0
(global lru) used: 0%
]
Ray killed 1 worker(s) based on the killing policy
Selected to kill: (Actor(1f99bf1b3a36a08640a8c64b01000000): job ID=01000000, task name=ImplicitFunc.__init__, \
pid=24089, actual memory used=5.34GB)
Top 10 memory users: PID	MEM(GB)	COMMAND
24089	5.34	ray::ImplicitFunc.train
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/en/latest/"""
NODE = """The actor died unexpectedly before finishing this task.
\tclass_name: ImplicitFunc
\tactor_id: c7f4500f2e90d9f52b9b180c01000000
\tpid: 25500
\tip: 127.0.0.1
The actor died because its node has died. Node Id: 5aa92679c169a1da669dc5fe3d88bc19641ab1d452de2ddf3b00ac0d
\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"""
IMPORT = """The actor died because of an error raised in its creation task, \
\x1b[36mray::ImplicitFunc.__init__()\x1b[39m (pid=1, ip=10.0.0.7)
RuntimeError: The actor with name ImplicitFunc failed to import on the worker. This may be because needed library \
dependencies are not installed in the worker environment:

Traceback (most recent call last):
  File "/somewhere/function_manager.py", line 1, in load
ModuleNotFoundError: No module named 'torch'"""
FOLDER = """\x1b[36mray::ImplicitFunc.train()\x1b[39m (pid=1, ip=10.0.0.7, actor_id=ab, repr=trial_function)
  File "/somewhere/files.py", line 1, in read_json
tips_dist.files.UserError: /shared/runs/x/trials/solo-000/trial.json: no such file"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            KILLED,
            "its worker died on n: killed by somebody or by the kernel for want of memory (dmesg there tells), or ",
        ),
        (STARTUP, "no worker could be started on n: a broken Python environment there, or the machine is too busy"),
        (
            MEMORY,
            "its node ran out of memory (23.54GB), so Ray ended its worker on n; take a larger node",
        ),
        (NODE, "its node died on n, or its connection"),
        (IMPORT, "a package is missing on n: No module named 'torch'; submit with --package, or give all nodes"),
        (FOLDER, "/shared/runs/x/trials/solo-000/trial.json: no such file (node n)"),
        ("ray::f()\nValueError: one\ntwo", "ValueError: one on n"),
        ("something new\nof two lines", "something new of two lines on n"),
    ],
)
def test_what_ended_a_worker(text: str, words: str) -> None:
    told = reason_words(text, "n")
    assert told.startswith(words)
    assert "\n" not in told
    assert " on n" not in reason_words(text)


def test_the_kernel_leaves_a_trace_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reasons.kernel_kills() >= 0
    kills = iter([3, 3, 4, 4])
    monkeypatch.setattr(reasons, "kernel_kills", lambda: next(kills))
    failures = Failures()
    for identity in ("before", "at it", "after"):
        failures.hear([identity], KILLED)
    told = [failures.told(identity) for identity in ("before", "at it", "after")]
    assert ["the kernel ended its worker" in one for one in told] == [False, True, False]


def test_all_failures_of_a_trial_are_told_and_the_last_one_first() -> None:
    failures = Failures()
    for _ in range(4):
        failures.hear(["a"], KILLED)
    assert failures.told("a").endswith("or crashed (4 times)")
    failures.hear(["b"], KILLED)
    failures.hear(["b"], MEMORY, "n")
    failures.hear(["b"], MEMORY, "n")
    assert failures.told("b").startswith("its node ran out of memory (23.54GB), so Ray ended its worker on n")
    failures.hear(["c"], KILLED)
    failures.hear(["c"], MEMORY)
    told = failures.told("c")
    assert "(once); before, once: its worker died" in told
    assert "does not say why" in failures.told("c")  # it was told


def test_a_worker_that_was_killed_because_it_hung_is_said_to_have_hung() -> None:
    failures = Failures()
    failures.hung("a", 60.0)
    failures.hear(["a"], KILLED)
    assert failures.told("a") == "its worker hung (no sign of life for 60 s) and was killed"


def test_a_worker_ended_for_want_of_memory_ends_its_trial_and_not_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    manager, heard = Actors(resource_manager=SimpleNamespace()), list[Exception]()
    monkeypatch.setattr(manager, "_cleanup_actor", lambda tracked_actor: None)
    actor = SimpleNamespace(actor_id=1, _on_error=lambda one, error: heard.append(error))
    manager._actor_task_failed(SimpleNamespace(_tracked_actor=actor, _on_error=None), OutOfMemoryError(MEMORY))
    (error,) = heard
    assert isinstance(error, RayActorError)
    assert reason_words(str(error)).startswith("its node ran out of memory")
    assert vars(tuning)["tune_controller"].RayActorManager is Actors


def test_the_newest_of_tunes_errors_is_read(tmp_path: Path) -> None:
    path = tmp_path / "error.txt"
    trial: Any = SimpleNamespace(error_file=str(path))
    assert last_error(trial) == ""
    path.write_text("Failure # 1 (occurred at x)\nold\nFailure # 2 (occurred at y)\nnew\nlines\n")
    assert last_error(trial) == "new\nlines"
    assert last_error(SimpleNamespace(error_file=None)) == ""
