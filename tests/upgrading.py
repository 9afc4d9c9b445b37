"""A process that upgrades a database when a line arrives: `python tests/upgrading.py URL`.

It says "ready" first, then that it applies revisions, and at the end its revision. With a second
argument it stops after its first statement of a revision, says so, and waits for another line.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, event

from checkpoint_sa import migrate
from checkpoint_sa.engine import engines, waiting

if TYPE_CHECKING:
    from sqlalchemy import Connection

APPLYING = "applying"
STOPS = "stops"


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def tell_of_revisions() -> None:
    run = MigrationContext.run_migrations

    def tell(self: MigrationContext, **kw: Any) -> None:
        before = self.get_current_heads()
        run(self, **kw)
        if self.get_current_heads() != before:
            say(APPLYING)

    MigrationContext.run_migrations = tell  # type: ignore[method-assign]


def stop_once() -> None:
    """Wait for a line after the first table of a revision."""
    done: list[str] = []

    def stop(connection: Connection, _: object, statement: str, *__: object) -> None:
        if "CREATE TABLE checkpoints" in statement and not done:
            done.append(statement)
            say(STOPS)
            waiting.offload(connection, sys.stdin.readline)

    event.listen(Engine, "after_cursor_execute", stop)


def main(url: str, stops: str = "") -> None:
    tell_of_revisions()
    say("ready")
    sys.stdin.readline()
    if stops:
        stop_once()
    if engines.is_async(url):
        asyncio.run(migrate.aupgrade(url))
    else:
        migrate.upgrade(url)
    deadline = time.monotonic() + 5
    while (found := migrate.current(url)) != migrate.HEAD and time.monotonic() < deadline:
        time.sleep(0.05)  # a proxy may lead to a node that doesn't show the last commit yet
    say(str(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
