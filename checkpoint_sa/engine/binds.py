"""Messages for objects that a saver or store can't use, with the line to write instead.

LangGraph's guides pass a driver's own connection or pool. Such an object is recognised by the name
of its module; no driver is imported.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from checkpoint_sa.errors import ConfigurationError


class _Driver(NamedTuple):
    """A module that makes connections or pools, and the URLs for it."""

    sync: str
    async_: str


_PSYCOPG = _Driver(
    "postgresql+psycopg://user:password@host/database",
    "postgresql+psycopg://user:password@host/database",
)
_ASYNCPG = _Driver(_PSYCOPG.sync, "postgresql+asyncpg://user:password@host/database")
_SQLITE = _Driver("sqlite:///app.db", "sqlite+aiosqlite:///app.db")
_MYSQL = _Driver(
    "mysql+pymysql://user:password@host/database", "mysql+aiomysql://user:password@host/database"
)

_DRIVERS = {
    "psycopg": _PSYCOPG,
    "psycopg_pool": _PSYCOPG,
    "psycopg2": _PSYCOPG,
    "asyncpg": _ASYNCPG,
    "sqlite3": _SQLITE,
    "aiosqlite": _SQLITE,
    "pymysql": _MYSQL,
    "MySQLdb": _MYSQL,
    "aiomysql": _MYSQL,
    "asyncmy": _MYSQL,
}


_ONLY_ASYNC = ("asyncpg", "aiosqlite", "aiomysql", "asyncmy")


def refused(
    bind: object, saver: str, *, is_async: bool, sync_class: str = "SQLAlchemySaver"
) -> ConfigurationError:
    """Return the error for an object that isn't an engine or a connection of SQLAlchemy.

    Args:
        bind: The object.
        saver: The name of the class of the saver or store.
        is_async: Whether it is async.
        sync_class: The class for an `Engine`; the name of its async twin begins with `Async`.
    """
    kinds = "an AsyncEngine or an AsyncConnection" if is_async else "an Engine or a Connection"
    found = name_of(bind)
    start = f"{saver} takes {kinds} of SQLAlchemy, this is {found}."
    module = found.partition(".")[0]
    if module == "sqlalchemy":
        return ConfigurationError(
            f"{start} {_of_sqlalchemy(type(bind).__name__, saver, sync_class)}"
        )
    driver = _driver_of(bind)
    if driver is None:
        other = sync_class if is_async else f"Async{sync_class}"
        engine = "Engine" if is_async else "AsyncEngine"
        return ConfigurationError(
            f"{start} For a URL use {saver}.from_conn_string(), for an {engine} {other}."
        )
    if not is_async and (type(bind).__name__.startswith("Async") or module in _ONLY_ASYNC):
        is_async, saver = True, f"Async{saver}"
    make = "create_async_engine" if is_async else "create_engine"
    url = driver.async_ if is_async else driver.sync
    size = ", pool_size=10" if "Pool" in type(bind).__name__ else ""
    opened = "async with" if is_async else "with"
    name = "store" if sync_class.endswith("Store") else "checkpointer"
    return ConfigurationError(
        f"{start} Write {saver}({make}({url!r}{size})), with the engine that your application"
        f" has, or `{opened} {saver}.from_conn_string({url!r}) as {name}:`."
        " autocommit and row_factory need no setting."
    )


def _of_sqlalchemy(name: str, saver: str, sync_class: str) -> str:
    """Return the advice for another class of SQLAlchemy."""
    if name == "AsyncSession":
        return f"Write Async{sync_class}(await session.connection())."
    if name == "Session":
        return f"Write {sync_class}(session.connection())."
    if name == "URL":
        return f"For a URL use {saver}.from_conn_string()."
    if name in ("Engine", "Connection"):
        return f"Use {sync_class} for it."
    if name in ("AsyncEngine", "AsyncConnection"):
        return f"Use Async{sync_class} for it."
    return "Pass the engine."


def name_of(value: object) -> str:
    """Return the name of a value's class, with its package: `psycopg_pool.ConnectionPool`."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__name__
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def _driver_of(bind: object) -> _Driver | None:
    """Return the driver that has made an object, also one of a subclass."""
    for kind in type(bind).__mro__:
        if (driver := _DRIVERS.get(kind.__module__.partition(".")[0])) is not None:
            return driver
    return None


def without_pipeline(options: dict[str, Any], saver: str) -> dict[str, Any]:
    """Return an engine's options without the `pipeline` of LangGraph's PostgresSaver.

    Raises:
        ConfigurationError: It is true.
    """
    if options.get("pipeline"):
        raise ConfigurationError(
            "pipeline=True is an option of LangGraph's PostgresSaver. Write"
            f" {saver}.from_conn_string(url) without it: on PostgreSQL put, put_writes and"
            " get_tuple are one round trip each."
        )
    return {name: value for name, value in options.items() if name != "pipeline"}
