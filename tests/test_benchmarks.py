"""The benchmarks run: a few rounds of each part on SQLite, which needs no server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).resolve().parents[1] / "benchmarks" / "run.py"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), "--output", str(folder), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_every_part_that_needs_no_server_makes_its_figures(tmp_path: Path) -> None:
    done = run(tmp_path, "--quick", "--engines", "sqlite", "aiosqlite")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "benchmarks.json").read_text())
    assert set(figures["latency"]) == {"sqlite", "aiosqlite"}
    for part in figures.values():
        assert all(entry["rows"] for entry in part.values())
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| aiosqlite | get_tuple |" in page


def test_a_partial_run_keeps_the_other_figures(tmp_path: Path) -> None:
    kept = {"rows": [{"operation": "put", "ours us": 12345}], "server": "8"}
    told = {"date": "2026-01-01", "machine": "another", "versions": "older"}
    earlier = {"latency": {"aiosqlite": kept | told}}
    (tmp_path / "benchmarks.json").write_text(json.dumps(earlier))
    done = run(tmp_path, "--quick", "--engines", "sqlite", "--parts", "latency")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "benchmarks.json").read_text())
    assert figures["latency"]["aiosqlite"] == kept | told
    assert "12345" in (tmp_path / "benchmarks.md").read_text()


def test_quick_figures_do_not_get_into_the_docs() -> None:
    done = run(RUN.parents[1] / "docs", "--quick")
    assert done.returncode == 2
    assert "give another --output" in done.stderr
