"""One hostile command at a time, in a process of its own: how it ended, what it left, what it took.

The process is forked from one that has imported everything, so a case costs some tens of milliseconds. Ray is never
started: a study that is accepted ends where Ray would begin. A case is a defect if it ends in a traceback, in more than
one line, with an exit code that is not ours, in more than the time or memory that a refusal may take, or if anything is
left behind or changed outside the run and the outputs that the command names.
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

FIXTURES = Path(__file__).parents[1] / "runfolder" / "fixtures"
CASES = Path(__file__).parents[2].parent / "shared" / "cases"
SECONDS, MEGABYTES = 2.0, 500.0  # of processor time and memory that a refusal may take
PATIENCE = 30.0  # seconds of its own processor time, or of sleep, until a case counts as hung, however busy the machine
POLL = 0.5
ACCEPTED = 77  # the study would have been run
CODES = {0: "done", 1: "failed", 2: "refused", ACCEPTED: "accepted"}


@dataclass(frozen=True)
class Case:
    """What is done: something to the arena's files, then a command in it."""

    name: str
    words: tuple[str, ...]
    damage: Callable[[Path], None] = lambda arena: None


@dataclass
class Count:
    """What became of many cases."""

    cases: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    defects: dict[str, list[str]] = field(
        default_factory=lambda: {"traceback": [], "leftover": [], "outside": [], "slow": [], "memory": []}
    )

    def add(self, case: Case, code: int | None, said: str, seconds: float, megabytes: float, left: list[str]) -> None:
        """Take a case in."""
        self.cases += 1
        kind = CODES.get(code, "other") if code is not None else "killed"
        self.codes[kind] = self.codes.get(kind, 0) + 1
        what = f"{case.name}: {' '.join(case.words)[:300]}"
        errors = [line for line in said.splitlines() if line.startswith("tips-dist: ")]
        usage = "Usage: " in said
        if kind in ("other", "killed") or "Traceback" in said or (code == 2 and len(errors) != 1 and not usage):
            self.defects["traceback"].append(f"{what}: exit {code}: {said.strip()[-700:]}")
        if any((sign < " " and sign not in "\n\t") or "\x7f" <= sign < "\xa0" for sign in said):
            self.defects["traceback"].append(f"{what}: a control character reached the terminal")
        outside = [name for name in left if not name.startswith(OUTPUTS + OWN)]
        for defect, names in (("outside", outside), ("leftover", [name for name in left if name not in outside])):
            if names:
                self.defects[defect].append(f"{what}: exit {code}: {names[:5]}")
        refused = kind not in ("done", "accepted")
        if code is None or (refused and seconds > SECONDS):
            self.defects["slow"].append(f"{what}: {seconds:.1f} s")
        if refused and megabytes > MEGABYTES:
            self.defects["memory"].append(f"{what}: {megabytes:.0f} MB")

    @property
    def wrong(self) -> int:
        """How many defects there are."""
        return sum(map(len, self.defects.values()))


def build(arena: Path) -> Path:
    """The files that every case begins with."""
    from tips_dist.data import procedural
    from tips_dist.data.writer import write_poses, write_truth

    shutil.copytree(FIXTURES, arena)
    poses, joints = procedural.generate(1500, 0)[:2]
    write_poses(arena / "p.pose2d.h5", poses)
    write_truth(arena / "p.truth3d.h5", joints, poses.digest)
    (arena / "study.yaml").write_bytes(
        (arena / "finished" / "study.yaml").read_bytes().replace(b"before.pose2d.h5", b"p.pose2d.h5")
    )
    shutil.copyfile(arena / "finished" / "student" / "student.safetensors", arena / "w.safetensors")
    for name in ("others", "home"):
        (arena / name).mkdir()
    (arena / "others" / "id_rsa").write_text("PRIVATE KEY")
    return arena


def preload() -> None:
    """Import here what every case needs; nothing is computed, so that forking is safe."""
    import h5py  # noqa: F401
    import pyarrow.fs  # noqa: F401

    import tips_dist.cli
    import tips_dist.commands.datasets
    import tips_dist.commands.deciding
    import tips_dist.commands.evaluating
    import tips_dist.commands.reading
    import tips_dist.commands.study
    import tips_dist.commands.training
    import tips_dist.commands.weights
    import tips_dist.data.importers
    import tips_dist.distillation
    import tips_dist.evaluation.evaluate
    import tips_dist.report.html
    import tips_dist.report.summary
    import tips_dist.study.doctor
    import tips_dist.study.jobs
    import tips_dist.study.run
    import tips_dist.study.tuning  # noqa: F401


def run(case: Case, pristine: Path, arena: Path, count: Count) -> None:
    """Do a case in a copy of the pristine arena and judge it."""
    shutil.copytree(pristine, arena, symlinks=True)
    try:
        case.damage(arena)
        before = _listing(arena)
        output = arena.with_name("said")
        child = os.fork()
        if child == 0:
            _do(case, arena, output)
        code, usage = _wait(child)
        said = output.read_text(errors="replace")
        megabytes = (usage.ru_maxrss - _baseline()) / 1024
        left = _left(before, _listing(arena), case, code)
        count.add(case, code, said, usage.ru_utime + usage.ru_stime, megabytes, left)
    finally:
        shutil.rmtree(arena, ignore_errors=True)


def _baseline() -> int:
    """What a fork of this process counts as its own memory before it does anything (KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _wait(child: int) -> tuple[int | None, resource.struct_rusage]:
    descriptor, asleep, worked = os.pidfd_open(child), 0.0, 0.0
    try:
        while not select.select([descriptor], [], [], POLL)[0]:
            state, now = _working(child)
            asleep = asleep + POLL if state == "S" and now == worked else 0.0
            worked = now
            if max(asleep, worked) > PATIENCE:
                os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    finally:
        os.close(descriptor)
    return (os.WEXITSTATUS(status) if os.WIFEXITED(status) else None), usage


def _working(child: int) -> tuple[str, float]:
    """A process's state (``R`` runs or waits for a processor, ``S`` sleeps) and its processor time in seconds."""
    words = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return words[0], (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _do(case: Case, arena: Path, output: Path) -> None:
    """The child: never returns."""
    code = 1
    try:
        descriptor = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.chdir(arena)
        home = str(arena / "home")
        os.environ.update(HOME=home, XDG_CACHE_HOME=home, XDG_STATE_HOME=home, MPLCONFIGDIR=home, COLUMNS="200")
        sys.argv = ["tips-dist", *case.words]
        _without_ray()
        from tips_dist import cli

        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _without_ray() -> None:
    """Where Ray would be started or a network asked, end."""
    import socket

    import tips_dist.study.cluster as cluster
    import tips_dist.study.run as studies
    import tips_dist.training.loop as loop

    def end(*_: object, **__: object) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ACCEPTED)

    def nobody(*_: object, **__: object) -> None:
        raise OSError("there is no network here")

    studies.connected = cluster.connected = end  # type: ignore[assignment, attr-defined]
    loop.train = end  # type: ignore[assignment]
    socket.getaddrinfo = nobody  # type: ignore[assignment]


Listing = dict[str, tuple[int, int] | str]


def _listing(arena: Path) -> Listing:
    found: Listing = {}
    for place, folders, names in os.walk(arena):
        for name in names + [folder for folder in folders if Path(place, folder).is_symlink()]:
            path = Path(place, name)
            state = path.lstat()
            key = path.relative_to(arena).as_posix()
            found[key] = str(path.readlink()) if path.is_symlink() else (state.st_size, state.st_mtime_ns)
    return found


OUTPUTS = ("out", "home/", "runs/")  # where cases let commands write
OWN = ("finished/", "interrupted/")  # and the runs that they are given


def _left(before: Listing, after: Listing, case: Case, code: int | None) -> list[str]:
    """What a command changed that it had no business with."""
    changed = [name for name in after if after[name] != before.get(name)]
    changed += [f"{name} (gone)" for name in before if name not in after]
    unfinished = [name for name in changed if name.endswith(".tmp")]
    if code in (0, ACCEPTED):
        return unfinished + [name for name in changed if not name.startswith(OUTPUTS + OWN)]
    quiet = [name for name in changed if not name.endswith(("lock", ".fetching")) and not name.startswith("home/")]
    return quiet if code == 2 else [name for name in quiet if not name.startswith(OUTPUTS + OWN)] + unfinished
