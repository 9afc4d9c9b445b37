"""checkpoint_sa on dqlite: its dialect, of the package sqlalchemy-dqlite, speaks SQLite's SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.ddl.sqlite import SQLiteImpl
from sqlalchemy import event
from sqlalchemy.util import await_only
from sqlalchemydqlite.aio import AsyncAdaptedConnection

from checkpoint_sa.dialects import follow_sqlite
from checkpoint_sa.upsert import MAX_PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Dialect, Engine

follow_sqlite("dqlite")
MAX_PARAMETERS["dqlite"] = 255  # its protocol counts them in a byte

# Without it dqlite+aio doesn't connect: sqlalchemy-dqlite 0.8.0 calls a method that SQLAlchemy 2.1
# no longer has.
if not hasattr(AsyncAdaptedConnection, "await_"):
    AsyncAdaptedConnection.await_ = staticmethod(await_only)


class DqliteImpl(SQLiteImpl):
    """How Alembic changes tables: as on SQLite."""

    __dialect__ = "dqlite"


def connect_to_any(engine: Engine, addresses: Sequence[str]) -> None:
    """Have an engine's connections look for the leader at several nodes, of which some may be down.

    A URL names a single node. Of an AsyncEngine pass `sync_engine`.
    """

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, _: object, arguments: Any, options: dict[str, Any]) -> Any:
        for i, address in enumerate(addresses, 1):
            try:
                return _connected(dialect, arguments, {**options, "address": address})
            except dialect.loaded_dbapi.Error:
                if i == len(addresses):
                    raise
        return None


def _connected(dialect: Dialect, arguments: Any, options: dict[str, Any]) -> Any:
    connection: Any = dialect.connect(*arguments, **options)
    if not dialect.is_async:
        try:
            connection.connect()  # otherwise the first statement connects
        except dialect.loaded_dbapi.Error:
            connection.close()
            raise
    return connection
