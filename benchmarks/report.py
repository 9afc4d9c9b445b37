"""The figures: kept in docs/benchmarks.json, shown in docs/benchmarks.md.

The figures of a part on an engine are replaced only by a whole run of that part on that engine, and
carry the date, the machine and the versions of that run.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

DOCS = Path(__file__).resolve().parents[1] / "docs"
PACKAGES = (
    "langgraph-checkpoint-sa",
    "langgraph",
    "langgraph-checkpoint",
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint-sqlite",
    "langgraph-checkpoint-mysql",
    "sqlalchemy",
    "psycopg",
    "asyncpg",
    "PyMySQL",
    "aiomysql",
    "aiosqlite",
    "pgvector",
    "sqlite-vec",
    "pysqlite3-binary",
)
HEAD = """# Benchmarks

Our savers beside LangGraph's own. Made by `nox -s benchmark`; not edited by hand.

## Summary

A number above 1 says how many times as fast our saver is: the time of LangGraph's saver divided by
ours, or our cycles per second divided by theirs. The verdict is **ahead** or **behind** if the 95 %
interval of the ratio excludes 1 or, for throughput, if the difference is more than 5 %.
"""
METHOD = """## Method

Both savers run in one process on one server, each in a database of its own, with pools of one size
(langgraph-checkpoint-mysql and -sqlite have one connection), taking turns in random order. A
peer/ours above 1 says how many times as long the peer takes; 95 % is a bootstrap interval of that
ratio. Servers have the durability that is their default (PostgreSQL: fsync and synchronous_commit
on; InnoDB: flushed at each commit, no binary log); a given server has its own. SQLite is as each
saver sets it up, which is journal_mode=WAL and synchronous=FULL for both. Where the peer's columns
are empty, it can't make its tables there. The summary's chat has LangGraph's default durability,
"async"; its tasks share a pool of 20 connections.

The slower the processor, the more our share of CPU weighs. Latency, Round trips and Chat are of a
day on which this machine's was half as fast as for the other parts: LangGraph's `put` on SQLite
took 1,227 us then, 529 before.
"""
BEHIND = """## Where it is behind

**One task on SQLite.** LangGraph's saver keeps a checkpoint with all its values in one row, and one
connection open. Ours stores each value once (see Size) and finds it by its version. By
`python benchmarks/sections.py sqlite` a `put` takes 1.6 times as long as the peer's: 44 % of it is
the commit (12.6 pages, where the peer writes 7.5), 13 % LangGraph's serializer, 9 % documents and
keys, 9 % SQL, 8 % the pool, the rest the queue, retry and what holds them together. A `get_tuple`
takes 1.9 times as long: 40 % is LangGraph's deserializer, which the peer pays too, 18 % SQL, 16 %
rows, 9 % the pool. Tables WITHOUT ROWID, larger pages or no index of runs don't make it faster. To
be equal, ours would have to store each checkpoint in one row, with the values that didn't change.

**aiosqlite.** Each statement is a hop to another thread: a `put` takes four, the peer three. A
`put_writes` and a `get_tuple` take one; on a slow processor SQLAlchemy's pool and greenlet outweigh
the hops that they save.

**`put` and `put_writes` with psycopg** are equal, or a little behind: both take one round trip, and
about as much CPU (see Latency). By `python benchmarks/sections.py pg-psycopg` the driver and the
server are 64 % of a `put`, LangGraph's serializer 10 %, documents and keys 8 %, the pool 7 %.

**`delete_thread` and `get_delta_channel_history`.** A thread is deleted from four tables by five
statements, each of which must see the commits before it; the peer has three. With psycopg they are
sent together, since the History below was measured. For a history the versions of each ancestor are
read, to find the nearest stored value.

**The memory.** A `get` on SQLite pays for the pool, the transaction, the times and the JSON. A
`search` there sorts by a window function, so that large values aren't sorted. One `put` with
psycopg, and batches of 100, are a little behind on some drivers. An exact vector search among
10,000 on PostgreSQL waits for parallel workers, which the planner starts.

**The import.** SQLAlchemy is the larger part; an application that uses it has loaded it already.
"""
SUMMARY: dict[str, tuple[str, dict[str, Any]]] = {
    "put": ("latency", {"operation": "put"}),
    "put_writes": ("latency", {"operation": "put_writes"}),
    "get_tuple": ("latency", {"operation": "get_tuple"}),
    "list": ("latency", {"operation": "list"}),
    "chat of 20 turns": ("chat", {"durability": "async"}),
    "16 tasks, 2 ms away": ("throughput", {"round trip ms": 2, "tasks": 16}),
}
"""Column of the summary -> the part and the row that it shows."""
EQUAL = 0.05
"""A ratio without an interval counts as equal within this distance of 1."""


def about_this_machine() -> dict[str, str]:
    """Return what the figures of this run depend on."""
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} x {model}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def _commit() -> str:
    """Return the last commit that changed the package; "" outside a repository."""
    command = ["git", "log", "-1", "--format=%h", "--", "checkpoint_sa"]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip()


class Report:
    """All figures, of this run and of earlier ones."""

    def __init__(self, folder: Path = DOCS) -> None:
        self.folder = folder
        self.path = folder / "benchmarks.json"
        self.figures: dict[str, dict[str, Any]] = (
            json.loads(self.path.read_text()) if self.path.exists() else {}
        )

    def add(self, part: str, engine: str, server: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the figures of a part on an engine."""
        entry = {**about_this_machine(), "server": server, "rows": rows}
        self.figures.setdefault(part, {})[engine] = entry

    def write(self, parts: Mapping[str, ModuleType]) -> None:
        """Write the figures and the page."""
        self.path.write_text(json.dumps(self.figures, indent=1) + "\n")
        pictures = plots.draw(self.figures, self.folder)
        sections = [HEAD, table(summary(self.figures))]
        sections += [
            f"![{plots.TITLES[name]}]({pictures[name]})\n"
            for name in plots.TITLES
            if name in pictures
        ]
        sections += [BEHIND, METHOD]
        runs: dict[str, list[str]] = {}
        for name, part in parts.items():
            engines = self.figures.get(name, {})
            if not engines:
                continue
            rows = [{"engine": engine, **row} for engine, e in engines.items() for row in e["rows"]]
            picture = f"![{part.TITLE}]({pictures[name]})\n\n" if name in pictures else ""
            sections.append(f"## {part.TITLE}\n\n{part.ABOUT}\n\n{picture}{table(rows)}")
            for engine, e in engines.items():
                commit = f"commit {e['commit']}, " if e.get("commit") else ""
                run = f"{commit}{e['date']}, {e['machine']}, {e['versions']}"
                runs.setdefault(run, []).append(f"{name} on {engine} ({e['server']})")
        made = [f"- {run}: {'; '.join(what)}." for run, what in runs.items()]
        sections.append("## Where and when\n\n" + "\n".join(made))
        (self.folder / "benchmarks.md").write_text("\n".join(sections).strip() + "\n")


def summary(figures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a row for each engine that has a latency: its verdict in each column of SUMMARY."""
    return [
        {"engine": engine}
        | {
            column: verdict(figures.get(part, {}).get(engine, {}).get("rows", ()), key)
            for column, (part, key) in SUMMARY.items()
        }
        for engine in figures.get("latency", {})
    ]


def verdict(rows: Sequence[Mapping[str, Any]], key: Mapping[str, Any]) -> str:
    """Return whether ours is ahead in the row with this key, and the ratio; "" without the row."""
    row = next((row for row in rows if key.items() <= row.items()), None)
    if row is None:
        return ""
    ratio = row.get("peer/ours", row.get("ours/peer"))
    if ratio is None:
        return "no peer"
    interval = row.get("95 %")
    low, high = map(float, interval.split("-")) if interval else (ratio - EQUAL, ratio + EQUAL)
    word = "**ahead**" if low > 1 else "**behind**" if high < 1 else "equal"
    return f"{word} {ratio:.2f}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([row.get(c, "") for c in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"
