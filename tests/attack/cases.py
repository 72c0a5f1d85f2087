"""Hostile and unlucky cases, drawn from a seed: study files, data files, weights, run folders, command lines."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.attack.arena import CASES, Case
from tests.data.fuzzing import damage as damaged

NASTY: tuple[Any, ...] = (
    None, True, "", 0, -1, 1e308, -1e308, 0.1, 10**30, 2**63, float("nan"), float("inf"), [], {}, [[]], {"a": {}},
    "off", "010", "2026-11-25", "\x1b[2J\x1b]0;owned\x07", "a\r\nb", "[/bold]", "{{7*7}}", "<script>1</script>", "=1",
    "../../../etc/passwd", "others/id_rsa", "s3://AKIA:hunter2@b/x", "https://h/x?sig=hunter2", "file:///etc", "\ud800",
    "x" * 5000, "a/" * 3000, "\u202egnp.exe", "null", "!!python/object/apply:os.system [id]", "/dev/zero", "pipe", ".",
)  # fmt: skip
KEYS = (
    "name", "seed", "seeds", "data", "data.poses", "data.digest", "data.procedural.poses", "representations",
    "model.width", "model.discriminator_blocks", "training.steps", "training.batch_size", "training.generator_lr",
    "training.turns", "training.validation_poses", "training.evaluate_every", "losses.cycle_2d",
    "losses.real_label", "search.trials", "search.sampler", "search.storage", "search.enqueue", "search.objectives",
    "space", "space.training.generator_lr", "resources.cpus", "resources.workers", "resources.heartbeat_seconds",
    "distillation.teachers", "stopping.policy.patience", "nonsense", "training.\x1b[31m", "model.nonsense.deep",
)  # fmt: skip
RUN_FILES = (
    "study.json", "study.yaml", "optuna.journal", "selection.json", "dependence.json", "evaluation.json",
    "summary.json",     "student/student.json", "student/student.safetensors", "trials/torso_legs-000/trial.json",
    "trials/torso_legs-000/history.jsonl", "trials/torso_legs-000/depths.npy", "trials/torso_legs-001/trial.json",
)  # fmt: skip
READING = ("status", "summary", "report", "select", "audit", "compare", "evaluate", "distill", "resume", "select")


def all_cases(number: int, seed: int) -> Iterator[Case]:
    """That many cases, a fifth of each kind, after the collected ones."""
    yield from collected()
    makers = (study_file, data_file, weights, run_folder, command_line)
    for index in range(number):
        make = makers[index % len(makers)]
        yield make(random.Random(f"{seed}-{index}"), f"{make.__name__} {index}")


def collected() -> Iterator[Case]:
    """The files in ../shared/cases and other cases that went wrong once."""
    for path in sorted(CASES.glob("*")) if CASES.exists() else ():
        if path.suffix == ".yaml":
            for command in (("run", "--runs", "out"), ("doctor",)):
                yield Case(path.name, (command[0], path.name, *command[1:]), _copy(path))
        elif path.suffix == ".safetensors":
            for words in (("lift", path.name, "p.pose2d.h5"), ("export", path.name, "-o", "out.pt2")):
                yield Case(path.name, words, _copy(path))
    yield Case("pipe as study", ("run", "pipe"), _pipe)
    yield Case("pipe as data", ("data", "inspect", "pipe"), _pipe)
    yield Case("pipe as weights", ("lift", "pipe", "p.pose2d.h5"), _pipe)
    yield Case("pipe as poses", ("lift", "w.safetensors", "pipe.json"), _pipe)
    yield Case("device as study", ("run", "/dev/zero"))
    yield Case("device as data", ("data", "inspect", "/dev/zero"))
    yield Case("folder as study", ("run", "others"))


def _copy(source: Path) -> Callable[[Path], None]:
    def damage(arena: Path) -> None:
        (arena / source.name).write_bytes(source.read_bytes())
        os.mkfifo(arena / "fifo")
        (arena / "td.pose2d.h5").write_bytes((arena / "p.pose2d.h5").read_bytes())

    return damage


def _pipe(arena: Path) -> None:
    for name in ("pipe", "pipe.json"):
        os.mkfifo(arena / name)


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(arena: Path) -> None:
        (arena / name).parent.mkdir(parents=True, exist_ok=True)
        (arena / name).unlink(missing_ok=True)
        (arena / name).write_bytes(content)

    return damage


def _mutate(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(arena: Path) -> None:
        path = arena / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def _damaged(draw: random.Random) -> Callable[[bytes], bytes]:
    generator = np.random.default_rng(draw.getrandbits(32))
    return lambda content: damaged(content, generator)


def study_file(draw: random.Random, name: str) -> Case:
    """A study file with nasty values at one to three keys, or with damaged text."""
    words = ("run", "study.yaml", "--runs", "out")
    if draw.random() < 0.35:
        return Case(name, words, _mutate("study.yaml", _damaged(draw)))
    picked = [(draw.choice(KEYS), draw.choice(NASTY)) for _ in range(draw.randint(1, 3))]

    def change(content: bytes) -> bytes:
        values = yaml.safe_load(content)
        for key, value in picked:
            *sections, last = key.split(".", 1) if key.startswith("space.") else key.split(".")
            place = values
            for section in sections:
                if not isinstance(place.get(section), dict):
                    place[section] = {}
                place = place[section]
            place[last] = value
        return yaml.safe_dump(values, allow_unicode=True).encode(errors="surrogatepass")

    return Case(name, words, _mutate("study.yaml", change))


def data_file(draw: random.Random, name: str) -> Case:
    """A pose or truth file with damaged bytes or hostile structure."""
    words: tuple[str, ...] = draw.choice(
        [
            ("data", "inspect", "p.pose2d.h5"),
            ("lift", "w.safetensors", "p.pose2d.h5", "-o", "out.csv"),
            ("run", "study.yaml", "--runs", "out"),
            ("data", "import", "arrays", "p.pose2d.h5", "-o", "out"),
            ("evaluate", "w.safetensors", "--poses", "p.pose2d.h5", "--truth", "p.truth3d.h5", "--split", "train"),
        ]
    )
    if draw.random() < 0.6:
        file = draw.choice(["p.pose2d.h5", "p.pose2d.h5", "p.truth3d.h5"])
        return Case(name, words, _mutate(file, _damaged(draw)))
    dataset = draw.choice(["poses", "subject", "split", "subject_names", "camera_names", "frame", "score"])
    kind, number = draw.choice(["f4", "i4", "i1", "S5", "text", "f8", "nan"]), draw.choice([0, 1, 1500, 10**6, 10**8])

    def rebuild(arena: Path) -> None:
        import h5py

        with h5py.File(arena / "p.pose2d.h5", "a") as file:
            if dataset in file:
                del file[dataset]
            dtype = h5py.string_dtype() if kind == "text" else {"nan": "f4"}.get(kind, kind)
            shape = (number, 17, 2) if draw.random() < 0.5 else (number,)
            file.create_dataset(dataset, shape=shape, dtype=dtype, chunks=True if number else None, maxshape=None)
            if kind == "nan" and 0 < number < 10**5:
                file[dataset][...] = np.nan
            file.attrs[draw.choice(["schema_version", "source", "joint_names", "record", "digest"])] = draw.choice(
                ["\x1b[2J", 7, -1.0, np.zeros(3)]
            )

    return Case(name, words, rebuild)


def weights(draw: random.Random, name: str) -> Case:
    """A weights file with damaged bytes, or whose record or header says something else."""
    words: tuple[str, ...] = draw.choice(
        [
            ("lift", "w.safetensors", "p.pose2d.h5"),
            ("export", "w.safetensors", "-o", "out.pt2"),
            ("evaluate", "w.safetensors", "--poses", "p.pose2d.h5", "--truth", "p.truth3d.h5", "--split", "train"),
        ]
    )
    if draw.random() < 0.5:
        return Case(name, words, _mutate("w.safetensors", _damaged(draw)))
    keys = [
        "format",
        "kind",
        "representation",
        "width",
        "blocks",
        "batch_norm",
        "scale",
        "part_signs",
        "risk",
        "source",
    ]
    picked = [(draw.choice(keys), draw.choice(NASTY)) for _ in range(draw.randint(1, 2))]
    in_header = draw.random() < 0.3

    def change(content: bytes) -> bytes:
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        record = json.loads(header["__metadata__"]["record"])
        for key, value in picked:
            record[key] = value
        header["__metadata__"]["record"] = json.dumps(record)
        if in_header:
            tensor = draw.choice([key for key in header if key != "__metadata__"])
            header[tensor][draw.choice(["shape", "dtype", "data_offsets"])] = draw.choice(
                [[1], [10**9, 10**9], "F64", "X", [0, 10**12], [-1, 4], None]
            )
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + size :]

    return Case(name, words, _mutate("w.safetensors", change))


def run_folder(draw: random.Random, name: str) -> Case:
    """A run folder of somebody: files damaged, missing, linked, or with nasty values deep within a record."""
    command, file = draw.choice(READING), draw.choice(RUN_FILES)
    run = draw.choice(["finished", "finished", "interrupted"])
    words: tuple[str, ...] = {
        "compare": ("compare", run, "finished"),
        "evaluate": ("evaluate", run, "--truth", "p.truth3d.h5"),
        "summary": ("summary", run, *draw.choice([(), ("--json",), ("--markdown",), ("--latex",), ("--by", "trial")])),
    }.get(command, (command, run))
    way = draw.choice(["bytes", "bytes", "gone", "empty", "linked", "folder", "pipe", "value", "value", "value"])
    value, spot = draw.choice(NASTY), draw.random()

    def damage(arena: Path) -> None:
        path = arena / run / file
        if not path.exists():
            return
        content = path.read_bytes()
        if way == "bytes":
            path.write_bytes(_damaged(draw)(content))
        elif way == "empty":
            path.write_bytes(b"")
        elif way == "value" and path.suffix == ".json":
            path.write_text(json.dumps(_planted(json.loads(content), value, spot)))
        elif way != "value":
            path.unlink()
            if way == "linked":
                path.symlink_to(arena / "others" / "id_rsa")
            elif way == "folder":
                path.mkdir()
            elif way == "pipe":
                os.mkfifo(path)

    return Case(name, words, damage)


def _planted(record: Any, value: Any, spot: float) -> Any:
    """The record with a value put at one of its places."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    if isinstance(record, dict | list):
        walk(record)
    if places:
        node, key = places[int(spot * len(places))]
        node[key] = value
    return record


def command_line(draw: random.Random, name: str) -> Case:
    """A command with nonsense for its arguments and options."""
    texts = [str(value) for value in NASTY if isinstance(value, str | int | float) and value != "\ud800"]
    texts = [text for text in texts if "\0" not in text] + [
        "p.pose2d.h5",
        "study.yaml",
        "finished",
        "w.safetensors",
        "others",
    ]
    forms: dict[str, list[str]] = {
        "run": ["--runs", "--set", "--truth", "--storage", "--address"],
        "resume": ["--trials", "--study", "--truth", "--storage"],
        "train": ["--output", "--representation", "--set"],
        "status": ["--json"],
        "summary": ["--by", "--sort", "--where", "--json"],
        "report": ["--poses"],
        "compare": ["--json"],
        "select": ["--json"],
        "audit": ["--policy"],
        "distill": ["--poses"],
        "evaluate": ["--truth", "--poses", "--split", "--output"],
        "lift": ["--output", "--picture", "--size", "--minimum-score"],
        "export": ["--output"],
        "fetch": ["--output"],
        "data generate": ["--output", "--poses", "--seed", "--set"],
        "data import": ["--output", "--set"],
        "data inspect": ["--json"],
        "submit": ["--address", "--storage", "--env", "--poses", "--runs"],
    }
    command = draw.choice(list(forms))
    words = command.split()
    for _ in range(draw.randint(0, 2)):
        words.append(draw.choice(texts))
    for option in draw.sample(forms[command], draw.randint(0, len(forms[command]))):
        words.append(option)
        if option in ("--output", "--runs"):
            words.append("out")
        elif option == "--set" and draw.random() < 0.7:
            words.append(f"{draw.choice(KEYS)}={draw.choice(texts)}")
        elif option != "--json":
            words.append(draw.choice(texts))
    if command == "data generate" and "--poses" not in words:
        words += ["--poses", "100"]
    if "--output" not in words and command in ("data generate", "data import", "fetch", "train", "export"):
        words += ["--output", "out"]
    if "--runs" not in words and command == "run":
        words += ["--runs", "out"]
    return Case(name, tuple(words))
