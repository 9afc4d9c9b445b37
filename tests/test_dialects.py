"""The examples of dialects: each runs the public suite on its engine, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_sql import DIALECTS, dialects, text

from checkpoint_sa.dialects import follow_sqlite

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.timeout(900)  # DuckDB takes a minute of processor time
@pytest.mark.parametrize("example", ["dialect", "duckdb"])
def test_an_example_passes_the_suite(example: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "."]
    ran = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-p", "no:asyncio"],
        cwd=EXAMPLES / example,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr


def test_a_dialect_follows_sqlite() -> None:
    other = dict(dialects())["sqlite"]
    other.name = "like_sqlite"
    follow_sqlite(other.name)
    assert text(other) == text(DIALECTS["sqlite"])
