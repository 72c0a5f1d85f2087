"""Who is learnt from, who decides, who is kept for the end: whole persons where there are enough, else sequences."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tips_dist.data.importers.pipeline import ImportRecord, Options
from tips_dist.files import UserError

ENOUGH = 4  # persons to choose from, before whole persons are held out unasked
LEAST = 2  # persons or sequences held out for validation: one alone says little about others
PEOPLE_SHARE = 0.2  # of the frames, where no share is stated
_TRIED = 12  # up to so many persons every choice is tried


def splits_by_name(names: Sequence[str], options: Options, record: ImportRecord) -> dict[str, str]:
    """A split for every sequence of a data set without a convention of its own: evenly spaced names are held out."""
    names = list(dict.fromkeys(names))
    test = hold_out(names, options.test_share)
    rest = [name for name in names if name not in test]
    validation = hold_out(rest, options.validation_share, least=LEAST if len(rest) > 3 else 1)
    record.note(
        f"no splits in the source: of {len(names)} sequences, {len(validation)} held out for validation "
        f"and {len(test)} for test"
    )
    return {name: "test" if name in test else "validation" if name in validation else "train" for name in names}


def splits_by_person(people: Mapping[str, str], options: Options, record: ImportRecord, where: Path) -> dict[str, str]:
    """A split for every sequence, ``people`` telling whose each is; sequences count alike.

    Persons named in ``validation_subjects`` and ``test_subjects`` are held out. Unasked, whole persons are held out
    for both where there are enough for it, else sequences by :func:`splits_by_name`.

    Raises:
        UserError: a named person is not there, or is named for both.
    """
    known = list(dict.fromkeys(people.values()))
    check_subjects(options, known, where)
    named = options.validation_subjects is not None or options.test_subjects is not None
    if not named and len(known) < ENOUGH + LEAST:
        return splits_by_name(list(people), options, record)
    counts = {person: {"": sum(owner == person for owner in people.values())} for person in known}
    test = set(options.test_subjects or ())
    free = [person for person in known if person not in {*test, *(options.validation_subjects or ())}]
    if options.test_subjects is None:
        test = choose_people({person: counts[person] for person in free}, share_of_people(options, "test_share"))
    free = [person for person in free if person not in test]
    validation = set(options.validation_subjects or ())
    if options.validation_subjects is None:
        pool = {person: counts[person] for person in free}
        validation = choose_people(pool, share_of_people(options, "validation_share"))
    note_people(record, validation, test)
    return {
        name: "test" if person in test else "validation" if person in validation else "train"
        for name, person in people.items()
    }


def splits_by_protocol(
    people: Mapping[str, str],
    options: Options,
    record: ImportRecord,
    validation: Sequence[str],
    test: Sequence[str] = (),
) -> dict[str, str]:
    """A split for every sequence of a data set with a convention of its own, ``people`` telling whose each is.

    ``validation`` and ``test`` are the convention's persons, unless others are named. Where ``validation_share`` is
    set, that share of the other persons' sequences is held out instead, so that all of these persons are learnt from.

    Raises:
        UserError: ``validation_share`` is set and persons are named for validation.
    """
    shared = "validation_share" in options.model_fields_set
    if shared and options.validation_subjects:
        raise UserError(
            f"{record.source}: validation_share and validation_subjects are both set; leave one of them out"
        )
    tested = test if options.test_subjects is None else options.test_subjects
    decide = validation if options.validation_subjects is None else options.validation_subjects
    rest = [name for name, person in people.items() if person not in tested]
    held = {name for name in rest if people[name] in decide}
    if shared:
        held = hold_out(rest, options.validation_share, least=LEAST)
        record.note(f"of the {len(rest)} sequences of training persons, {len(held)} are held out for validation")
    return {name: "validation" if name in held else "train" if name in rest else "test" for name in people}


def note_people(record: ImportRecord, validation: Collection[str], test: Collection[str] = ()) -> None:
    """Write down who is held out."""
    record.note(
        f"whole persons held out: {', '.join(sorted(validation)) or 'nobody'} for validation, "
        f"{', '.join(sorted(test)) or 'nobody'} for test"
    )


def share_of_people(options: Options, name: str) -> float:
    """The share of frames that held-out persons should have: what was asked for, or a fifth."""
    return float(getattr(options, name)) if name in options.model_fields_set else PEOPLE_SHARE


def choose_people(counts: Mapping[str, Mapping[str, int]], share: float) -> set[str]:
    """Persons to hold out: two at least, about ``share`` of all frames, doing about what everybody does.

    ``counts`` are frames by person and action. Nobody where fewer than :data:`ENOUGH` are there or the share is 0.
    The same persons for the same counts: of all choices the one with the smallest sum of two deviations, that of the
    share and half that of the mix of actions (total variation); among many persons an evenly spaced one by size.
    """
    if share <= 0 or len(counts) < ENOUGH:
        return set()
    size = {person: sum(actions.values()) for person, actions in counts.items()}
    people = sorted(counts)
    if len(people) > _TRIED:
        return hold_out(sorted(people, key=lambda person: (size[person], person)), share)
    everyone = _mix(counts, people)

    def misfit(chosen: Sequence[str]) -> float:
        mix = _mix(counts, chosen)
        variation = sum(abs(mix.get(action, 0.0) - part) for action, part in everyone.items()) / 2
        return abs(sum(size[person] for person in chosen) / max(sum(size.values()), 1) - share) + variation / 2

    choices: list[tuple[str, ...]] = []
    for count in range(LEAST, len(people) // 2 + 1):
        choices += itertools.combinations(people, count)
    best = min(choices, key=lambda choice: (misfit(choice), choice))
    return set(best)


def _mix(counts: Mapping[str, Mapping[str, int]], people: Sequence[str]) -> dict[str, float]:
    """The share of each action in what these persons do."""
    frames: dict[str, int] = {}
    for person in people:
        for action, count in counts[person].items():
            frames[action] = frames.get(action, 0) + count
    total = max(sum(frames.values()), 1)
    return {action: count / total for action, count in frames.items()}


def check_subjects(options: Options, known: Sequence[str], where: Path) -> None:
    """Refuse persons to hold out that the data set does not have, or that are named for both splits."""
    for option in ("validation_subjects", "test_subjects"):
        for subject in getattr(options, option) or ():
            if subject not in known:
                raise UserError(f"{where}: {option}: no subject '{subject}' here; there are {', '.join(known)}")
    for subject in options.validation_subjects or ():
        if subject in (options.test_subjects or ()):
            raise UserError(f"{where}: subject '{subject}' stands in validation_subjects and in test_subjects")


def hold_out(names: Sequence[str], share: float, least: int = 1) -> set[str]:
    """Evenly spaced ``share`` of ``names``: ``least`` of them at least unless the share is 0, and never all."""
    count = min(max(least, round(share * len(names))), len(names) - 1) if share > 0 and len(names) > 1 else 0
    return {names[int((k + 0.5) * len(names) / count)] for k in range(count)}
