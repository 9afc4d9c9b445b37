"""Recognise and read the databases of LangGraph's own savers; nothing is changed there.

Each function takes a `Connection` in a transaction whose statements all see the same rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    LargeBinary,
    Text,
    bindparam,
    column,
    inspect,
    literal,
    select,
    table,
)

from checkpoint_sa import migrate
from checkpoint_sa.engine import engines
from checkpoint_sa.errors import SchemaError
from checkpoint_sa.types import MYSQL_FAMILY, json_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, RowMapping, Select, TableClause
    from sqlalchemy.sql.elements import ColumnElement

_THREADS = 100
_BUFFERED_ROWS = 20

_CHECKPOINTS = (
    "thread_id",
    "checkpoint_ns",
    "checkpoint_id",
    "parent_checkpoint_id",
    "type",
    "checkpoint",
    "metadata",
)
_BLOBS = ("thread_id", "checkpoint_ns", "channel", "version", "type", "blob")
_WRITES = ("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx", "channel", "type")

POSTGRES = "langgraph-checkpoint-postgres"
MYSQL = "langgraph-checkpoint-mysql"
SQLITE = "langgraph-checkpoint-sqlite"
_BY_DIALECT = {
    "sqlite": SQLITE,
    "postgresql": POSTGRES,
    **dict.fromkeys(MYSQL_FAMILY, MYSQL),
}
"""The saver that uses a dialect."""


class Peer:
    """The tables of one of LangGraph's savers.

    Args:
        connection: A connection to its database, in a transaction.
        schema: The schema of its tables; None for the connection's own.

    Raises:
        SchemaError: The tables aren't those of a known saver; the message names the difference.
    """

    def __init__(self, connection: Connection, schema: str | None) -> None:
        self._connection = connection
        self._schema = schema
        self._columns = self._found_columns()
        self.name = self._recognised()
        """The package that made the tables."""

    @property
    def has_documents(self) -> bool:
        """Whether a checkpoint is a single document that contains all of its values."""
        return self.name == SQLITE

    def threads(self, after: str | None) -> tuple[list[str], str | None]:
        """Return a page of thread ids, and the start of the next page; None after the last page."""
        checkpoints = self._table("checkpoints")
        thread = checkpoints.c.thread_id
        page = select(thread).distinct().order_by(thread).limit(_THREADS)
        found = self._connection.scalars(page if after is None else page.where(thread > after))
        ids = list(found)
        last = ids[-1] if len(ids) == _THREADS else None
        spelt = (engines.spellings(self._connection, thread, each) for each in ids)
        return [each for found in spelt for each in found], last

    def checkpoints(self, thread_id: str) -> Iterator[RowMapping]:
        """Yield a thread's checkpoints by namespace and id, documents as text or bytes."""
        checkpoints = self._table("checkpoints")
        columns: list[ColumnElement[Any]] = [checkpoints.c[name] for name in _CHECKPOINTS[:5]]
        for name in _CHECKPOINTS[5:]:
            document = checkpoints.c[name]
            columns.append(document if self.has_documents else json_text(document).label(name))
        order = (checkpoints.c.checkpoint_ns, checkpoints.c.checkpoint_id)
        yield from self._rows(select(*columns).order_by(*order), checkpoints, thread_id)

    def blobs(self, thread_id: str) -> Iterator[RowMapping]:
        """Yield a thread's values from the table of values, if the saver has that table."""
        if "checkpoint_blobs" in self._columns:
            blobs = self._table("checkpoint_blobs")
            yield from self._rows(select(*(blobs.c[name] for name in _BLOBS)), blobs, thread_id)

    def writes(self, thread_id: str) -> Iterator[RowMapping]:
        """Yield a thread's writes; those of old tables have no path."""
        name, value = ("writes", "value") if self.has_documents else ("checkpoint_writes", "blob")
        if name not in self._columns:
            return
        writes = self._table(name)
        has_path = "task_path" in self._columns[name]
        path = writes.c.task_path if has_path else literal("", Text()).label("task_path")
        columns = [*(writes.c[column] for column in _WRITES), writes.c[value].label("blob"), path]
        yield from self._rows(select(*columns), writes, thread_id)

    def _rows(
        self, statement: Select[Any], source: TableClause, thread_id: str
    ) -> Iterator[RowMapping]:
        statement = statement.where(source.c.thread_id == bindparam("thread", type_=Text()))
        with self._connection.execute(
            statement, {"thread": thread_id}, execution_options={"yield_per": _BUFFERED_ROWS}
        ) as found:
            for row in found.mappings():
                if row["thread_id"] == thread_id:  # the engine may compare different ids as equal
                    yield row

    def _table(self, name: str) -> TableClause:
        binary = {"blob", "value"} | ({"checkpoint", "metadata"} if self.has_documents else set())
        columns = (
            column(each, LargeBinary() if each in binary else Text() if each != "idx" else None)
            for each in self._columns[name]
        )
        return table(name, *columns, schema=self._schema)

    def _found_columns(self) -> dict[str, dict[str, Any]]:
        inspector = inspect(self._connection)
        names = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "writes")
        return {
            name: {
                found["name"]: found["type"] for found in inspector.get_columns(name, self._schema)
            }
            for name in names
            if inspector.has_table(name, schema=self._schema)
        }

    def _recognised(self) -> str:
        """Return the package that made the tables.

        Raises:
            SchemaError: No known package made them.
        """
        place = f" in schema {self._schema!r}" if self._schema else ""
        if migrate.current(
            self._connection, schema=self._schema
        ) is not None or "exact" in self._columns.get("checkpoints", ()):
            raise SchemaError(
                f"The source has the tables of checkpoint_sa{place}. To bring its threads to"
                " another database, run `checkpoint-sa copy`."
            )
        if "checkpoints" not in self._columns:
            raise SchemaError(
                f"The source has no table `checkpoints`{place}, so it isn't a database of one of"
                " LangGraph's savers. Is this the right database, and the right schema?"
            )
        dialect = engines.dialect_of(self._connection)
        name = _BY_DIALECT.get(dialect)
        holds_bytes = isinstance(self._columns["checkpoints"].get("checkpoint"), LargeBinary)
        if name is None or holds_bytes is not (name == SQLITE):
            raise SchemaError(
                f"The source has a table `checkpoints`{place} of another application: its column"
                f" `checkpoint` isn't that of one of LangGraph's savers on {dialect}."
            )
        if name == SQLITE:
            needed = {"checkpoints": _CHECKPOINTS, "writes": (*_WRITES, "value")}
        else:
            needed = {
                "checkpoints": _CHECKPOINTS,
                "checkpoint_blobs": _BLOBS,
                "checkpoint_writes": (*_WRITES, "blob"),
            }
        for each, columns in needed.items():
            if each in self._columns and (missing := set(columns) - self._columns[each].keys()):
                raise SchemaError(
                    f"The source's table `{each}`{place} has no {', '.join(sorted(missing))}: it"
                    f" isn't that of {name}, but of a shallow saver, of a release before"
                    " checkpoint_ns, or of another application. It can't be imported."
                )
        return name
