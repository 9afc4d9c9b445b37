"""Clients that are killed leave whole checkpoints, and every acknowledged one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from databases import SYNC

if TYPE_CHECKING:
    from stores import Store

KILLS = 75


@pytest.mark.parametrize("migrated_store", SYNC, indirect=True)
def test_a_client_killed_at_random_moments_leaves_nothing_half_done(store: Store) -> None:
    script = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, str(script), store.url, str(KILLS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["killed"] == KILLS
    assert found["put"] > KILLS
    assert found["prune"] > 0
