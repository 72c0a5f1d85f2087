"""Where every file of a run folder lies, what kind it is, and who is given it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tips_dist.runfolder import layout
from tips_dist.runfolder.layout import FileKind

RUN = Path("/runs/one")


def test_names_of_files() -> None:
    assert layout.STUDY.at(RUN) == RUN / "study.json"
    assert layout.TRIAL.at(RUN, "solo-003") == RUN / "trials/solo-003/trial.json"
    assert layout.CANDIDATE.at(RUN, "a") == RUN / "trials/a/candidates/*"  # the trial alone is filled in
    assert layout.CHECKPOINT.beside(Path("mine")) == Path("mine/checkpoint/*")
    assert layout.HISTORY.beside(Path("mine")) == Path("mine/history.jsonl")
    assert (layout.HISTORY.name, layout.STUDENT.name, layout.LOCK.name) == ("history.jsonl", "student.json", "lock")
    assert layout.trial_folder(RUN, "a") == RUN / "trials" / "a"
    assert layout.candidate_name(2, 150) == "seed2-step150.safetensors"
    assert layout.candidate_file("a", 2, 150) == "trials/a/candidates/seed2-step150.safetensors"
    assert layout.frozen_name(4) == "seed4.safetensors"


def test_checkpoints_sort_by_age() -> None:
    assert layout.checkpoint_name(150) == "step-000000150.safetensors"
    assert layout.checkpoint_name(150, 2) == "thaw-002-step-000000150.safetensors"
    ages = [(50, 0), (1000, 0), (50, 1), (2000, 1), (50, 2), (50, 12)]
    names = [layout.checkpoint_name(*age) for age in ages]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("study.yaml", FileKind.RECORD),
        ("study.json", FileKind.RECORD),
        ("trials/a/trial.json", FileKind.RECORD),
        ("trials/a/alive.json", FileKind.RECORD),
        ("student/student.json", FileKind.RECORD),
        ("student/student.safetensors", FileKind.STUDENT),
        ("student/MODEL_CARD.md", FileKind.STUDENT),
        ("curves.npz", FileKind.SERIES),
        ("trials/a/history.jsonl", FileKind.SERIES),
        ("trials/a/depths.npy", FileKind.DEPTHS),
        ("trials/a/depths_raw.npy", FileKind.DEPTHS),
        ("trials/a/candidates/seed0-step5.safetensors", FileKind.CANDIDATES),
        ("trials/a/frozen/seed0.safetensors", FileKind.FROZEN),
        ("trials/a/checkpoint/step-000000050.safetensors", FileKind.STATE),
        ("trials/a/checkpoint/.step.7.tmp", FileKind.LOCAL),
        ("trials/a/.lock", FileKind.LOCAL),
        ("optuna.journal", FileKind.JOURNAL),
        ("report.html", FileKind.OTHER),
        ("trials/a/error.txt", FileKind.OTHER),
        ("mirror.json", FileKind.NOTE),
        ("lock", FileKind.LOCAL),
        (".fetching", FileKind.LOCAL),
        ("phase.json", FileKind.LOCAL),
        (".stop", FileKind.LOCAL),
        ("somebody's notes.txt", FileKind.OTHER),
        ("STUDY.JSON", FileKind.OTHER),
    ],
)
def test_what_a_file_is(name: str, kind: FileKind) -> None:
    assert layout.file_kind(name) is kind
    assert layout.copied(name) is (kind is not FileKind.LOCAL)
    assert layout.order(name) == (int(kind), name)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("study.json", True),
        ("trials/a/trial.json", True),
        ("trials/a/candidates/x", True),
        ("sub/study.json", False),
        ("trials/a/b/trial.json", False),  # a star crosses no folder here
        ("notes.txt", False),
        ("trials/a/notes.txt", False),
        ("Study.json", False),
    ],
)
def test_only_files_of_the_layout_are_ours(name: str, ours: bool) -> None:
    assert layout.in_layout(name) is ours


def test_a_command_is_given_what_it_reads_and_records() -> None:
    records = {file.pattern for file in layout.FILES if file.kind in (FileKind.RECORD, FileKind.NOTE)}
    assert set(layout.needs("status")) == records
    assert set(layout.needs("audit")) == records | {"trials/*/history.jsonl", "curves.npz"}
    assert set(layout.needs("summary")) == set(layout.needs("audit")) | {"optuna.journal"}
    assert "trials/*/depths.npy" in layout.needs("scorecard")
    assert "trials/*/checkpoint/*" not in layout.needs("report")
    assert layout.needs("what nobody knows") == ("*",)
    assert layout.HEAVY == (FileKind.STATE, FileKind.DEPTHS)
