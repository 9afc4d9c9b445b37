"""Measure checkpoint_sa beside LangGraph's savers: `python benchmarks/run.py --help`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import chat
import history
import imports
import latency
import report
import runs
import size
import store
import throughput
import trips
import vectors
from peers import Servers
from stores import KINDS

PARTS = {
    "latency": latency,
    "trips": trips,
    "throughput": throughput,
    "chat": chat,
    "history": history,
    "runs": runs,
    "size": size,
    "store": store,
    "vectors": vectors,
    "imports": imports,
}


def main() -> int:
    """Run the parts asked for; return 1 if an engine is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--engines", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--quick", action="store_true", help="a few rounds: does it run?")
    parser.add_argument("--output", type=Path, default=report.DOCS, help="folder of the figures")
    options = parser.parse_args()
    if options.quick and options.output.resolve() == report.DOCS:
        parser.error("--quick figures mean nothing: give another --output")
    options.output.mkdir(parents=True, exist_ok=True)
    figures = report.Report(options.output)
    missing = False
    with tempfile.TemporaryDirectory() as folder:
        usual = Servers(Path(folder))
        others = Servers(Path(folder), vectors.SERVERS)
        try:
            with usual.stack, others.stack:
                for name in options.parts:
                    part = PARTS[name]
                    servers = others if part is vectors else usual
                    for engine in (e for e in part.ENGINES if e in options.engines):
                        if reason := servers.missing(engine):
                            print(f"{name} {engine}: {reason}", file=sys.stderr)
                            missing = True
                            continue
                        rows = asyncio.run(part.run(servers, engine, quick=options.quick))
                        print(f"{name} {engine}\n{report.table(rows)}", flush=True)
                        figures.add(name, engine, servers.version(engine), rows)
        finally:
            figures.write(PARTS)
    return int(missing)


if __name__ == "__main__":
    sys.exit(main())
