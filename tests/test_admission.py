"""A request, its first checkpoint and a memory of it: all three or none, whenever a client dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from databases import SYNC, bare_store

if TYPE_CHECKING:
    from stores import Store

__all__ = ["bare_store"]

ADMITTED = Path(__file__).with_name("admitted.py")


@pytest.mark.parametrize("bare_store", SYNC, indirect=True)
def test_a_request_is_never_there_in_part(bare_store: Store) -> None:
    result = subprocess.run(
        [sys.executable, str(ADMITTED), bare_store.url, "12"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    accepted, _, acknowledged, _ = result.stdout.split()
    assert int(accepted) >= int(acknowledged) >= 12
