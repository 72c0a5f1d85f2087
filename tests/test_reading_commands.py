"""The commands that read a run folder, through the command line: status, summary, report, compare, monitor."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Invoke
from tips_dist.runfolder.example import build


@pytest.mark.parametrize("command", ["summary", "status", "resume", "monitor", "select", "distill", "report"])
def test_what_is_no_run_folder_is_said(invoke: Invoke, command: str) -> None:
    code, out, err = invoke(command, "nowhere")
    assert (code, out) == (2, "")
    assert "nowhere" in err
    assert len(err.splitlines()) == 1


def test_summary_as_table_markdown_and_json(invoke: Invoke, tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=1, steps=200)
    code, table, _ = invoke("summary", run)
    assert code == 0
    assert re.search(r"solo +4 +2 healthy, 2 diverged", table)
    code, text, _ = invoke("summary", run, "--markdown")
    assert code == 0
    assert re.search(r"\| solo +\| +4 \| 2 healthy, 2 diverged \|", text)
    code, document, _ = invoke("summary", run, "--json")
    assert code == 0
    assert json.loads(document)["representations"][0]["verdicts"] == {"healthy": 2, "diverged": 2}


def test_summary_by_trial_filtered_and_sorted(invoke: Invoke, tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=3, steps=200)
    code, out, _ = invoke("summary", run, "--by", "trial", "--where", "representation=solo", "--sort", "risk")
    assert code == 0
    table = out[out.index("Trials (mm") :].split("Teachers")[0]
    assert "solo-000" in table
    assert "torso_legs-" not in table
    code, document, _ = invoke("summary", run, "--json", "--sort", "risk", "--descending")
    risks = [trial["risk"]["value"] for trial in json.loads(document)["trials"]]
    assert risks == sorted(risks, reverse=True)
    whole = json.loads((run / "summary.json").read_text())
    assert len(whole["trials"]) == 6
    code, out, _ = invoke("summary", run, "--latex")
    assert code == 0
    assert "\\toprule" in out
    code, out, err = invoke("summary", run, "--where", "speed=3")
    assert (code, out) == (2, "")
    assert "no key 'speed'" in err


def test_report_writes_the_page(invoke: Invoke, tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=1, steps=200)
    record = json.loads((run / "study.json").read_text())
    record["data"]["path"] = str(tmp_path / "gone.pose2d.h5")  # the report does without what has gone
    (run / "study.json").write_text(json.dumps(record))
    code, out, _ = invoke("report", run)
    assert code == 0
    assert out.startswith(f"Wrote {run / 'report.html'}")
    assert "report --poses FILE" in (run / "report.html").read_text()
    code, _, err = invoke("report", run, "--poses", "nowhere.pose2d.h5")
    assert code == 2
    assert "nowhere.pose2d.h5" in err


def test_compare_two_runs(invoke: Invoke, tmp_path: Path) -> None:
    runs = [build(tmp_path / name, trials=1, steps=200) for name in ("first", "second")]
    code, out, _ = invoke("compare", *runs)
    assert code == 0
    assert "solo, first" in out
    assert "solo, second" in out
    code, out, _ = invoke("compare", *runs, "--json")
    assert len(json.loads(out)) == 2
    assert invoke("compare", runs[0])[0] == 2


def test_follow_shows_each_trial_and_ends_with_the_run(invoke: Invoke, tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=1, steps=200)
    code, out, _ = invoke("status", run, "--follow")
    assert code == 0
    assert re.search(r"solo-000 finished.*2 diverged", out)
    record = json.loads((run / "trials/solo-000/trial.json").read_text())
    (run / "trials/solo-000/trial.json").write_text(json.dumps(record | {"state": "pending", "outcome": None}))
    code, out, _ = invoke("status", run, "--follow")
    assert code == 0
    assert "Nobody works on this run; go on with: tips-dist resume" in out


def test_status_reads_the_folder(invoke: Invoke, tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=1, steps=200)
    code, out, _ = invoke("status", run, "--json")
    assert code == 0
    assert json.loads(out)["trials"]["finished"] == 2


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=1, steps=200)
    command = f"{shlex.quote(sys.executable)} -m tips_dist.cli summary {shlex.quote(str(run))} --json | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr


def test_monitor_says_when_its_port_is_taken(invoke: Invoke, tmp_path: Path) -> None:
    run = build(tmp_path / "run", trials=1, steps=100)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        code, _, err = invoke("monitor", run, "--port", port)
    assert code == 2
    assert f"--port {port}: TensorBoard cannot listen on 127.0.0.1:{port}" in err
