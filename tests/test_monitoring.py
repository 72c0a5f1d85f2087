"""TensorBoard files are read back with TensorBoard's own reader."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tips_dist.monitoring import BALANCE, CHOSEN_BY, LAYOUT, PICTURE_EVERY, Monitor, verdict_tag
from tips_dist.stability.verdicts import KINDS


def rows(step: int, risks: list[float | None]) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "seed": seed,
            "risk": risk,
            "verdict": "healthy",
            "discriminator/real": 0.6,
            "depth/sign": None,
        }
        for seed, risk in enumerate(risks)
    ]


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def test_seeds_mean_and_band(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    whole = {"step": 50, "throughput/steps_per_second": 99.0}
    monitor.evaluation(50, [*rows(50, [1.0, 3.0]), whole])
    monitor.evaluation(100, rows(100, [0.5, None]))
    monitor.close()
    mean, seed = read(tmp_path), read(tmp_path / "seed1")
    assert [(e.step, e.value) for e in mean.Scalars("seeds/risk/total/mean")] == [(50, 2.0), (100, 0.5)]
    assert not {"risk/total", "discriminator/real"} & set(mean.Tags()["scalars"])  # no number has two tags
    assert [e.value for e in mean.Scalars("seeds/risk/total/low")] == [1.0, 0.5]
    assert [e.value for e in mean.Scalars("seeds/risk/total/high")] == [3.0, 0.5]
    assert [e.value for e in mean.Scalars(BALANCE)] == [0.5, 0.5]
    assert [(e.step, e.value) for e in seed.Scalars("risk/total")] == [(50, 3.0)]
    assert [e.value for e in mean.Scalars("throughput/steps_per_second")] == [99.0]
    assert "throughput/steps_per_second" not in seed.Tags()["scalars"]
    assert "depth/sign" not in seed.Tags()["scalars"]


def test_a_resumed_trial_shows_each_step_once(tmp_path: Path) -> None:
    for values in ([(50, 5.0), (100, 4.0), (150, 3.0)], [(100, 2.0), (150, 1.0)]):
        monitor = Monitor(tmp_path)
        for step, risk in values:
            monitor.evaluation(step, rows(step, [risk]))
        monitor.close()
    for folder, tag in ((tmp_path, "seeds/risk/total/mean"), (tmp_path / "seed0", "risk/total")):
        assert [(e.step, e.value) for e in read(folder).Scalars(tag)] == [
            (50, 5.0),
            (100, 2.0),
            (150, 1.0),
        ]


def test_the_charts_of_the_layout_show_tags_that_are_written_for_trials_only(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    signals = {"discriminator/fake": 0.4, "consistency/cycle_2d": 0.1, "rigidity/bone_ratio_variance": 0.2}
    whole = {"risk/best": 1.0, "risk/unbroken_seeds": 2.0, **{verdict_tag(kind): 0.0 for kind in KINDS}}
    monitor.evaluation(50, [*(row | signals for row in rows(50, [1.0, 3.0])), whole])
    monitor.close()
    assert next(iter(LAYOUT)) == "Stability: risk"
    wanted = {tag for charts in LAYOUT.values() for chart in charts.values() for tag in chart[1]}
    assert all(len({kind for kind, _ in charts.values()}) == 1 for charts in LAYOUT.values())  # else drawn apart
    assert wanted <= set(read(tmp_path).Tags()["scalars"])
    assert not wanted & set(read(tmp_path / "seed0").Tags()["scalars"])


def test_every_seed_has_a_verdict_text_from_the_start(tmp_path: Path) -> None:
    for step in (50, 100):
        monitor = Monitor(tmp_path)  # as after a restart, which tells nothing twice
        monitor.evaluation(step, rows(step, [1.0, 3.0]))
        monitor.close()
    events = read(tmp_path)
    for seed in (0, 1):
        (text,) = events.Tensors(f"verdict/seed{seed}/text_summary")
        assert text.tensor_proto.string_val[0].startswith(b"**healthy** at step 50")


def test_verdict_text_and_layout(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    monitor.verdict(1200, 3, "diverged", "risk left its best by 4 deviations", 1100)
    monitor.close()
    events = read(tmp_path)
    (text,) = events.Tensors("verdict/seed3/text_summary")
    words = text.tensor_proto.string_val[0].decode()
    assert text.step == 1200
    assert words == "**diverged** at step 1200 (began at step 1100): risk left its best by 4 deviations"
    assert "custom_scalars__config__" in events.Tags()["tensors"]


def test_a_disk_that_refuses_never_fails_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    monitor = Monitor(tmp_path / "file" / "tensorboard")
    with caplog.at_level(logging.WARNING):
        for step in (50, 100):
            monitor.evaluation(step, rows(step, [1.0]))
    monitor.verdict(100, 0, "diverged", "x", None)
    monitor.close()
    assert len(caplog.records) == 1


def test_the_null_monitor_writes_and_imports_nothing() -> None:
    code = (
        "import sys; from tips_dist.monitoring import Monitor; m = Monitor(None);"
        "m.evaluation(1, [{'seed': 0, 'risk': 1.0}]); m.verdict(1, 0, 'healthy', '', None); m.close();"
        "assert 'torch' not in sys.modules and 'tensorboard' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pictures_of_poses_dependence_and_mesh(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    poses, depths = random.normal(size=(40, 17, 2)) / 10, random.normal(size=(2, 40, 17))
    depths[1] = np.nan  # a broken seed must not spoil its neighbours' pictures
    monitor = Monitor(tmp_path)
    for step in range(1, 2 * PICTURE_EVERY + 1):
        monitor.poses(step, [0, 1], poses, depths)
    monitor.close()
    for folder, tag in ((tmp_path, "poses/seed0"), (tmp_path, "poses/seed1"), (tmp_path, "dependence/depths")):
        images = read(folder).Images(tag)
        assert [image.step for image in images] == [1, PICTURE_EVERY + 1]
        assert images[0].encoded_image_string.startswith(b"\x89PNG")
    mesh = f"{tmp_path.parent.name} seed 0, lifted (left blue, right red)_VERTEX"
    assert mesh in read(tmp_path).Tags()["tensors"]


def test_the_hparams_table_gets_parameters_and_metrics(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, {"representation": "solo", "training.generator_lr": 2e-4})
    monitor.evaluation(50, [*rows(50, [1.0, 3.0]), {"risk/best": 1.5, "risk/unbroken_seeds": 2}])
    monitor.close()
    events = read(tmp_path)
    written = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"training.generator_lr" in written
    for metric in CHOSEN_BY:
        assert metric.encode() in events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    assert [e.value for e in events.Scalars("risk/best")] == [1.5]
    assert [e.value for e in events.Scalars("risk/unbroken_seeds")] == [2.0]


def test_bytes_per_thousand_evaluations_are_bounded(tmp_path: Path) -> None:
    """Eight seeds, sixteen signals, pictures included: what docs/reading.md promises."""
    random = np.random.default_rng(0)
    poses, depths = random.normal(size=(64, 17, 2)) / 10, random.normal(size=(8, 64, 17))
    monitor = Monitor(tmp_path)
    for step in range(1, 101):
        signals = {f"group/signal_{index:02d}": random.random() for index in range(16)}
        monitor.evaluation(step, [row | signals for row in rows(step, list(random.random(8)))])
        monitor.poses(step, list(range(8)), poses, depths)
    monitor.close()
    size = sum(file.stat().st_size for file in tmp_path.rglob("events.*"))
    assert 10 * size < 16e6
