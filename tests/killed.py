"""Kill a client at random moments, many times, and look at what it left.

    python tests/killed.py postgresql+psycopg://app@localhost/test 500

One process that has imported everything forks a client for each round; what the client has begun
and what was acknowledged comes through a pipe, which outlives it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import defaultdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import empty_checkpoint
from sqlalchemy import select
from stores import id_of, thread

from checkpoint_sa import Checkpoint, CheckpointBlob, CheckpointWrite, SQLAlchemySaver
from checkpoint_sa.engine.engines import make_engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Engine

PUTS = 4
LINES = PUTS + 6
"""A client says so many in a round of operations."""
LONGEST_WAIT = 0.003
"""Seconds from the last line that is waited for to the kill: about one operation."""


def values(checkpoint_id: str) -> dict[str, Any]:
    """Return the values of a checkpoint, which follow from its id."""
    return {
        "list": [checkpoint_id] * 50,
        "small": checkpoint_id,
        "bytes": checkpoint_id.encode() * 999,
    }


def client(saver: SQLAlchemySaver, name: str, out: int, numbers: Iterable[int]) -> None:
    """Put, prune, copy and delete; say before and after what it does."""

    def say(*words: str) -> None:
        os.write(out, (" ".join(words) + "\n").encode())

    for number in numbers:
        one, copy = f"{name}-{number}", f"{name}-{number}-copy"
        config = thread(one)
        for i in range(PUTS):
            checkpoint = empty_checkpoint()
            checkpoint["id"] = f"{i}"
            checkpoint["channel_values"] = values(f"{i}")
            checkpoint["channel_versions"] = dict.fromkeys(values(""), f"{i}")
            config = saver.put(config, checkpoint, {}, checkpoint["channel_versions"])
            saver.put_writes(config, [("list", f"{i}")], "task")
            say("put", one, f"{i}")
        say("begin", one, "copy")
        saver.copy_thread(one, copy)
        say("end", one, "copy")
        say("begin", one, "prune")
        saver.prune([one])
        say("end", one, "prune")
        say("begin", one, "delete")
        saver.delete_thread(one)
        say("end", one, "delete")


def run(engine: Engine, rounds: int) -> list[list[str]]:
    """Kill a client in each round; return all that they said."""
    moments = random.Random(0)
    saver = SQLAlchemySaver(engine)
    saver.setup()
    with Path(os.devnull).open("w") as nowhere:
        client(saver, "warm", nowhere.fileno(), range(1))  # compiles the statements
    engine.dispose()
    said: list[list[str]] = []
    for number in range(rounds):
        mine, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                client(saver, f"{number}", theirs, count())
            finally:
                os._exit(1)  # it ends by itself only when it fails
        os.close(theirs)
        with os.fdopen(mine, "rb") as pipe:
            # By what the client has done, not by the clock: a slow machine kills as late.
            first = [pipe.readline() for _ in range(moments.randint(1, LINES))]
            time.sleep(moments.random() * LONGEST_WAIT)
            os.kill(child, signal.SIGKILL)
            lines = b"".join([*first, pipe.read()]).decode().splitlines()
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the client failed"
        said += [line.split() for line in lines]
    return said


def losses(engine: Engine, said: list[list[str]]) -> list[str]:
    """Compare what is stored with what was acknowledged; return what is wrong."""
    put: dict[str, list[str]] = defaultdict(list)
    done: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for verb, name, what in said:
        if verb == "put":
            put[name].append(what)
        else:
            done[name].append((verb, what))
    saver = SQLAlchemySaver(engine)
    wrong = list(_orphans(engine))
    for name, ids in put.items():
        for one, expected in _expected(name, ids, done[name]).items():
            found = list(saver.list(thread(one)))[::-1]
            if [id_of(item.config) for item in found] not in expected:
                wrong.append(f"{one}: {found}, expected one of {expected}")
            wrong += [
                f"{item.config} is not whole"
                for item in found
                if item.checkpoint["channel_values"] != values(id_of(item.config))
            ]
    return wrong


def _expected(name: str, ids: list[str], done: list[tuple[str, str]]) -> dict[str, list[list[str]]]:
    """Return the ids that the threads of one round may have."""
    full = [ids]
    if len(ids) < PUTS:  # one may have been stored, whose acknowledgement was not seen
        full.append([*ids, f"{len(ids)}"])
    states: dict[tuple[str, str], list[list[str]]] = {
        ("begin", "prune"): [ids, ids[-1:]],
        ("end", "prune"): [ids[-1:]],
        ("begin", "delete"): [ids[-1:], []],
        ("end", "delete"): [[]],
    }
    copies = [ids] if ("end", "copy") in done else [ids, []]
    return {name: states.get(done[-1], full) if done else full, f"{name}-copy": copies}


def _orphans(engine: Engine) -> Iterator[str]:
    with engine.connect() as connection:
        threads = set(connection.scalars(select(Checkpoint.thread_id)))
        for model in (CheckpointBlob, CheckpointWrite):
            for name in set(connection.scalars(select(model.thread_id))) - threads:
                yield f"{name}: {model.__tablename__} without checkpoints"


def main(url: str, rounds: int) -> dict[str, Any]:
    """Kill clients; return what they did, and what is wrong."""
    engine = make_engine(url)
    said = run(engine, rounds)
    wrong = losses(engine, said)
    engine.dispose()
    done = [what if verb == "end" else verb for verb, _, what in said if verb != "begin"]
    counts = {verb: done.count(verb) for verb in ("put", "copy", "prune", "delete")}
    return {"killed": rounds, **counts, "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))  # noqa: T201
