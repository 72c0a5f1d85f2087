"""What needs the networks themselves: questions (f) to (j) of ``studies/parts.yaml``, and (m)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from studies.answers.claims import BASE, PARTS, TestErrors
from studies.answers.material import Array, Ground, Material, Rows, StudiedSeed
from studies.answers.tables import Cell, Table, apart, delta, mean
from tips_dist.dependence import POSES, input_dependence, long_range
from tips_dist.evaluation.measuring import Bench
from tips_dist.evaluation.reference import ReferenceErrors, SupervisedReference
from tips_dist.files import UserError
from tips_dist.models import load_weights
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.training.validation import validation_rows

SPLITS = ("validation", "test")


def student(study: Material, ground: Ground, tests: TestErrors) -> Table:
    """(f) The student against its teachers and against the selected lifters, on test people."""
    table = Table(
        "N-MPJPE (mm, depth signs resolved) on test people; intervals over seeds, those of single networks over people",
        ["lifter", "all", "actions trained on", "actions that training lacks", "student minus it, all"],
    )
    own = ground.pose_errors(study.path / "student" / "student.safetensors")
    files = [study.path / teacher.file for teacher in study.selection.teachers]
    selected = [study.path / seed.file for name in study.chosen for seed in study.of(name) if seed.file]

    def one(label: str, errors: Array) -> None:
        versus = None if errors is own else ground.over_people(own - errors)["all"]
        table.add(label, *ground.over_people(errors).values(), versus)

    def several(label: str, found: Sequence[dict[str, float]]) -> None:
        columns = [mean(errors[key] for errors in found) for key in ("all", "seen", "lacking")]
        table.add(label, *columns, mean(float(own.mean()) - errors["all"] for errors in found))

    one("student", own)
    several(f"its {len(files)} teachers, mean", [ground.test_errors(file) for file in files])
    one("its best teacher (needs truth)", _best(files, ground))
    for name in study.chosen:
        several(f"{name}, selected, mean of its seeds", tests[name])
    one("the best selected lifter of all (needs truth)", _best(selected, ground))
    return table


def _best(files: Sequence[Path], ground: Ground) -> Array:
    """Errors at the test poses of whichever weights have the lowest mean."""
    return min((ground.pose_errors(file) for file in files), key=lambda errors: float(errors.mean()))


def dependence(study: Material, ground: Ground) -> Table:
    """(g) Long-range dependence of the selected lifters."""
    table = Table(
        "Share of input gradient that joins keypoints more than three bones apart, in percent",
        ["representation", *(f"{split} people{tail}" for split in SPLITS for tail in ("", ", against solo")),
         "Cliff's delta on test"],
    )  # fmt: skip
    scale = study.folder.study.data.scale
    found: dict[str, dict[str, list[float]]] = {split: {} for split in SPLITS}
    for name in study.chosen:
        cells: list[Cell] = []
        for split, shares in found.items():
            inputs = ground.inputs(split, scale, POSES)
            shares[name] = [100 * long_range(input_dependence(lifter, inputs)) for lifter, _ in study.lifters(name)]
            cells += [mean(shares[name]), None if name == BASE else apart(shares[name], shares[BASE])]
        table.add(name, *cells, None if name == BASE else delta(found["test"][name], found["test"][BASE]))
    return table


def mirrored(study: Material, ground: Ground) -> Table:
    """(h) Mirrored depths: how often, what resolution gains, and whether it is right."""
    table = Table(
        "Depth signs at the selected checkpoints, validation people",
        ["representation", "parts told mirrored, %", "seeds with a mirrored part, %", "poses held mirrored, %",
         "N-MPJPE as predicted", "sign-resolved", "gain of resolution, mm", "parts told rightly, %"],
    )  # fmt: skip
    for name in study.chosen:
        seeds = [seed for seed in study.of(name) if seed.file]
        signs = np.array([seed.part_signs for seed in seeds])
        rows = validation_rows(ground.poses, seeds[0].configuration.training.validation_poses)
        right = [100.0 * part for seed in seeds for part in signs_right(study, seed, ground, rows)]
        table.add(
            name,
            mean(100.0 * bool(one) for one in (signs < 0).ravel()),
            mean(100.0 * bool(one) for one in (signs < 0).any(axis=-1).ravel()),
            mean(100.0 * _mixed(seed) for seed in seeds),
            mean(seed.at("selected", "n_mpjpe") for seed in seeds),
            mean(seed.at("selected") for seed in seeds),
            mean(seed.at("selected", "n_mpjpe") - seed.at("selected") for seed in seeds),
            mean(right),
        )
    return table


def mirrored_on_test(study: Material, ground: Ground) -> Table:
    """(h) on test people: the signs were told on validation people. (Added after the run.)"""
    table = Table(
        "N-MPJPE (mm) at the selected checkpoints, test people",
        ["representation", "as predicted", "sign-resolved", "gain of resolution", "parts told rightly, %"],
    )
    for name in study.chosen:
        seeds = [seed for seed in study.of(name) if seed.file]
        files = [study.path / str(seed.file) for seed in seeds]
        plain, turned = (
            [float(ground.pose_errors(file, resolved=resolved).mean()) for file in files] for resolved in (False, True)
        )
        rows = ground.poses.rows("test")
        right = [100.0 * part for seed in seeds for part in signs_right(study, seed, ground, rows)]
        table.add(name, mean(plain), mean(turned), mean(np.subtract(plain, turned)), mean(right))
    return table


def _mixed(seed: StudiedSeed) -> float:
    assert seed.mirrored is not None
    assert seed.truth.selected is not None
    return float(seed.mirrored[seed.steps.index(seed.truth.selected.step or 0)])


def signs_right(study: Material, history: StudiedSeed, ground: Ground, rows: Rows) -> list[bool]:
    """For each independent part: does the sign that was told agree with how its depths correlate with the truth?"""
    assert history.file is not None
    lifter, record = load_weights(study.path / history.file)
    bench = Bench.of(ground.poses, ground.truth.joints, rows, record.scale)
    with torch.inference_mode():
        offsets = lifter(bench.inputs[None].float())[0].double().numpy()
    depths = bench.truth[..., 2] - bench.truth[:, :1, 2]
    parts = REPRESENTATIONS[history.representation].lifters
    return [
        bool(sign * float((offsets[:, list(part.joints)] * depths[:, list(part.joints)]).sum()) > 0)
        for sign, part in zip(history.part_signs, parts, strict=True)
    ]


def unseen(study: Material, ground: Ground, tests: TestErrors, reference: SupervisedReference) -> Table:
    """(i) Test people at actions that training had and lacked, against the validation people."""
    table = Table(
        f"N-MPJPE (mm, depth signs resolved); training lacks {' and '.join(ground.lacking)}",
        ["lifter", "validation people", "test people, actions trained on", "actions that training lacks",
         "lacking minus trained on", "against solo's"],
    )  # fmt: skip
    gaps: dict[str, list[float]] = {}
    for name in study.chosen:
        gaps[name] = [one["lacking"] - one["seen"] for one in tests[name]]
        files = [study.path / seed.file for seed in study.of(name) if seed.file]
        whole = mean(ground.test_errors(file, "validation")["all"] for file in files)
        columns = [mean(one[key] for one in tests[name]) for key in ("seen", "lacking")]
        versus = None if name == BASE else apart(gaps[name], gaps[BASE])
        table.add(name, whole, *columns, mean(gaps[name]), versus)
    counts = _counts(ground)
    seen, lacking = (
        _weighted(of_split(reference.test).action, names, counts)
        for names in ([n for n in counts if n not in ground.lacking], list(ground.lacking))
    )
    gained = (lacking - seen).tolist()
    whole = mean(of_split(reference.validation).n_mpjpe)
    table.add(
        "supervised (truth)",
        whole,
        mean(seen),
        mean(lacking),
        mean(gained),
        apart(gained, gaps[BASE]),
    )
    return table


def _weighted(errors: Mapping[str, Sequence[float]], actions: Sequence[str], counts: Mapping[str, int]) -> Array:
    """The mean error over some actions' poses, (S,)."""
    weights = [counts[name] for name in actions]
    return np.asarray(np.average([errors[name] for name in actions], axis=0, weights=weights), np.float64)


def _counts(ground: Ground) -> dict[str, int]:
    """Test poses of each action."""
    names, counts = np.unique(ground.actions[ground.poses.rows("test")], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def references(study: Material, bones: Material, ground: Ground, reference: SupervisedReference) -> Table:
    """(j) Between a supervised lifter and weak supervision, all of one size; on test people."""
    table = Table(
        "N-MPJPE (mm, depth signs resolved) on test people, mean over seeds",
        ["lifter", "N-MPJPE", "against the same without the bone prior", "above supervised"],
    )
    truth = of_split(reference.test).n_mpjpe
    table.add("supervised (truth)", mean(truth), None, None)
    for name in bones.chosen:
        pair = [
            [ground.test_errors(run.path / seed.file)["all"] for seed in run.of(name) if seed.file]
            for run in (study, bones)
        ]
        table.add(f"{name}, no 3D at all", mean(pair[0]), None, apart(pair[0], truth))
        table.add(f"{name}, bone prior (weak supervision)", mean(pair[1]), apart(*pair[::-1]), apart(pair[1], truth))
    return table


def noise(clean: Material, noisy: Material, ground: Ground, noisy_ground: Ground) -> Table:
    """(m) What a detector's noise costs: trained and used on it, and only used on it; on test and validation people."""
    table = Table(
        "N-MPJPE (mm, depth signs resolved), mean over seeds, selected checkpoints",
        ["people, representation", "clean", "trained and used on noise", "costs", "trained on clean, used on noise",
         "costs "],
    )  # fmt: skip
    for split in SPLITS[::-1]:
        costs: dict[str, list[list[float]]] = {}
        for name in noisy.chosen:
            of_clean, of_noisy = (
                [run.path / seed.file for seed in run.of(name) if seed.file] for run in (clean, noisy)
            )
            without = [ground.test_errors(file, split)["all"] for file in of_clean]
            both = [noisy_ground.test_errors(file, split)["all"] for file in of_noisy]
            used = [noisy_ground.test_errors(file, split)["all"] for file in of_clean]
            costs[name] = [[b - float(np.mean(without)) for b in both], np.subtract(used, without).tolist()]
            cells = [mean(without), mean(both), apart(both, without), mean(used), mean(costs[name][1])]
            table.add(f"{split}, {name}", *cells)
        versus = [apart(costs[PARTS][kind], costs[BASE][kind]) for kind in (0, 1)]
        table.add(f"{split}, {PARTS}' cost minus {BASE}'s", None, None, versus[0], None, versus[1])
    return table


def of_split(errors: ReferenceErrors | None) -> ReferenceErrors:
    """The reference's errors on a split that must have rows.

    Raises:
        UserError: it has none.
    """
    if errors is None:
        raise UserError("the data set has no validation or no test poses, so there is no supervised reference")
    return errors
