"""Damaged and nonsensical input: an error of ours or success; never a crash, a hang or a traceback.

A few cases in the normal suite; ``TIPS_DIST_FUZZ_CASES=1000`` (per reader; ``make fuzz``) runs thousands and prints
how many ended how.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.data import fuzzing
from tests.data.importers import layouts
from tips_dist.data import importers, joint_maps
from tips_dist.data.importers import bvh, coco
from tips_dist.files import UserError

CASES = int(os.environ.get("TIPS_DIST_FUZZ_CASES", "8"))
THOROUGH = settings(max_examples=max(25, CASES), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_damaged_files_are_refused_or_read(target: str) -> None:
    counts, defects = fuzzing.fuzz(target, CASES, first=int(os.environ.get("TIPS_DIST_FUZZ_FIRST", "0")))
    print(f"\nfuzz {target}: {sum(counts.values())} cases, {dict(counts)}")
    assert not defects, "\n".join(defects)
    assert counts["refused"] > 0


VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
NUMBERS = st.integers() | st.floats()
CATEGORIES = st.fixed_dictionaries(
    {}, optional={"id": VALUES, "name": VALUES, "keypoints": VALUES | st.just(list(joint_maps.ORDERS["coco"]))}
)
PEOPLE = st.fixed_dictionaries(
    {"keypoints": st.lists(NUMBERS, min_size=51, max_size=51) | VALUES},
    optional={"image_id": VALUES, "track_id": VALUES, "num_keypoints": VALUES, "score": VALUES},
)
IMAGES = st.fixed_dictionaries({}, optional={"id": VALUES, "file_name": VALUES, "width": VALUES, "height": VALUES})
FILES = st.lists(PEOPLE | VALUES, max_size=6) | st.fixed_dictionaries(
    {"annotations": st.lists(PEOPLE, max_size=6) | VALUES},
    optional={
        "images": st.lists(IMAGES, max_size=4) | VALUES,
        "categories": st.lists(CATEGORIES, max_size=3) | VALUES,
    },
)

# Everything that the readers of detectors look for, put together in ways that no detector does.
_FLAT = st.lists(NUMBERS, min_size=51, max_size=51) | st.lists(NUMBERS, min_size=75, max_size=75) | VALUES
_PAIRS = st.lists(st.lists(NUMBERS, min_size=2, max_size=2), min_size=17, max_size=17) | VALUES
_COLUMN = st.lists(NUMBERS, min_size=17, max_size=17) | VALUES
_COLUMNS = st.fixed_dictionaries({"x": _COLUMN, "y": _COLUMN}, optional={"visible": _COLUMN})
_MARK = st.fixed_dictionaries({"x": NUMBERS | VALUES, "y": NUMBERS | VALUES}, optional={"visibility": VALUES})
_MARKS = _MARK.map(lambda mark: [mark] * 33) | VALUES
DETECTED = st.fixed_dictionaries(
    {},
    optional={
        "keypoints": _FLAT | _PAIRS | _COLUMNS,
        "pose_keypoints_2d": _FLAT, "keypoint_scores": _COLUMN, "image_id": VALUES, "idx": VALUES, "box": VALUES,
        "frame_id": VALUES, "frame": VALUES, "landmarks": _MARKS, "pose_landmarks": _MARKS, "person_id": VALUES,
        "track_id": VALUES,
    },
)  # fmt: skip
_FRAMES = st.fixed_dictionaries({"instances": st.lists(DETECTED, max_size=2)}, optional={"frame_id": VALUES})
ANY_DETECTOR = st.lists(DETECTED | _FRAMES | st.lists(DETECTED, max_size=2) | VALUES, max_size=4) | st.dictionaries(
    st.sampled_from(["people", "version", "instance_info", "meta_info", "frames", "pose_landmarks", "landmarks"]),
    st.lists(DETECTED | _FRAMES | _MARKS, max_size=3) | VALUES,
    max_size=3,
)
READERS = ("coco", "openpose", "mmpose", "ultralytics", "alphapose", "mediapipe")


@THOROUGH
@given(FILES)
def test_any_json_is_refused_or_read(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        path.write_text(json.dumps(content))
        for attempt in (
            lambda: coco.read_coco(path),
            lambda: importers.import_data("coco", path, Path(folder) / "out"),
        ):
            try:
                attempt()
            except UserError as error:
                assert str(path) in str(error) or path.name in str(error)


@THOROUGH
@given(ANY_DETECTOR | FILES, st.booleans())
@example([{"\n": None}], False)
@example({"\n": None}, False)
def test_any_detections_are_refused_or_read_by_every_reader(content: Any, sized: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        path.write_text(json.dumps(content))
        for format in (*READERS, importers.AUTO):
            options = {"image_px": [640, 480]} if sized and format in ("ultralytics", "mediapipe") else {}
            try:
                importers.import_data(format, path, Path(folder) / "out", options)
            except UserError as error:
                assert "\n" not in str(error)
                assert path.name in str(error)


WORDS = ["}", "{", "JOINT a", "End Site", "OFFSET 1 2", "CHANNELS 1 Xrotation", "Frames: 9", "MOTION"]
LINES = layouts.bvh_text(*layouts.bvh_angles(0)).splitlines()


@THOROUGH
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(LINES)),
            st.sampled_from(WORDS) | st.text(max_size=12),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_bvh_is_refused_or_read(changes: list[tuple[int, str]]) -> None:
    lines = LINES.copy()
    for at, line in changes:
        lines[at : at + 1] = [line]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.bvh"
        path.write_text("\n".join(lines), errors="replace")
        try:
            nodes, values, _ = bvh.read_bvh(path)
            assert bvh.positions(nodes, values)[0].shape == (len(values), len(nodes), 3)
        except UserError as error:
            assert str(path) in str(error)
