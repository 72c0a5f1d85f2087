"""The questions of ``studies/representations.yaml``, (a) to (j), one function each.

``studies/long.yaml`` and ``studies/rates.yaml`` ask the first five again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from studies.answers.material import Ground, Material, StudiedSeed
from studies.answers.tables import Array, Table, apart, delta, mean, over_trials
from tips_dist.dependence import POSES, input_dependence, long_range
from tips_dist.evaluation import metrics, scorecard
from tips_dist.evaluation.measuring import Bench
from tips_dist.evaluation.reference import ReferenceErrors, SupervisedReference
from tips_dist.files import UserError
from tips_dist.models import load_weights
from tips_dist.skeleton import REPRESENTATIONS
from tips_dist.training.validation import validation_rows

NEAR = 1.05  # within 5 % of a minimum
BASE = "solo"
TestErrors = Mapping[tuple[str, int], dict[str, float]]  # (trial, seed) -> Ground.test_errors of its selected weights


def answers(
    study: Material, prior: Material, rounded: Material | None, ground: Ground, reference: SupervisedReference
) -> dict[str, Table]:
    """Every question's table, by its letter; ``prior`` and ``rounded`` are the runs with bone prior and with bf16."""
    tests = test_errors(study, ground)
    return {
        "front": front(study, tests),
        "a": error_at_selection(study),
        "b": staying_near_the_minimum(study),
        "c": ending_near_the_best(study),
        "d": regret(study),
        "e": stopping(study),
        "f": student(study, ground, tests),
        "g": dependence(study, ground),
        "h": mirrored(study, ground),
        "i": left_out(study, tests, reference, ground),
        "j": references(study, prior, reference),
        **({"bf16": precision(study, rounded)} if rounded else {}),
        "trials": trials(study),
    }


def again(study: Material) -> dict[str, Table]:
    """Questions (a) to (e) once more, of a study with solo among its representations."""
    return {
        "a": error_at_selection(study),
        "b": staying_near_the_minimum(study),
        "c": ending_near_the_best(study),
        "d": regret(study),
        "e": stopping(study),
        "trials": trials(study),
    }


def front(study: Material, tests: TestErrors) -> Table:
    """The answer in one table, for the front page: test poses are of sequences that no decision saw."""
    table = Table(
        "N-MPJPE, mm (depth signs resolved), at checkpoints selected without truth; mean over seeds (95 % interval)",
        ["representation", "test", "against solo", "validation: a random checkpoint instead", "validation: oracle",
         "steps from the minimum on within 5 % of it, %"],
    )  # fmt: skip
    errors = {
        name: [tests[history.trial, history.seed]["all"] for history in study.of(name) if history.file]
        for name in study.chosen
    }
    for name, own in errors.items():
        seeds = study.of(name)
        table.add(
            name,
            mean(own),
            None if name == BASE else apart(own, errors[BASE]),
            mean(history.at("random") - history.at("selected") for history in seeds),
            mean(history.at("best") - history.at("selected") for history in seeds),
            mean(100 * near_after(history.errors) for history in seeds),
        )
    return table


def error_at_selection(study: Material) -> Table:
    """(a) Error of the selected checkpoint of each chosen configuration, against solo."""
    table = Table(
        "N-MPJPE (sign-resolved, mm, validation) at the selected checkpoints of the chosen configuration",
        ["representation", "lifter's rate", "risk", "N-MPJPE", "PA-MPJPE", "against solo, mm", "against solo, %",
         "Cliff's delta"],
    )  # fmt: skip
    base = [history.at("selected") for history in study.of(BASE)]
    for name in study.chosen:
        own = [history.at("selected") for history in study.of(name)]
        pa = mean(history.at("selected", "pa_mpjpe_resolved") for history in study.of(name))
        risk = mean(float(np.nanmin(history.risks)) for history in study.of(name))
        versus = (None, None, None) if name == BASE else (apart(own, base), apart(own, base, percent=True),
                                                          delta(own, base))  # fmt: skip
        table.add(name, _rate(study, study.chosen[name]), risk, mean(own), pa, *versus)
    return table


def trials(study: Material) -> Table:
    """Every configuration, so that the choice among them can be followed."""
    table = Table(
        "All configurations (* chosen by risk): N-MPJPE (sign-resolved, mm, validation), mean over seeds",
        ["configuration", "lifter's rate", "risk", "selected", "best", "last", "random"],
    )
    for trial, seeds in study.trials().items():
        star = " *" if trial in study.chosen.values() else ""
        risk = mean(float(np.nanmin(history.risks)) for history in seeds)
        errors = (mean(history.at(name) for history in seeds) for name in ("selected", "best", "last", "random"))
        table.add(f"{trial}{star}", _rate(study, trial), risk, *errors)
    return table


def staying_near_the_minimum(study: Material) -> Table:
    """(b) How long a seed stays near its own minimum error."""
    table = Table(
        "Share of evaluation steps within 5 % of a seed's own minimum error, in percent",
        ["representation", "from the minimum on, chosen", "over the whole run, chosen",
         "from the minimum on, all configurations", "step of the minimum (median), chosen",
         "last against minimum, mm, chosen"],
    )  # fmt: skip
    for name in study.chosen:
        own = study.of(name)
        table.add(
            name,
            mean(100 * near_after(history.errors) for history in own),
            mean(100 * float((h.errors <= NEAR * np.nanmin(h.errors)).mean()) for h in own),
            over_trials((100 * near_after(h.errors) for h in seeds) for seeds in study.trials(name).values()),
            int(np.median([history.steps[int(np.nanargmin(history.errors))] for history in own])),
            mean(history.at("last") - history.at("best") for history in own),
        )
    return table


def near_after(errors: Array) -> float:
    """The share of evaluation steps from the minimum on (itself included) whose error is within 5 % of it."""
    after = errors[int(np.nanargmin(errors)) :]
    return float((after <= NEAR * np.nanmin(errors)).mean())


def ending_near_the_best(study: Material) -> Table:
    """(c) How often a seed's last checkpoint is within 5 % of the best result."""
    table = Table(
        "Seeds whose last checkpoint lies within 5 % of the best error, of the chosen configuration",
        [
            "representation",
            "of any seed of its representation, %",
            "of any seed at all, %",
            "spread of last errors (SD), mm",
        ],
    )
    best = {name: min(float(np.nanmin(h.errors)) for h in study.of(name)) for name in study.chosen}
    for name in study.chosen:
        last = np.array([history.at("last") for history in study.of(name)])
        shares = [mean(100.0 * (last <= NEAR * limit)) for limit in (best[name], min(best.values()))]
        table.add(name, *shares, float(last.std(ddof=1)))
    return table


def regret(study: Material) -> Table:
    """(d) What selection without truth costs against the oracle, beside trivial choices."""
    table = Table(
        f"Regret against the oracle's checkpoint, {len(study.histories)} seeds of all configurations",
        ["choice", "regret, mm", "share of the random-to-oracle gap"],
    )
    for name, row in scorecard.selection_regrets(_card(study)).items():
        table.add(name, row.mm, row.share)
    return table


def stopping(study: Material) -> Table:
    """(e) What stopping would have saved, and what it would have cost."""
    card = _card(study)
    table = Table(
        f"Stopping, replayed over {len(study.histories)} seeds that trained to the end",
        [
            "rule",
            "steps saved, %",
            "mm lost at the selected checkpoint",
            "trials whose best seed was stopped too early",
        ],
    )
    for name, row in scorecard.stopping(card).items():
        table.add(name, row.saved.scaled(100), row.lost_mm, f"{row.best_lost} of {row.trials}")
    return table


def test_errors(study: Material, ground: Ground) -> dict[tuple[str, int], dict[str, float]]:
    """Errors on the test poses of the selected weights of every chosen configuration and of every teacher."""
    teachers = {(row.trial, row.seed) for row in study.selection.teachers}
    return {
        (history.trial, history.seed): ground.test_errors(study.path / history.file)
        for history in study.histories
        if history.file and (history.trial in study.chosen.values() or (history.trial, history.seed) in teachers)
    }


def student(study: Material, ground: Ground, tests: TestErrors) -> Table:
    """(f) The student against its teachers and against the selected lifters."""
    table = Table(
        "N-MPJPE (sign-resolved, mm) on test poses",
        ["lifter", "all", "actions trained on", "actions left out", "student minus it, all"],
    )
    own = ground.test_errors(study.path / "student" / "student.safetensors")
    teachers = [(row.trial, row.seed) for row in study.selection.teachers]
    table.add("student", own["all"], own["seen"], own["left_out"], None)
    for trial, seed in teachers:
        found = tests[trial, seed]
        name = f"teacher: {trial} seed {seed}"
        table.add(name, found["all"], found["seen"], found["left_out"], own["all"] - found["all"])
    for name in (BASE, "torso_legs"):
        found_all = [tests[history.trial, history.seed] for history in study.of(name) if history.file]
        columns = [mean(one[key] for one in found_all) for key in ("all", "seen", "left_out")]
        table.add(f"{name}, selected, mean of its seeds", *columns, mean(own["all"] - one["all"] for one in found_all))
    return table


def dependence(study: Material, ground: Ground) -> Table:
    """(g) Long-range dependence of the selected lifters."""
    table = Table(
        "Share of input gradient that joins keypoints more than three bones apart, in percent",
        ["representation", "long-range dependence", "against solo", "Cliff's delta"],
    )
    found: dict[str, list[float]] = {}
    for name in study.chosen:
        found[name] = []
        for history in study.of(name):
            if history.file:
                lifter, record = load_weights(study.path / history.file)
                inputs = ground.inputs("validation", record.scale, POSES)
                found[name].append(100 * long_range(input_dependence(lifter, inputs)))
        versus = (None, None) if name == BASE else (apart(found[name], found[BASE]), delta(found[name], found[BASE]))
        table.add(name, mean(found[name]), *versus)
    return table


def mirrored(study: Material, ground: Ground) -> Table:
    """(h) Mirrored depths: how often, what resolution gains, and whether it is right."""
    table = Table(
        "Depth signs at the selected checkpoints of all configurations",
        ["representation", "seeds", "parts told mirrored, %", "seeds with a mirrored part, %",
         "N-MPJPE as predicted", "sign-resolved", "gain of resolution, mm", "parts told rightly, %"],
    )  # fmt: skip
    for name in study.chosen:
        groups = study.trials(name)
        told = [[np.array(h.part_signs) for h in seeds if h.file] for seeds in groups.values()]
        right = [[part for h in seeds if h.file for part in signs_right(study, h, ground)] for seeds in groups.values()]
        raw = over_trials((h.at("selected", "n_mpjpe") for h in seeds) for seeds in groups.values())
        gain = over_trials((h.at("selected", "n_mpjpe") - h.at("selected") for h in seeds) for seeds in groups.values())
        table.add(
            name,
            sum(map(len, told)),
            over_trials((100 * float((signs < 0).mean()) for signs in seeds) for seeds in told),
            over_trials((100.0 * bool((signs < 0).any()) for signs in seeds) for seeds in told),
            raw,
            over_trials((h.at("selected") for h in seeds) for seeds in groups.values()),
            gain,
            over_trials((100.0 * value for value in trial) for trial in right),
        )
    return table


def signs_right(study: Material, history: StudiedSeed, ground: Ground) -> list[bool]:
    """For each independent part: does the sign that was told agree with how its depths correlate with the truth?"""
    assert history.file is not None
    lifter, record = load_weights(study.path / history.file)
    rows = validation_rows(ground.poses, history.configuration.training.validation_poses)
    bench = Bench.of(ground.poses, ground.truth.joints, rows, record.scale)
    with torch.inference_mode():
        offsets = lifter(bench.inputs[None].float())[0].double().numpy()
    depths = bench.truth[..., 2] - bench.truth[:, :1, 2]
    parts = REPRESENTATIONS[history.representation].lifters
    return [
        bool(sign * float((offsets[:, list(part.joints)] * depths[:, list(part.joints)]).sum()) > 0)
        for sign, part in zip(history.part_signs, parts, strict=True)
    ]


def left_out(study: Material, tests: TestErrors, reference: SupervisedReference, ground: Ground) -> Table:
    """(i) Test poses of actions that were left out of training, against those of the others."""
    actions = " and ".join(ground.left_out)
    table = Table(
        f"N-MPJPE (sign-resolved, mm) on test poses; left out of training: {actions}",
        ["representation", "actions trained on", "actions left out", "left out minus trained on", "against solo's"],
    )
    gaps: dict[str, list[float]] = {}
    for name in study.chosen:
        found = [tests[history.trial, history.seed] for history in study.of(name) if history.file]
        gaps[name] = [one["left_out"] - one["seen"] for one in found]
        columns = [mean(one[key] for one in found) for key in ("seen", "left_out")]
        table.add(name, *columns, mean(gaps[name]), None if name == BASE else apart(gaps[name], gaps[BASE]))
    counts = _counts(ground)
    seen, unseen = (
        np.average(
            [of_split(reference.test).action[name] for name in names], axis=0, weights=[counts[n] for n in names]
        )
        for names in (
            [name for name in counts if name not in ground.left_out],
            [name for name in counts if name in ground.left_out],
        )
    )
    table.add("supervised", mean(seen), mean(unseen), mean(unseen - seen), apart(unseen - seen, gaps[BASE]))
    return table


def _counts(ground: Ground) -> dict[str, int]:
    """Test poses of each action, as evaluation names actions."""
    names = [
        metrics.action(ground.poses.sequence_names[code]) for code in ground.poses.sequence[ground.poses.rows("test")]
    ]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def references(study: Material, prior: Material, reference: SupervisedReference) -> Table:
    """(j) Between a supervised lifter and weak supervision."""
    table = Table(
        "N-MPJPE (mm, validation), mean over seeds; the bone prior against the same configuration without it",
        ["lifter", "N-MPJPE", "PA-MPJPE", "with minus without the prior", "above supervised"],
    )
    measured = of_split(reference.validation)
    supervised = measured.n_mpjpe
    table.add("supervised (truth)", mean(supervised), mean(measured.pa_mpjpe), None, None)
    for name, trial in prior.chosen.items():
        with_prior = prior.of(name)
        same, without = twin(study, with_prior)
        for label, seeds, versus in (
            (f"{name}, bone prior (weak supervision), {trial}", with_prior, without),
            (f"{name}, no 3D at all, {same}", without, None),
        ):
            own = [history.at("selected") for history in seeds]
            pa = mean(history.at("selected", "pa_mpjpe_resolved") for history in seeds)
            gap = None if versus is None else apart(own, [history.at("selected") for history in versus])
            table.add(label, mean(own), pa, gap, apart(own, supervised))
    return table


def twin(study: Material, seeds: list[StudiedSeed]) -> tuple[str, list[StudiedSeed]]:
    """The trial of the study with the same representation and lifter's rate, and its seeds."""
    rate, groups = seeds[0].configuration.training.generator_lr, study.trials(seeds[0].representation)
    same = next(trial for trial in groups if study.parameters[trial]["training.generator_lr"] == rate)
    return same, groups[same]


def precision(study: Material, rounded: Material) -> Table:
    """What products in bfloat16 cost: each representation of ``rounded`` against its float32 twin."""
    table = Table(
        "N-MPJPE (sign-resolved, mm, validation), mean over seeds: residual blocks in bfloat16 against float32",
        ["representation, checkpoint", "float32", "bf16", "bf16 minus float32, mm", "in %", "Cliff's delta"],
    )
    for name in rounded.chosen:
        bf16 = rounded.of(name)
        _, exact = twin(study, bf16)
        for checkpoint in ("selected", "best", "last"):
            one, other = ([history.at(checkpoint) for history in seeds] for seeds in (bf16, exact))
            versus = apart(one, other), apart(one, other, percent=True), delta(one, other)
            table.add(f"{name}, {checkpoint}", mean(other), mean(one), *versus)
    return table


def _card(study: Material) -> scorecard.Card:
    return scorecard.Card(
        [history for history in study.histories if np.isfinite(history.risks).sum() > scorecard.RISKS]
    )


def _rate(study: Material, trial: str) -> str:
    return f"{study.trials()[trial][0].configuration.training.generator_lr:g}"


def of_split(errors: ReferenceErrors | None) -> ReferenceErrors:
    """The reference's errors on a split that must have rows.

    Raises:
        UserError: it has none.
    """
    if errors is None:
        raise UserError("the data set has no validation or no test poses, so there is no supervised reference")
    return errors
