"""Kill clients that accept requests as examples/admission does, and look at what they left.

    python tests/admitted.py postgresql+psycopg://app@localhost/test 100

A request has its row, its first checkpoint and its memory, or none of the three; and those whose
acceptance was acknowledged are there.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from sqlalchemy import Engine, select

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "admission"))

import admission  # type: ignore[import-not-found]

from checkpoint_sa import Checkpoint, StoreItem
from checkpoint_sa.engine.engines import make_engine
from checkpoint_sa.engine.transactions import transactional


def open_engine(url: str) -> Engine:
    return transactional(make_engine(url))


def client(engine: Engine, out: int) -> None:
    """Accept requests until the end, and say which."""
    while True:
        request_id = admission.accept(engine, "ada", "?")
        os.write(out, f"{request_id}\n".encode())


def kill_one(engine: Engine, acknowledged: int) -> set[str]:
    """Kill a client a moment after so many acknowledgements; return those it gave."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            client(engine, write)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as lines:
        said = [lines.readline() for _ in range(acknowledged)]
        time.sleep(random.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        said += lines.readlines()
    os.waitpid(child, 0)
    return {line.strip() for line in said if line.endswith("\n")}


def main(url: str, rounds: int) -> None:
    """Print how many requests there are, or fail."""
    engine = open_engine(url)
    admission.setup(engine)
    acknowledged = {admission.accept(engine, "ada", "?")}  # compiles the statements
    for i in range(rounds):
        engine.dispose()  # a fork must not share connections
        acknowledged |= kill_one(engine, 1 + i % 3)
        with engine.connect() as connection:
            rows = set(connection.scalars(select(admission.requests.c.id)))
            threads = set(connection.scalars(select(Checkpoint.thread_id)))
            items = set(connection.scalars(select(StoreItem.key)))
        assert rows == threads == items, (rows ^ threads, rows ^ items)
        assert acknowledged <= rows, acknowledged - rows
    answers = admission.work(engine)
    assert len(answers) == len(rows)
    assert admission.work(engine) == []
    engine.dispose()
    sys.stdout.write(f"{len(rows)} requests, {len(acknowledged)} acknowledged\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
