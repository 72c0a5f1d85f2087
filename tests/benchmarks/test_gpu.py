"""``make gpu`` as far as it needs no card: its arithmetic, its table, and that one section's fall stops no other."""

import json
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_proofs
from benchmarks.gpu_bench import Bench, Row


def bench(**more: float) -> Bench:
    return Bench(torch.device("cpu"), quick=True, **more)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["gpu"])
    assert gpu.main() == 0
    assert capsys.readouterr().out == (
        "make gpu: torch sees no card here, so nothing was measured; `tips-dist doctor` says why\n"
    )


def test_sections_stand_alone_and_are_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def falls(bench: Bench) -> None:
        """It falls."""
        raise RuntimeError("CUDA error: an\nillegal thing")

    def holds(bench: Bench) -> None:
        """It holds."""
        bench.add("A figure", 1.5, "{:.1f}x")
        bench.proven("A proof", holds=True)

    code = gpu.measure(bench(), [falls, holds, gpu_proofs.graph], "a machine", tmp_path / "gpu.json")
    assert code == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["machine"] == "a machine"
    assert [(row["title"], row["text"], row["state"]) for row in found["rows"]] == [
        ("It falls", "RuntimeError: CUDA error: an illegal thing", "failed"),
        ("A figure", "1.5x", "ok"),
        ("A proof", "yes", "ok"),
        ("The whole step captured as one CUDA graph: the same numbers, how much faster", "needs a card", "skipped"),
    ]
    assert "| A figure | 1.5x |  |" in capsys.readouterr().out
    assert gpu.measure(bench(), [holds], "", tmp_path / "gpu.json") == 0


def test_what_the_time_does_not_reach_is_skipped() -> None:
    late = bench(deadline=time.monotonic() - 1)
    late.run(gpu_proofs.golden)
    assert late.rows == [Row("Golden numbers, card against CPU", None, "out of time", "skipped")]


def test_what_does_not_hold_is_a_failure() -> None:
    one = bench()
    one.add("x", 1.0, good=False)
    one.proven("y", holds=False)
    assert [row.state for row in one.rows] == ["failed", "failed"]


def test_every_section_says_what_it_does() -> None:
    titles = [section.__doc__ for section in gpu.SECTIONS]
    assert all(titles)
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("section", [gpu_proofs.golden, gpu_proofs.resume, gpu_proofs.determinism])
def test_proofs_hold_on_the_processor(section: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    one = bench()
    one.run(section)  # type: ignore[arg-type]
    assert [row.state for row in one.rows] == ["ok"] * len(one.rows)
    assert one.rows


def test_histories_are_compared_by_their_losses() -> None:
    rows = [{"step": 10, "loss": 2.0, "tiny": 1e-6}]
    assert gpu_proofs.furthest(rows, rows) == 0
    assert gpu_proofs.furthest([{"step": 10, "loss": 2.2, "tiny": 9e-6}], rows) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="zip"):
        gpu_proofs.furthest(rows, rows * 2)


def test_the_roof_is_products_or_memory() -> None:
    assert gpu.intensity(256, 256) == pytest.approx(2 * 256**3 / (4 * 3 * 256**2))
    assert gpu.attainable(100.0, 10.0, 5.0) == 50
    assert gpu.attainable(100.0, 10.0, 50.0) == 100
