"""The right to migrate a cluster where all nodes take writes: Galera, Group Replication.

`GET_LOCK` is local to a node. Such a cluster certifies changes of rows: if two transactions change
the same row on two nodes, the first commit wins and the other transaction is rolled back. So the
right is a row. Its table is made at the first need, by CREATE TABLE IF NOT EXISTS, which has the
same result on all nodes in any order.

Unlike a lock, a row stays when its holder dies. So the holder changes it every two seconds, on a
connection of its own, and a waiter that has seen no change in 30 seconds of looking takes it over.
No two clocks are compared. The time of a waiter's statements doesn't count: Galera delays them,
like the holder's statements, while it changes a table. A holder that was stopped for long may have
lost the right, so it sends no statement before it has changed its row again.
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
    """The setting with which a session reads all earlier commits of the other nodes."""

    name: str
    value: str


def current_reads(connection: Connection) -> Current | None:
    """Return the setting for current reads, on a cluster where all nodes take writes.

    None on a single server, and on a cluster where a single node takes writes: the locks of that
    node are enough.
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

    This node has all changes of the previous holder.

    Raises:
        SchemaError: Another session held the right for `seconds`, or this session has lost it.
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
        # If the row can't be deleted, a waiter takes it over.
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
            continue  # look again: this reads all changes of the previous holder
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
    """Return the row of the holder."""
    while True:
        try:
            return connection.execute(select(_lock).where(_lock.c.id == _ID)).first()
        except DBAPIError as error:
            # Galera gives up if another session changes a table for 30 s.
            if classify_error(error) is not Fault.CONFLICT:
                raise
        finally:
            connection.rollback()


def _change(connection: Connection, statement: Executable) -> int | None:
    """Commit a change; return the number of changed rows, None if another session was first."""
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
        """Wait for a recent sign of life before a statement.

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
            f"This process gave no sign of life for more than {SILENT_SECONDS:g} seconds during its"
            " migration, and another process may have taken over. Its changes stay. Run the upgrade"
            " again: it completes them."
        )

    def _run(self) -> None:
        pool = self._engine.pool.recreate()  # the caller's pool may be exhausted
        raw: PoolProxiedConnection | None = None
        try:
            while not self._is_lost and not self._rest():
                try:
                    raw = raw or pool.connect()
                    self._is_lost = not self._show(raw)
                except Exception:  # noqa: BLE001 - the next attempt or the holder reports it
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
        """Rest until the next sign of life is due; return whether the holder has stopped."""
        end = time.monotonic() + _BEAT_SECONDS
        while not self._stops and time.monotonic() < end:
            pause(self._engine, _STEP)
        return self._stops
