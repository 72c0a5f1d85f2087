"""Is everything there that a study needs, here and on the cluster? Every finding says what to do."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from tips_dist.config import Data, Study
from tips_dist.devices import cores
from tips_dist.files import StorageError, UserError, home
from tips_dist.study.answering import NodeAnswer
from tips_dist.study.cluster import RayNode, cards_in_words, settled
from tips_dist.study.preflight import MOST_SKEW, Checked, ask, host_of, judged_nodes, needs_of

PROBE_BYTES = 8 * 2**20
LEAST_DISK = 5 * 10**9  # bytes
LEAST_SHARED_MEMORY = 10**9
NODE_SECONDS = 180.0  # that nodes get to answer
MOST_NODES = 256  # that are asked one by one


def diagnose(
    *,
    study: Study | None = None,
    study_file: Path | None = None,
    runs: Path = Path("runs"),
    storage: str | None = None,
    address: str | None = None,
) -> Iterator[Checked]:
    """Look at everything, yielding findings as they come.

    Args:
        study, study_file: also check this study's data and whether its trials fit on the nodes.
        runs: where run folders will lie.
        storage: an address for mirrors, tried with a small object that is removed again.
        address: of a cluster: ``http://HOST:8265`` (its version) or one to join, ``auto`` or ``HOST:PORT`` (all nodes).
    """
    yield from machine()
    yield folder(runs)
    if storage is not None:
        yield from store(storage)
    if study is not None and study_file is not None:
        yield data(study.data, study_file.parent)
    if address is None:
        if study is not None and study.resources.gpus not in (0, "auto"):
            yield _gpus_here(study)
    elif "://" in address:
        yield _guarded("ray on the cluster", lambda: dashboard(address))
    else:
        yield from cluster(address, study, runs)


def machine() -> Iterator[Checked]:
    """Python, packages, processors and memory of this machine."""
    version = platform.python_version()
    good = (3, 11) <= sys.version_info < (3, 14)
    yield Checked("python", "ok" if good else "failed", version, "" if good else "use Python 3.11, 3.12 or 3.13")
    yield _guarded("torch", torch_and_cuda)
    yield _guarded("precision", precisions)
    yield Checked("ray", "ok", metadata.version("ray"))
    cpus = cores()
    threads = os.environ.get("OMP_NUM_THREADS")
    many = threads is not None and threads.isdigit() and int(threads) > cpus
    yield Checked(
        "processors",
        "warning" if many else "ok",
        f"{cpus} CPUs, OMP_NUM_THREADS {threads or 'not set'}",
        f"more threads than CPUs make training many times slower; set OMP_NUM_THREADS to at most {cpus}"
        if many
        else "",
    )
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        little = free < LEAST_SHARED_MEMORY
        advice = "Ray's object store lies there; give the container more (docker run --shm-size=8g)" if little else ""
        yield Checked("shared memory", "warning" if little else "ok", f"{free / 1e9:.1f} GB free", advice)


def torch_and_cuda() -> Checked:
    """Torch, and whether it sees the GPUs that the machine has."""
    import torch

    text = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Checked("torch", "ok", f"{text}, CUDA {torch.version.cuda}: {names}")
    driver = nvidia_driver()
    if driver is None:
        return Checked("torch", "ok", f"{text}, no GPU on this machine")
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        hidden = "CUDA_VISIBLE_DEVICES hides every card; unset it to use them"
        return Checked("torch", "warning", f"{text} sees no GPU, driver {driver}", hidden)
    if torch.version.cuda is None:
        advice = "there is an NVIDIA driver; install a CUDA build of torch (pytorch.org says which)"
        return Checked("torch", "failed", f"{text} is built without CUDA, driver {driver}", advice)
    least = least_driver(torch.version.cuda)
    old = least is not None and version(driver) < version(least)
    advice = "no process of this user may use the card, or the driver was renewed and the machine not started again"
    if old:
        advice = (
            f"CUDA {torch.version.cuda} needs driver {least} or newer: renew it, or install a torch of an older CUDA"
        )
    return Checked("torch", "failed", f"{text}, CUDA {torch.version.cuda}, sees no GPU, driver {driver}", advice)


# CUDA's major version -> the oldest Linux driver that runs its minor versions (NVIDIA, CUDA Compatibility, table 1).
LEAST_DRIVERS = {11: "450.80.02", 12: "525.60.13", 13: "580"}


def least_driver(cuda: str) -> str | None:
    """The oldest driver that runs a wheel built for this CUDA; None where we do not know."""
    return LEAST_DRIVERS.get(int(cuda.split(".")[0]))


def version(text: str) -> tuple[int, ...]:
    """The numbers of a version, to compare."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def nvidia_driver(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The version of this machine's NVIDIA driver, "?" if it does not tell; None without one."""
    try:
        found = re.search(r"(?:Kernel Module|Module for \S+)\s+([\d.]+)", path.read_text())
    except OSError:
        return None
    return found[1] if found else "?"


def precisions() -> Checked:
    """Which of ``training.precision`` this machine has units for; the others run as float32."""
    import torch

    from tips_dist.training import precision

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.device("cuda", index) for index in range(cards)] or [torch.device("cpu")]
    words = {word for device in devices for kind in ("tf32", "bf16") if (word := precision.effective(kind, device)[1])}
    product = "oneDNN's float32 product is exact" if precision.onednn_is_exact() else "oneDNN rounds float32 products"
    if words:
        return Checked("precision", "ok", "; ".join(sorted(words)))
    return Checked("precision", "ok", f"float32 and bf16{', tf32' if cards else ''}; {product}")


def folder(runs: Path, where: str = "here") -> Checked:
    """Whether run folders can be written below ``runs``, how fast, and how much room there is."""
    base = runs.expanduser().absolute()
    while not base.exists():
        base = base.parent
    probe = base / f".tips-dist-doctor-{os.getpid()}"
    name = f"run folders in {runs}"
    try:
        begun = time.perf_counter()
        with probe.open("wb") as stream:
            stream.write(os.urandom(PROBE_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        speed = PROBE_BYTES / (time.perf_counter() - begun) / 1e6
        skew = abs(probe.stat().st_mtime - time.time())
    except OSError as error:
        return Checked(name, "failed", f"not writable ({error.strerror})", "choose another place with --runs", where)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    free = shutil.disk_usage(base).free
    found = f"{speed:.0f} MB/s written, {free / 1e9:.0f} GB free"
    if free < LEAST_DISK:
        return Checked(name, "warning", found, "a study writes gigabytes; make room or choose another place", where)
    if skew > MOST_SKEW:
        advice = f"the file server's clock differs by {skew:.0f} s from this machine's; run NTP on both"
        return Checked(name, "warning", found, advice, where)
    return Checked(name, "ok", found, where=where)


def store(url: str) -> Iterator[Checked]:
    """Whether an address can be written, read and cleaned, how fast, and whether its clock is ours."""
    import tempfile

    from tips_dist.storage import Store

    name = f"storage at {url}"
    try:
        place = Store(url, patience=10.0)
        with tempfile.TemporaryDirectory() as scratch:
            sent, came, probe = Path(scratch) / "sent", Path(scratch) / "came", f"tips-dist-doctor-{os.getpid()}"
            sent.write_bytes(os.urandom(PROBE_BYTES))
            begun = time.perf_counter()
            place.put(sent, probe)
            written = time.perf_counter()
            entry = place.list(few=True)[probe]
            before_read = time.perf_counter()
            place.get(probe, came)
            read = time.perf_counter()
            place.delete(probe)
            whole = came.read_bytes() == sent.read_bytes()
    except (UserError, KeyError, OSError) as error:
        advice = "check address, network and credentials (AWS_…, GOOGLE_APPLICATION_CREDENTIALS)"
        yield Checked(name, "failed", str(error), advice)
        return
    rates = f"{PROBE_BYTES / (written - begun) / 1e6:.0f} MB/s written"
    rates += f", {PROBE_BYTES / (read - before_read) / 1e6:.0f} MB/s read"
    yield Checked(name, "ok" if whole else "failed", rates, "" if whole else "what is read is not what was written")
    if not entry.changed:  # this kind of storage tells no times
        return
    skew = abs(entry.changed - time.time()) - (time.perf_counter() - begun)
    off = skew > MOST_SKEW
    advice = "signatures of requests fail from 15 minutes on; run NTP on this machine" if off else ""
    yield Checked("clock against storage", "warning" if off else "ok", f"within {max(skew, 1.0):.0f} s", advice)


def data(section: Data, base: Path, where: str = "here") -> Checked:
    """Whether the study's poses open, and their digest."""
    from tips_dist.runfolder.poses import study_poses

    name = f"data {section.poses or '(procedural)'}"
    try:
        poses = study_poses(section, base)
    except (UserError, OSError) as error:
        return Checked(name, "failed", str(error), "name a file that every driver can read, or an address", where)
    return Checked(name, "ok", f"{len(poses)} poses, digest {poses.digest[:12]}", where=where)


def dashboard(address: str) -> Checked:
    """The cluster's Ray against ours, through its dashboard."""
    request = urllib.request.Request(f"{address.rstrip('/')}/api/version")
    token = _token()
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        theirs = str(json.load(answer)["ray_version"])
    return same_ray(theirs)


def same_ray(theirs: str) -> Checked:
    """Whether the cluster runs the Ray that we have: drivers and workers must agree to the last digit."""
    ours = metadata.version("ray")
    if ours == theirs:
        return Checked("ray on the cluster", "ok", theirs, where="cluster")
    advice = f"drivers that join need the same: pip install ray=={theirs}, or submit with an image that has it"
    return Checked("ray on the cluster", "failed", f"{theirs}, here {ours}", advice, "cluster")


def cluster(address: str, study: Study | None, runs: Path) -> Iterator[Checked]:
    """Join a cluster and ask every node."""
    from tips_dist.config import Resources
    from tips_dist.study.cluster import check_fits, connected

    try:
        with connected(Resources(cpus=1e-3), address):
            import ray

            nodes = [node for node in ray.nodes() if node["Alive"]]
            total = ray.cluster_resources()
            text = f"{len(nodes)} nodes, {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"
            yield Checked("cluster", "ok", text, where="cluster")
            if study is not None:
                yield _guarded("resources of a trial", lambda: _fits(study, nodes, check_fits), "cluster")
            yield from _nodes(nodes[:MOST_NODES], runs)
    except UserError as error:
        yield Checked("cluster", "failed", str(error), "is it running, and is its token ours?", "cluster")


def _nodes(nodes: Sequence[RayNode], runs: Path) -> Iterator[Checked]:
    mark = runs.expanduser().absolute() / f".tips-dist-doctor-{os.getpid()}-shared"
    with contextlib.suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    try:
        names = [node["NodeID"] for node in nodes]
        wanted, answers = needs_of(), ask(names, mark=str(mark), runs=str(runs), seconds=NODE_SECONDS)
        for node in nodes:
            asked, host = answers[node["NodeID"]], host_of(node)
            yield from judged_nodes(asked, wanted, host)
            if asked.answer is not None:
                yield from _folders(asked.answer, host, runs)
    finally:
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)


def _folders(answer: NodeAnswer, host: str, runs: Path) -> Iterator[Checked]:
    if not answer["shared"]:
        found = "not those of the driver: trials send it what they write"
        yield Checked(f"run folders in {runs}", "ok", found, where=host)
    elif answer["folder"] is not None:
        yield Checked(**{**answer["folder"], "where": host})


def _fits(study: Study, nodes: Sequence[RayNode], check: Callable[..., None]) -> Checked:
    check(study.resources, nodes)
    asked = settled(study.resources, nodes)
    text = f"{asked.cpus:g} CPUs, {float(asked.gpus):g} GPUs, {asked.workers} worker(s): fits"
    if words := cards_in_words(study.resources, asked, nodes, study.search.trials * len(study.representations)):
        text = f"{text}; {words}"
    return Checked("resources of a trial", "ok", text, where="cluster")


def _gpus_here(study: Study) -> Checked:
    found = torch_and_cuda()
    missing = "CUDA" not in found.found
    advice = "set resources.gpus to 0, or choose a cluster with --address" if missing else ""
    return Checked(
        "resources of a trial", "failed" if missing else "ok", f"{float(study.resources.gpus):g} GPUs asked for", advice
    )


def _guarded(name: str, look: Callable[[], Checked], where: str = "here") -> Checked:
    try:
        return look()
    except (UserError, StorageError) as error:
        return Checked(name, "failed", str(error), "see the message", where)
    except Exception as error:  # a doctor that falls ill helps nobody
        return Checked(name, "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", "see it", where)


def _token() -> str | None:
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or home() / ".ray" / "auth_token")
    return path.read_text().strip() if path.is_file() else None
