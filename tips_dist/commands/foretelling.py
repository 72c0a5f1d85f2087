"""``run --dry-run``: what a study asks for, before anything starts."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tips_dist.commands.output import console, print_json, showing
from tips_dist.devices import cores

if TYPE_CHECKING:
    from tips_dist.config import Configuration, Resources, Study
    from tips_dist.forecast import Forecast

CARD = 20e12  # operations a second that a card of today sustains in float32 steps of this kind; see `make gpu`
NODE = 8  # cards of a large machine of today


@dataclass(frozen=True)
class Site:
    """Where a study may train: this machine's cores, or so many cards."""

    study: Study
    cards: int = 0

    @property
    def resources(self) -> Resources:
        """What a program occupies there."""
        asked = self.study.resources
        gpus = float(asked.workers) if asked.gpus == "auto" else asked.gpus
        return asked.model_copy(update={"gpus": (gpus or 1.0) if self.cards else 0.0})

    @property
    def room(self) -> int:
        """Programs at a time; one where there are too few cores for it."""
        each = float(self.resources.gpus)
        room = int(self.cards / each + 1e-6) if self.cards else max(1, int(cores() / self.resources.cpus))
        return min(room, self.resources.max_concurrent or room)

    def packed(self, configuration: Configuration) -> int:
        """How many trials like this one train as one program, at most."""
        from tips_dist.study.packs import foreseen

        return foreseen(self.study, configuration, self.resources, self.room)

    def programs(self, part: Forecast) -> int:
        """In how many programs a representation's trials train."""
        return -(-part.trials // self.packed(part.largest))

    def at_once(self, parts: Sequence[Forecast]) -> int:
        """Programs at a time, as far as there are so many."""
        return min(self.room, sum(map(self.programs, parts)))

    def seconds(self, parts: Sequence[Forecast]) -> float:
        """Until the last program has taken its steps; on cards by counted operations."""
        from tips_dist.forecast import makespan

        def length(part: Forecast) -> float:
            if not self.cards:
                return part.steps * part.step_seconds
            return self.packed(part.largest) * part.operations / part.trials / CARD / float(self.resources.gpus)

        return makespan((length(part) for part in parts for _ in range(self.programs(part))), self.room)

    def memory(self, part: Forecast) -> int:
        """Bytes that each process of a representation's fullest program holds."""
        from tips_dist.forecast import fullest

        return part.memory(fullest(self.study, part.representation, self.packed), self.resources.workers)


def foretell(study_file: Path, overrides: list[str], *, as_json: bool) -> None:
    """Check a study and its data as ``run`` would, and say what it asks for; nothing is started or written."""
    from tips_dist.data.store import check_decidable
    from tips_dist.forecast import forecast
    from tips_dist.runfolder.poses import study_poses
    from tips_dist.study.space import budget
    from tips_dist.study_file import check_names, load_study

    study = load_study(study_file, overrides)
    check_names(study, str(study_file))
    poses = study_poses(study.data, study_file.parent)
    if study.data.poses is not None:
        check_decidable(poses)
    here = Site(study)
    least = math.ceil(float(Site(study, NODE).resources.gpus))
    cards = [Site(study, count) for count in sorted({least, NODE}) if count >= least]
    with showing("timing a step of each representation"):
        threads = max(1, int(study.resources.cpus))
        parts = forecast(study, poses, functools.partial(budget, study), here.packed, threads)
    if as_json:
        found = {"study": study.name, "here": _plain(here, parts), "cards": [_plain(place, parts) for place in cards]}
        print_json({**found, "parts": [part.plain() for part in parts]})
    else:
        _print(here, cards, parts)


def _plain(place: Site, parts: Sequence[Forecast]) -> dict[str, Any]:
    """What a place makes of the study, as JSON."""
    each = {
        part.representation: {"together": place.packed(part.largest), "memory": place.memory(part)} for part in parts
    }
    places = {"cards": place.cards} if place.cards else {}
    return {**places, "at_once": place.at_once(parts), "seconds": place.seconds(parts), "programs": each}


def _print(here: Site, cards: Sequence[Site], parts: Sequence[Forecast]) -> None:
    from tips_dist.report.formats import print_tables
    from tips_dist.report.live import duration
    from tips_dist.report.tables import Table

    packed = any(here.packed(part.largest) > 1 for part in parts)
    columns = ("together", "of all") if packed else ()
    head = ("representation", "trials", "seeds", "steps", "PFLOP", "memory", "disk", "step", *columns)
    rows = [
        (
            part.representation,
            str(part.trials),
            str(part.seeds),
            f"{part.steps:,}",
            f"{part.operations / 1e15:,.3g}",
            _bytes(part.memory()),
            _bytes(part.disk),
            f"{1000 * part.step_seconds:,.0f} ms" if part.step_seconds < 10 else f"{part.step_seconds:,.0f} s",
            *((str(here.packed(part.largest)), _bytes(here.memory(part))) if packed else ()),
        )
        for part in parts
    ]
    running = here.at_once(parts)
    memory = _bytes(running * here.resources.workers * max(map(here.memory, parts)))
    together = (
        "Together: trials that train as one program at most (`resources.pack`), the memory of all, and their step."
    )
    lines = [
        *([together] if packed else []),
        f"On this machine's processors, {_programs(running)} at a time: about {duration(here.seconds(parts))} of "
        "training steps. Evaluation takes some percent on top, selection and distillation some minutes.",
        *(_on_cards(place, parts) for place in cards),
        f"Memory here: {memory} for what runs at once, and 0.3 GB for each worker's own libraries. "
        f"Disk: {_bytes(sum(part.disk for part in parts))} at most. Nothing was started.",
    ]
    print_tables(console(), [Table(f"{here.study.name}: what it asks for", head, rows)], lines)


def _on_cards(place: Site, parts: Sequence[Forecast]) -> str:
    from tips_dist.report.live import duration

    running, most = place.at_once(parts), max(place.packed(part.largest) for part in parts)
    on_one = min(running, max(1, int(1 / float(place.resources.gpus) + 1e-6)))
    holds = _bytes(on_one * max(map(place.memory, parts)))
    where = f"{place.cards} cards that sustain" if place.cards > 1 else "one card that sustains"
    each = f" of up to {most} trials" if most > 1 else ""
    return (
        f"On {where} {CARD / 1e12:.0f} TFLOP/s (`make gpu` measures one), {_programs(running)}{each} at a time: about "
        f"{duration(place.seconds(parts))}, {holds} on a card (less where a step goes in pieces)."
    )


def _programs(count: int) -> str:
    return f"{count} program{'s' * (count > 1)}"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.{count < 1e11:d}f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
