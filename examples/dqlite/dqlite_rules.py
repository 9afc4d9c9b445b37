"""checkpoint_sa on dqlite: its dialect, of the package sqlalchemy-dqlite, speaks SQLite's SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.ddl.sqlite import SQLiteImpl
from sqlalchemy import event

from checkpoint_sa.dialects import follow_sqlite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Dialect, Engine

follow_sqlite("dqlite")


class DqliteImpl(SQLiteImpl):
    """How Alembic changes tables: as on SQLite."""

    __dialect__ = "dqlite"


def connect_to_any(engine: Engine, addresses: Sequence[str]) -> None:
    """Have an engine's connections look for the leader at several nodes, of which some may be down.

    A URL names a single node.
    """

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, _: object, arguments: Any, options: dict[str, Any]) -> Any:
        for i, address in enumerate(addresses, 1):
            connection: Any = dialect.connect(*arguments, **{**options, "address": address})
            try:
                connection.connect()  # otherwise the first statement connects
            except dialect.loaded_dbapi.Error:
                connection.close()
                if i == len(addresses):
                    raise
            else:
                return connection
        return None
