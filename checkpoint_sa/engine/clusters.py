"""The right to migrate a cluster whose nodes all take writes: Galera, Group Replication.

`GET_LOCK` is local to a node. What such a cluster certifies is the change of a row: of two that
change one row on two nodes, the first to commit wins, and the other's transaction is rolled back.
So the right is a row, in a table that is made when it is first needed, by CREATE TABLE IF NOT
EXISTS: the same on all nodes, in whichever order they come.

Unlike a lock, a row stays when its holder dies. So the holder changes it every two seconds, on a
connection of its own, and a waiter that has looked for 30 seconds and seen no change takes it over.
No clock is compared with another one, and the time that a waiter's statements take doesn't count:
Galera holds them up, like the holder's, while it changes a table. A holder that was stopped for
long, and has perhaps lost the right, sends no statement before it has changed its row again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from sqlalchemy import (
    column,
    delete,
    event,
    func,
    insert,
    literal_column,
    select,
    table,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.util import await_only, greenlet_spawn

from checkpoint_sa.engine.faults import Fault, classify_error
from checkpoint_sa.engine.waiting import lock_timeout, pause
from checkpoint_sa.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, Connection, Executable, PoolProxiedConnection, Row

LOCK_TABLE = "checkpoint_sa_lock"

_BEAT_SECONDS = 2.0
_SURE_SECONDS = 10.0
SILENT_SECONDS = 30.0
_PAUSE = 0.2
_STEP = 0.05
_TRIES = 25

_lock = table(LOCK_TABLE, column("id"), column("holder"), column("session"), column("beat"))
_ID = 1

MAKE = f"""
CREATE TABLE IF NOT EXISTS {LOCK_TABLE} (
    id SMALLINT NOT NULL PRIMARY KEY,
    holder VARCHAR(32) NOT NULL,
    session VARCHAR(255) NOT NULL,
    beat BIGINT NOT NULL
) ENGINE=InnoDB
"""

_SETTINGS = text(
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('wsrep_on', 'wsrep_provider',"
    " 'group_replication_group_name', 'group_replication_single_primary_mode')"
)


class Current(NamedTuple):
    """The setting of a session with which it reads all that other nodes have committed before."""

    name: str
    value: str


def current_reads(connection: Connection) -> Current | None:
    """Return how to read what is current, on a cluster whose nodes all take writes.

    None on a single server, and where one node takes writes: its own locks are good then.
    """
    found: dict[str, str] = {row[0]: row[1] for row in connection.execute(_SETTINGS)}
    if found.get("wsrep_on") == "ON" and found.get("wsrep_provider", "none") != "none":
        return Current("wsrep_sync_wait", "1")
    if found.get("group_replication_group_name") and (
        found.get("group_replication_single_primary_mode") == "OFF"
    ):
        return Current("group_replication_consistency", "'BEFORE'")
    return None


@contextmanager
def right_to_migrate(connection: Connection, reads: Current, seconds: float) -> Iterator[None]:
    """Hold a cluster's only right to migrate our tables.

    What the holder before has done is there on this node.

    Raises:
        SchemaError: Another session held the right for so long, or this one has lost it.
    """
    holder = uuid4().hex
    with _reading(connection, reads):
        _take(connection, holder, seconds)
    beat = _Beat(connection, holder, seconds)
    beat.start()
    event.listen(connection, "before_cursor_execute", beat.make_sure)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", beat.make_sure)
        beat.stop()
        # Where it can't be given back, it is taken over.
        with suppress(DBAPIError):
            connection.rollback()
            for _ in range(_TRIES):
                if _change(connection, delete(_lock).where(_lock.c.holder == holder)) is not None:
                    break
                pause(connection, _PAUSE)


@contextmanager
def _reading(connection: Connection, reads: Current) -> Iterator[None]:
    before = connection.scalar(select(literal_column(f"@@SESSION.{reads.name}")))
    restored = f"'{before}'" if isinstance(before, str) else f"{before}"
    connection.exec_driver_sql(f"SET SESSION {reads.name} = {reads.value}")
    connection.rollback()
    try:
        yield
    finally:
        connection.rollback()
        connection.exec_driver_sql(f"SET SESSION {reads.name} = {restored}")
        connection.rollback()


def _take(connection: Connection, holder: str, seconds: float) -> None:
    _make_table(connection)
    session = func.concat(
        "connection ", func.connection_id(), " at ", literal_column("@@hostname"), ":",
        literal_column("@@port"), ", user ", func.current_user(),
    )  # fmt: skip
    mine = {"holder": holder, "session": session, "beat": 0}
    deadline = time.monotonic() + seconds
    seen, times = None, 0
    while True:
        found = _look(connection)
        if found is not None and found.holder == holder:
            return
        times = times + 1 if found == seen else 1
        seen = found
        changed = None
        if found is None:
            changed = _change(connection, insert(_lock).values(id=_ID, **mine))
        elif times * _PAUSE > SILENT_SECONDS:
            as_seen = (_lock.c.holder == found.holder) & (_lock.c.beat == found.beat)
            changed = _change(connection, update(_lock).where(as_seen).values(**mine))
        if changed:
            continue  # look again: this reads all that the holder before has done
        if time.monotonic() > deadline:
            holds = f"{found.session} (a row of {LOCK_TABLE} says so)" if found else ""
            raise lock_timeout(seconds, holds)
        pause(connection, _PAUSE)


def _make_table(connection: Connection) -> None:
    tables = table(
        "tables", column("table_schema"), column("table_name"), schema="information_schema"
    )
    there = select(func.count()).where(
        tables.c.table_schema == func.database(), tables.c.table_name == LOCK_TABLE
    )
    while not connection.scalar(there):
        connection.rollback()
        _change(connection, text(MAKE))
    connection.rollback()


def _look(connection: Connection) -> Row[Any] | None:
    """Return the row that says who may migrate."""
    while True:
        try:
            return connection.execute(select(_lock).where(_lock.c.id == _ID)).first()
        except DBAPIError as error:
            # Galera gives up after 30 s in which another session changes a table.
            if classify_error(error) is not Fault.CONFLICT:
                raise
        finally:
            connection.rollback()


def _change(connection: Connection, statement: Executable) -> int | None:
    """Commit a change; return how many rows it changed, None where another one was first."""
    try:
        changed = connection.execute(statement).rowcount
        connection.commit()
    except IntegrityError:
        connection.rollback()
        return None
    except DBAPIError as error:
        connection.rollback()
        if classify_error(error) is not Fault.CONFLICT:
            raise
        return None
    return changed


class _Beat:
    """A holder's sign of life, on a connection of its own: in a thread, or a task of its loop."""

    def __init__(self, connection: Connection, holder: str, seconds: float) -> None:
        self._engine = connection.engine
        self._seconds = seconds
        mine = (_lock.c.id == _ID) & (_lock.c.holder == literal_column(f"'{holder}'"))
        beat: ColumnElement[int] = literal_column("beat + 1")
        self._statement = str(
            update(_lock)
            .where(mine)
            .values(beat=beat)
            .compile(self._engine, compile_kwargs={"literal_binds": True})
        )
        self._last = time.monotonic()
        self._is_lost = self._stops = False
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._engine.dialect.is_async:
            self._task = asyncio.get_running_loop().create_task(greenlet_spawn(self._run))
        else:
            self._thread = threading.Thread(target=self._run, name=LOCK_TABLE, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stops = True
        if self._thread is not None:
            self._thread.join(_SURE_SECONDS)
        if self._task is not None:
            task = self._task
            await_only(asyncio.wait([task], timeout=_SURE_SECONDS))
            task.cancel()

    def make_sure(self, connection: Connection, *_: Any) -> None:
        """Wait for a sign of life that isn't old, before a statement.

        Raises:
            SchemaError: Another process has taken over.
        """
        deadline = time.monotonic() + self._seconds
        while time.monotonic() - self._last > _SURE_SECONDS:
            if self._is_lost or time.monotonic() > deadline:
                break
            pause(connection, _STEP)
        else:
            return
        raise SchemaError(
            f"This process didn't show for more than {SILENT_SECONDS:g} seconds that it was"
            " migrating, and others may have gone on in its place. What it has done stays. Run the"
            " upgrade again: it does what is left."
        )

    def _run(self) -> None:
        pool = self._engine.pool.recreate()  # the caller's may have no other connection to give
        raw: PoolProxiedConnection | None = None
        try:
            while not self._is_lost and not self._rest():
                try:
                    raw = raw or pool.connect()
                    self._is_lost = not self._show(raw)
                except Exception:  # noqa: BLE001 - whatever it is, the next try or the holder tells
                    if raw is not None:
                        raw.invalidate()
                    raw = None
        finally:
            if raw is not None:
                raw.close()
            pool.dispose()

    def _show(self, raw: PoolProxiedConnection) -> bool:
        """Change the row; return whether it is still the holder's."""
        begin = time.monotonic()
        cursor = raw.cursor()
        cursor.execute(self._statement)
        changed = cursor.rowcount
        cursor.close()
        raw.commit()
        if changed == 1:
            self._last = begin
        return bool(changed == 1)

    def _rest(self) -> bool:
        """Rest until the next sign is due; return whether there is to be none."""
        end = time.monotonic() + _BEAT_SECONDS
        while not self._stops and time.monotonic() < end:
            pause(self._engine, _STEP)
        return self._stops
