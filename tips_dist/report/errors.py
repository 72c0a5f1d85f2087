"""The paper-style tables of one network's errors, from the metrics that an evaluation wrote."""

from __future__ import annotations

from tips_dist.report.tables import Table, number
from tips_dist.runfolder import Metrics

ERROR_COLUMNS = {
    "n_mpjpe": "N-MPJPE as predicted",
    "n_mpjpe_resolved": "N-MPJPE sign-resolved",
    "pa_mpjpe": "PA-MPJPE as predicted",
    "pa_mpjpe_resolved": "PA-MPJPE sign-resolved",
    "pa_mpjpe_reflected": "PA-MPJPE reflected",
}
HEADS = ("N-MPJPE", "resolved", "PA-MPJPE", "resolved", "reflected")  # of ERROR_COLUMNS, for narrow terminals
ERROR_GROUPS = ("action", "part", "camera", "joint")


def error_tables(metrics: Metrics, title: str, groups: tuple[str, ...] = ERROR_GROUPS) -> list[Table]:
    """Tables of one evaluation's ``metrics``: overall with intervals, then by each kind of group, in mm and percent."""
    rows = [
        (label, number(metrics.of(name), 1), _interval(metrics.interval.get(name)))
        for name, label in ERROR_COLUMNS.items()
    ]
    rows += [
        (f"{label}, {how}", number(metrics.of(f"{name}{suffix}"), 1), "")
        for name, label in (("mpjpe", "MPJPE (one scale)"), ("pck_150", "PCK@150, %"), ("auc_150", "AUC 0-150, %"))
        for suffix, how in (("", "as predicted"), ("_resolved", "sign-resolved"))
    ]
    tables = [Table(f"{title}: {metrics.poses} poses, mm", ("metric", "mean", "95 % by sequence"), rows)]
    for kind in groups:
        found = (metrics.by or {}).get(kind, {})
        body = [(name, *(number(values[column], 1) for column in ERROR_COLUMNS)) for name, values in found.items()]
        if body:
            overall = ("all", *(number(metrics.of(column), 1) for column in ERROR_COLUMNS))
            tables.append(Table(f"By {kind}, mm: as predicted, resolved, reflected", (kind, *HEADS), [*body, overall]))
    return tables


def _interval(ends: list[float] | None) -> str:
    return f"[{number(ends[0], 1)}, {number(ends[1], 1)}]" if ends else ""
