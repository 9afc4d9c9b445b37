"""Vectors that SQLite ranks by the functions of its extension sqlite-vec.

They stay in our own table: the functions take 32-bit floats as bytes, as we store them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, LargeBinary, bindparam, event, func, literal_column, text

from checkpoint_sa.store import sql

try:
    import sqlite_vec
except ImportError:
    sqlite_vec = None

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Select

    from checkpoint_sa.store.index import Metric

_FUNCTIONS: dict[Metric, str] = {"cosine": "vec_distance_cosine", "l2": "vec_distance_l2"}
"""There is none for inner products."""


def load(engine: Engine) -> None:
    """Load the extension into each connection of an engine of ours, where both can."""
    if sqlite_vec is not None and engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _load)


def _load(connection: Any, _: object) -> None:
    path = sqlite_vec.loadable_path()

    async def load_async(driver_connection: Any) -> None:
        await driver_connection.enable_load_extension(True)
        await driver_connection.load_extension(path)
        await driver_connection.enable_load_extension(False)

    try:
        if hasattr(connection, "run_async"):
            connection.run_async(load_async)
            return
        connection.enable_load_extension(True)
        connection.load_extension(path)
        connection.enable_load_extension(False)
    except AttributeError:
        """This Python's SQLite loads no extensions: vectors are ranked in Python."""


def is_there(connection: Connection, metric: Metric) -> bool:
    """Whether a connection has the function that ranks by a metric."""
    if connection.dialect.name != "sqlite" or metric not in _FUNCTIONS:
        return False
    found = text("SELECT count(*) FROM pragma_function_list WHERE lower(name) = :name")
    return bool(connection.scalar(found, {"name": _FUNCTIONS[metric]}))


@cache
def rank(
    metric: Metric, *, candidates: sql.Candidates, is_scoped: bool, has_filter: bool
) -> Select[Any]:
    """Return the statement that ranks items by the best of their vectors, some after a number."""
    table = sql.embeddings
    operator = getattr(func, _FUNCTIONS[metric])(
        table.c.embedding, bindparam("query", type_=LargeBinary()), type_=Float()
    )
    # A vector of zeros has no angle to another one: its distance is NULL.
    distance = func.coalesce(operator, literal_column("1.0", Float()))
    return sql.best_first(
        table,
        operator,
        distance,
        [sql.within(table.c.prefix)],
        candidates=candidates,
        is_scoped=is_scoped,
        has_filter=has_filter,
    )
