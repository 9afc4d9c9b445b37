"""The cost of a saver's import beyond langgraph.checkpoint.base, and what it must not load."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from statistics import median
from typing import TYPE_CHECKING, Any

from measure import interval, shuffled

if TYPE_CHECKING:
    from peers import Servers

TITLE = "Import"
ABOUT = (
    "Time and modules that the import of a saver adds to `langgraph.checkpoint.base`, in a new "
    "process each time; medians."
)
ENGINES = ("sqlite",)
SAVERS = {
    "ours": ("checkpoint_sa", "SQLAlchemySaver"),
    "peer": ("langgraph.checkpoint.postgres", "PostgresSaver"),
}
UNWANTED = ("alembic", "psycopg", "asyncpg", "pymysql", "aiomysql", "aiosqlite")
PROGRAM = """
import json, sys, time
import langgraph.checkpoint.base
before, begin = set(sys.modules), time.perf_counter()
from {module} import {saver}
seconds = time.perf_counter() - begin
print(json.dumps([seconds, sorted(set(sys.modules) - before)]))
"""


async def run(servers: Servers, kind: str, *, quick: bool) -> list[dict[str, Any]]:  # noqa: ARG001
    """Alternate between the sides, a process each."""
    seconds: dict[str, list[float]] = {name: [] for name in SAVERS}
    loaded: dict[str, list[str]] = {}
    # Modules are compiled once, as wherever a package is installed.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(1 if quick else 15):
        for name in shuffled(SAVERS):
            module, saver = SAVERS[name]
            program = PROGRAM.format(module=module, saver=saver)
            answer = await asyncio.to_thread(
                subprocess.check_output, [sys.executable, "-c", program], env=environment
            )
            took, loaded[name] = json.loads(answer)
            seconds[name].append(took)
    low, high = interval(seconds["peer"], seconds["ours"])
    ratio = f"{median(seconds['peer']) / median(seconds['ours']):.2f} ({low:.2f}-{high:.2f})"
    return [
        {
            "import": ".".join(SAVERS[name]),
            "ms": round(median(seconds[name]) * 1000),
            "modules": len(loaded[name]),
            "of alembic and the drivers": ", ".join(m for m in UNWANTED if m in loaded[name])
            or "none",
            "peer/ours": ratio if name == "ours" else "",
        }
        for name in SAVERS
    ]
