"""The whole study in TensorBoard: risk with its band over seeds, verdicts at their step, seeds still in play.

Written by whoever looks (``tips-dist monitor``) into a folder of its own, from the histories of the run folder: a live
run, a finished one and one of an earlier version look alike, and training pays nothing. TensorBoard sorts what it
shows by name, so tags and runs begin with a 1: health is the first thing on its first page.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tips_dist.escaping import for_markdown, for_matplotlib
from tips_dist.files import UserError
from tips_dist.report.curves import BAND, Floats
from tips_dist.report.style import style, verdict_look
from tips_dist.runfolder import layout
from tips_dist.runfolder.folder import read_trial
from tips_dist.runfolder.history import History
from tips_dist.stability.verdicts import HEALTHY, KINDS, is_sound, severity

STUDY = "1 study"  # group of tags, and the run with picture and words; below it lies one run per representation
RISK = [f"{STUDY}/risk: {name}" for name in ("median of seeds", f"{BAND[0]} % of seeds", f"{BAND[1]} % of seeds")]
IN_PLAY = f"{STUDY}/seeds in play"
HEALTH, VERDICTS = f"{STUDY}/health", f"{STUDY}/verdicts"


def count_tag(kind: str) -> str:
    """The tag of how many seeds have a verdict."""
    return f"{STUDY}/seeds {kind.replace('_', '-')}"


LAYOUT: dict[str, dict[str, list[Any]]] = {  # charts of one kind each: TensorBoard puts the kinds apart anyway
    "1 Study: risk": {f"Risk: median of seeds, {BAND[0]} to {BAND[1]} %": ["Margin", RISK]},
    "1 Study: seeds": {
        "Seeds in play": ["Multiline", [IN_PLAY]],
        "Seeds by verdict: a rise is a verdict that fell": ["Multiline", [count_tag(kind) for kind in KINDS]],
    },
}
SYMBOL = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v", "star": "*"}
SYMBOL |= {"x": "X", "cross": "P"}  # plotly's names, as matplotlib has them
DASH: dict[str, str | tuple[int, tuple[int, ...]]] = {
    "dash": "--",
    "dot": ":",
    "dashdot": "-.",
    "longdash": (0, (8, 3)),
    "longdashdot": (0, (8, 3, 2, 3)),
}
PATIENCE = 0.02  # of the time since the first refresh: how long the next one waits at least, since each writes anew


@dataclass(frozen=True)
class Seed:
    """What the history of one seed says: steps (E,), risks (E,) with NaN, verdicts (E)."""

    trial: str
    seed: int
    steps: Floats
    risks: Floats
    verdicts: list[str]

    @property
    def fell(self) -> tuple[int, float, str] | None:
        """Step, risk and kind of the verdict that it has now; None where that is healthy."""
        kind = self.verdicts[-1]
        if kind == HEALTHY:
            return None
        first = next(row for row in range(len(self.verdicts)) if set(self.verdicts[row:]) == {kind})
        known = self.risks[: first + 1][np.isfinite(self.risks[: first + 1])]
        return int(self.steps[first]), float(known[-1]) if len(known) else float("nan"), kind


@dataclass(frozen=True)
class Health:
    """All seeds of one representation over the steps; the first axis of every array is that of ``steps``."""

    representation: str
    seeds: list[Seed]
    steps: Floats  # (E,)
    risk: Floats  # (E, 3): median, low and high end of the band; NaN where no seed has a risk
    in_play: Floats  # (E,): seeds that train at this step and are sound
    verdicts: dict[str, Floats]  # kind -> (E,): seeds that have it by then

    def at(self, row: int) -> dict[str, float]:
        """The scalars of one step."""
        found = {tag: value for tag, value in zip(RISK, self.risk[row].tolist(), strict=True) if np.isfinite(value)}
        found[IN_PLAY] = float(self.in_play[row])
        counts = {count_tag(kind): float(count[row]) for kind, count in self.verdicts.items()}
        return found | counts


def health(representation: str, seeds: Sequence[Seed]) -> Health:
    """What the seeds of a representation do together."""
    steps = np.unique(np.concatenate([one.steps for one in seeds]))
    risks = np.full((len(seeds), len(steps)), np.nan)
    in_play = np.zeros(len(steps))
    counts = {kind: np.zeros(len(steps)) for kind in KINDS}
    for row, one in enumerate(seeds):
        places = np.searchsorted(steps, one.steps)
        risks[row, places] = one.risks
        in_play[places] += [is_sound(kind) for kind in one.verdicts]
        last = np.searchsorted(one.steps, steps, side="right") - 1  # a seed that has ended keeps its verdict
        for place, index in enumerate(last.tolist()):
            if index >= 0 and one.verdicts[index] in counts:
                counts[one.verdicts[index]][place] += 1
    known = np.isfinite(risks).any(axis=0)
    band = np.full((len(steps), 3), np.nan)
    if known.any():
        band[known] = np.nanpercentile(risks[:, known], [50, *BAND], axis=0).T
    return Health(representation, list(seeds), steps, band, in_play, counts)


class StudyBoard:
    """Keeps the events of a study below ``folder`` up to date with its run folder."""

    def __init__(self, run: Path, folder: Path) -> None:
        self._run, self._folder = run, folder
        self._sizes: dict[str, int] = {}
        self._seeds: dict[str, tuple[str, list[Seed]]] = {}  # trial -> representation and seeds
        self._written: dict[str, dict[int, dict[str, float]]] = {}  # representation -> step -> scalars
        self._began = self._last = time.monotonic()

    def refresh(self) -> bool:
        """Write what is new; whether anything was. Waits the longer between writes, the longer it has been at it."""
        now = time.monotonic()
        if self._written and now - self._last < PATIENCE * (now - self._began):
            return False
        if not self._read():
            return False
        self._last = now
        groups: dict[str, list[Seed]] = {}
        for representation, seeds in self._seeds.values():
            groups.setdefault(representation, []).extend(seeds)
        found = [health(name, seeds) for name, seeds in groups.items() if seeds]
        if not found:
            return False
        for one in found:
            self._write_scalars(one)
        self._write_words(found)
        return True

    def _read(self) -> bool:
        """Read the histories that have grown; whether there were any."""
        changed = False
        for path in sorted(self._run.glob(layout.HISTORY.pattern)):
            trial = path.parent.name
            with contextlib.suppress(UserError, OSError):  # being replaced or damaged: `status` says so
                size = path.stat().st_size
                if size == self._sizes.get(trial):
                    continue
                representation = self._seeds[trial][0] if trial in self._seeds else ""
                representation = representation or read_trial(self._run, trial).representation
                self._seeds[trial] = representation, list(_seeds(trial, History.load(path)))
                self._sizes[trial] = size
                changed = True
        return changed

    def _write_scalars(self, one: Health) -> None:
        """Write the steps from the first that has changed: what came later is written again after a purge."""
        before = self._written.get(one.representation, {})
        now = {int(step): one.at(row) for row, step in enumerate(one.steps)}
        changed = [step for step in sorted(now) if now[step] != before.get(step)]
        if changed:
            events = [(step, [_scalar(tag, value) for tag, value in now[step].items()]) for step in sorted(now)]
            _write(
                self._folder / STUDY / one.representation,
                [event for event in events if event[0] >= changed[0]],
                purge=changed[0] if before else None,
            )
        self._written[one.representation] = now

    def _write_words(self, found: Sequence[Health]) -> None:
        last = int(max(one.steps[-1] for one in found))
        fresh = not any((self._folder / STUDY).glob("events.*"))
        values = [_image(HEALTH, picture(found)), _tensor(VERDICTS, "text", verdict_text(found).encode(), 1)]
        _write(
            self._folder / STUDY, [(last, [*values, *([_layout()] if fresh else [])])], purge=None if fresh else last
        )


def _seeds(trial: str, history: History) -> Iterator[Seed]:
    rows: dict[int, list[Any]] = {}
    for row in history:
        rows.setdefault(row.seed, []).append(row)
    for seed, found in sorted(rows.items()):
        found.sort(key=lambda row: row.step)
        risks = np.array([np.nan if row.risk is None else row.risk for row in found], float)
        yield Seed(trial, seed, np.array([row.step for row in found], float), risks, [row.verdict for row in found])


def verdict_text(found: Sequence[Health]) -> str:
    """Every seed that has a verdict other than healthy, the most severe first, as a table of Markdown."""
    seeds = [(one.representation, seed, seed.fell) for one in found for seed in one.seeds]
    counts = Counter(seed.verdicts[-1] for _, seed, _ in seeds)
    head = ", ".join(f"{counts[kind]} {kind.replace('_', '-')}" for kind in sorted(counts, key=severity))
    told = [(name, seed, fell) for name, seed, fell in seeds if fell is not None]
    if not told:
        return f"{for_markdown(head)}: no seed is in trouble."
    lines = [f"{for_markdown(head)}.", "", "| verdict | trial | seed | since step |", "| --- | --- | --- | --- |"]
    for _, seed, (step, _, kind) in sorted(told, key=lambda row: (-severity(row[2][2]), row[1].trial, row[1].seed)):
        lines.append(f"| {for_markdown(kind.replace('_', '-'))} | {for_markdown(seed.trial)} | {seed.seed} | {step} |")
    return "\n".join(lines)


def picture(found: Sequence[Health]) -> bytes:
    """PNG: the risk's median and band per representation with verdicts at their step; below it the seeds in play."""

    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.8), dpi=100, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    marked: set[str] = set()
    for one in found:
        look = style(one.representation)
        dash = DASH.get(look.dash, "-")
        median, low, high = one.risk.T
        upper.fill_between(one.steps, low, high, color=look.colour, alpha=0.2, linewidth=0)
        name = f"{for_matplotlib(one.representation)}, {len(one.seeds)} seeds"
        upper.plot(one.steps, median, color=look.colour, linestyle=dash, linewidth=2, label=name)
        lower.step(one.steps, one.in_play, color=look.colour, linestyle=dash, linewidth=2, where="post")
    for seed in (seed for one in found for seed in one.seeds):
        if (fell := seed.fell) is not None and np.isfinite(fell[1]):
            step, risk, kind = fell
            colour, symbol = verdict_look(kind)
            label = None if kind in marked else for_matplotlib(kind.replace("_", "-"))
            marked.add(kind)
            upper.scatter(
                [step],
                [risk],
                color=colour,
                marker=SYMBOL.get(symbol, "o"),
                edgecolors="white",
                s=55,
                zorder=3,
                label=label,
            )
    finite = np.concatenate([one.risk[np.isfinite(one.risk)] for one in found])
    if len(finite):
        low, high = float(finite.min()), float(np.percentile(finite, 98))
        upper.set_ylim(low - 0.05 * (high - low or 1.0), high + 0.15 * (high - low or 1.0))
    upper.set_ylabel("risk")
    upper.set_title(f"Risk (lower is better): median, {BAND[0]} to {BAND[1]} % of seeds; signs: verdicts", fontsize=9)
    upper.legend(fontsize=8, ncols=2)
    lower.set_ylabel("seeds in play")
    lower.set_xlabel("training step")
    lower.set_ylim(bottom=0)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


# ------------------------------------------------------------------------------------------------ events


def _write(folder: Path, events: Sequence[tuple[int, list[Any]]], purge: int | None) -> None:
    """Write one more file of events; readers forget what they knew from step ``purge`` on."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder.mkdir(parents=True, exist_ok=True)
    suffix = f".{len(list(folder.glob('events.*'))):06d}"  # files of one second are read in the order they were written
    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    if purge is not None:
        writer.add_event(Event(wall_time=time.time(), step=purge, session_log=SessionLog(status=SessionLog.START)))
    for step, values in events:
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
    writer.close()


def _scalar(tag: str, value: float) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=tag, simple_value=value)


def _image(tag: str, png: bytes) -> Any:
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = Image.open(io.BytesIO(png)).size
    return Summary.Value(
        tag=tag, image=Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
    )


def _tensor(tag: str, plugin: str, content: bytes, *shape: int) -> Any:
    """Bytes that a plug-in of TensorBoard reads."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin))
    sizes = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in shape])
    tensor = TensorProto(dtype="DT_STRING", string_val=[content], tensor_shape=sizes)
    return Summary.Value(tag=tag, metadata=about, tensor=tensor)


def _layout() -> Any:
    from tensorboard.plugins.custom_scalar import layout_pb2

    categories = []
    for title, charts in LAYOUT.items():
        drawn = []
        for name, (kind, tags) in charts.items():
            if kind == "Margin":
                series = layout_pb2.MarginChartContent.Series(value=tags[0], lower=tags[1], upper=tags[2])
                drawn.append(layout_pb2.Chart(title=name, margin=layout_pb2.MarginChartContent(series=[series])))
            else:
                drawn.append(layout_pb2.Chart(title=name, multiline=layout_pb2.MultilineChartContent(tag=tags)))
        categories.append(layout_pb2.Category(title=title, chart=drawn))
    packed = layout_pb2.Layout(category=categories).SerializeToString()
    return _tensor("custom_scalars__config__", "custom_scalars", packed)
