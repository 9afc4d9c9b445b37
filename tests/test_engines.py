"""URLs and engines: which driver, which error, who owns what, and what never shows."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Engine, MetaData, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool
from stores import KINDS, Store, thread

from checkpoint_sa import (
    AsyncSQLAlchemySaver,
    ConfigurationError,
    MissingDriverError,
    SQLAlchemySaver,
    ValueTooLargeError,
)
from checkpoint_sa.engine.engines import make_async_engine, make_engine, parse_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import Server


@pytest.mark.parametrize(
    ("url", "sync", "async_"),
    [
        ("postgres://u:p@h/d", "postgresql+psycopg", "postgresql+psycopg"),
        ("postgresql://u:p@h/d", "postgresql+psycopg", "postgresql+psycopg"),
        ("mysql://u:p@h/d", "mysql+pymysql", "mysql+aiomysql"),
        ("mariadb://u:p@h/d", "mariadb+pymysql", "mariadb+aiomysql"),
        ("sqlite:///f.db", "sqlite+pysqlite", "sqlite+aiosqlite"),
        ("sqlite://", "sqlite+pysqlite", "sqlite+aiosqlite"),
    ],
)
def test_a_url_without_a_driver_works_for_both_savers(url: str, sync: str, async_: str) -> None:
    assert parse_url(url, "sync").drivername == sync
    assert parse_url(url, "async").drivername == async_
    assert parse_url(url, "sync").database == make_url(url).database


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://h/d",
        "postgresql+asyncpg://h/d",
        "mysql+pymysql://h/d",
        "mysql+aiomysql://h/d",
        "sqlite+aiosqlite:///f.db",
    ],
)
def test_a_driver_that_is_named_is_used(url: str) -> None:
    colour = "async" if any(name in url for name in ("asyncpg", "aio")) else "sync"
    assert parse_url(url, colour) == make_url(url)  # type: ignore[arg-type]


def test_psycopg_serves_both_colours() -> None:
    assert parse_url("postgresql+psycopg://h/d", "async") == make_url("postgresql+psycopg://h/d")


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("postgresql+asyncpg://u:secret@h/d", "postgresql+psycopg://"),
        ("mysql+aiomysql://u:secret@h/d", "mysql+pymysql://"),
        ("sqlite+aiosqlite:///secret", "sqlite+pysqlite://"),
    ],
)
def test_an_async_driver_for_the_sync_saver_names_the_right_one(url: str, right: str) -> None:
    with (
        pytest.raises(ConfigurationError, match="async driver") as error,
        SQLAlchemySaver.from_conn_string(url),
    ):
        pass
    assert right in str(error.value)
    assert "u:secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("mysql+pymysql://u:secret@h/d", "mysql+aiomysql://"),
        ("sqlite+pysqlite:///f.db", "sqlite+aiosqlite://"),
    ],
)
def test_a_sync_driver_for_the_async_saver_names_the_right_one(url: str, right: str) -> None:
    async def use() -> None:
        async with AsyncSQLAlchemySaver.from_conn_string(url):
            pass

    with pytest.raises(ConfigurationError, match="isn't async") as error:
        asyncio.run(use())
    assert right in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "driver", ["psycopg", "asyncpg", "aiosqlite", "pymysql", "aiomysql", "asyncmy"]
)
def test_a_missing_driver_names_the_extra(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url, colour = {
        "psycopg": ("postgresql://u:secret@h/d", "sync"),
        "asyncpg": ("postgresql+asyncpg://u:secret@h/d", "async"),
        "aiosqlite": ("sqlite://", "async"),
        "pymysql": ("mysql://u:secret@h/d", "sync"),
        "aiomysql": ("mariadb://u:secret@h/d", "async"),
        "asyncmy": ("mysql+asyncmy://u:secret@h/d", "async"),
    }[driver]
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == driver else find(name, *rest),
    )
    with pytest.raises(MissingDriverError, match=rf"langgraph-checkpoint-sa\[{driver}\]") as error:
        parse_url(url, colour)  # type: ignore[arg-type]
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("make", [make_engine, make_async_engine])
def test_a_dialect_that_is_not_there_is_named(make: Callable[[str], object]) -> None:
    with pytest.raises(ConfigurationError, match=r"no dialect 'foo' here.*postgresql") as error:
        make("foo://ann:secret@host/app")
    assert "secret" not in str(error.value)


def test_a_driver_without_an_extra_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pg8000", None)
    with pytest.raises(MissingDriverError, match="needs the Python module pg8000") as error:
        make_engine("postgresql+pg8000://ann:secret@host/app")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["", "app.db", "user:secret@host", "://secret"])
def test_what_is_no_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="isn't a database URL") as error:
        make_engine(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("kind", ["pg-psycopg", "pg-psycopg-async", "pg-asyncpg"])
def test_libpq_parameters_work_with_every_driver(
    kind: str, start_server: Callable[[str], Server]
) -> None:
    driver = "" if KINDS[kind].driver.endswith("psycopg") else "+asyncpg"
    url = start_server("postgresql").url("x").replace("x://", f"postgres{driver}://", 1)
    url += ("&" if "?" in url else "?") + "sslmode=disable&application_name=ours&connect_timeout=9"
    store = Store(KINDS[kind], url)
    try:
        assert store.sql("SELECT current_setting('application_name')") == [("ours",)]
    finally:
        store.close()


def test_a_user_with_a_password_can_log_in(store: Store) -> None:
    if not store.kind.server:
        return  # SQLite has no users
    name, password = "app_user", "p@ss:w/ord%1"
    if store.kind.server == "postgresql":
        store.sql(f"DROP ROLE IF EXISTS {name}")
        store.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    else:
        store.sql(f"DROP USER IF EXISTS {name}")
        store.sql(f"CREATE USER {name} IDENTIFIED BY '{password}'")
        store.sql(f"GRANT SELECT ON test.* TO {name}")
    url = make_url(store.url).set(username=name, password=password)
    other = Store(store.kind, url.render_as_string(hide_password=False))
    try:
        assert other.sql("SELECT 1") == [(1,)]
    finally:
        other.close()


def test_from_conn_string_disposes_of_its_engine(tmp_path: Path) -> None:
    with SQLAlchemySaver.from_conn_string(f"sqlite:///{tmp_path / 'a.db'}") as saver:
        saver.setup()
        assert isinstance(saver.bind, Engine)
        pool = saver.bind.pool
        assert pool.checkedin() == 1  # type: ignore[attr-defined]
    assert pool is not saver.bind.pool


def test_an_engine_that_was_given_is_not_disposed_of(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    saver = SQLAlchemySaver(engine)
    saver.setup()
    pool = engine.pool
    del saver
    assert engine.pool is pool
    assert pool.checkedin() == 1  # type: ignore[attr-defined]
    engine.dispose()


def test_engine_options_reach_the_engine(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with SQLAlchemySaver.from_conn_string(url, pool_size=3, connect_args={"timeout": 1}) as saver:
        assert saver.bind.pool.size() == 3  # type: ignore[union-attr]


def test_no_state_shows_up_in_an_exception(store: Store) -> None:
    store.save(values={"a": "planted"})
    with pytest.raises((StatementError, DBAPIError)) as error:
        store.sql("SELECT :secret FROM no_such_table", secret="planted")
    assert "planted" not in str(error.value)


def test_a_database_in_memory_is_one_for_all_threads() -> None:
    with SQLAlchemySaver.from_conn_string("sqlite://") as saver:
        saver.setup()

        async def use() -> list[Any]:
            reads = (saver.aget_tuple(thread(str(i))) for i in range(20))
            return list(await asyncio.gather(*reads))

        assert asyncio.run(use()) == [None] * 20


def test_an_async_database_in_memory_is_one_for_all_tasks() -> None:
    async def use() -> list[Any]:
        async with AsyncSQLAlchemySaver.from_conn_string("sqlite://") as saver:
            await saver.setup()
            reads = (saver.aget_tuple(thread(str(i))) for i in range(20))
            return list(await asyncio.gather(*reads))

    assert asyncio.run(use()) == [None] * 20


def test_an_engine_with_a_database_for_each_thread_is_refused() -> None:
    engine = create_engine("sqlite://")
    if type(engine.pool).__name__ != "SingletonThreadPool":
        pytest.fail("SQLAlchemy changed its default; the check may go")
    with pytest.raises(ConfigurationError, match="StaticPool"):
        SQLAlchemySaver(engine)


def test_a_static_pool_is_shared_in_turns() -> None:
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    saver, other = SQLAlchemySaver(engine), SQLAlchemySaver(engine)
    saver.setup()
    store = Store.__new__(Store)
    store.kind, store.saver = KINDS["sqlite"], saver

    async def use() -> None:
        await asyncio.gather(
            *(asyncio.to_thread(store.save, f"t{i}", {"a": [i]}) for i in range(40)),
            *(other.aget_tuple(thread(f"t{i}")) for i in range(40)),
        )

    asyncio.run(use())
    assert len(list(saver.list(None))) == 40
    engine.dispose()


def test_an_async_static_pool_is_shared_in_turns() -> None:
    async def use() -> int:
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        saver, other = AsyncSQLAlchemySaver(engine), AsyncSQLAlchemySaver(engine)
        await saver.setup()
        await asyncio.gather(
            *(
                saver.aput_writes(thread(f"t{i}", checkpoint_id="1"), [("c", i)], "t")
                for i in range(40)
            ),
            *(other.aget_tuple(thread(f"t{i}")) for i in range(40)),
        )
        async with engine.connect() as connection:
            count = await connection.scalar(text("SELECT count(*) FROM checkpoint_writes"))
        await engine.dispose()
        return int(count or 0)

    assert asyncio.run(use()) == 40


@pytest.mark.parametrize("wrong", ["sqlite://", None, 1])
def test_what_is_no_engine_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="takes an Engine or a Connection"):
        SQLAlchemySaver(wrong)
    with pytest.raises(ConfigurationError, match="takes an AsyncEngine or an AsyncConnection"):
        AsyncSQLAlchemySaver(wrong)


def test_an_engine_of_the_other_colour_is_refused(tmp_path: Path) -> None:
    engine = make_engine("sqlite://")
    async_engine = make_async_engine("sqlite://")
    with pytest.raises(ConfigurationError, match="AsyncSQLAlchemySaver"):
        SQLAlchemySaver(async_engine)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Use SQLAlchemySaver for it"):
        AsyncSQLAlchemySaver(engine)  # type: ignore[arg-type]


def unmade(name: str) -> Any:
    """Return an object of a class, as far as its type goes."""
    module, _, kind = name.rpartition(".")
    return object.__new__(type(kind, (), {"__module__": module}))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("psycopg.Connection", "SQLAlchemySaver(create_engine('postgresql+psycopg://"),
        (
            "psycopg_pool.pool.ConnectionPool",
            "SQLAlchemySaver(create_engine('postgresql+psycopg://",
        ),
        (
            "psycopg.AsyncConnection",
            "AsyncSQLAlchemySaver(create_async_engine('postgresql+psycopg:",
        ),
        (
            "psycopg_pool.pool_async.AsyncConnectionPool",
            "AsyncSQLAlchemySaver(create_async_engine(",
        ),
        ("asyncpg.pool.Pool", "AsyncSQLAlchemySaver(create_async_engine('postgresql+asyncpg://"),
        ("pymysql.connections.Connection", "SQLAlchemySaver(create_engine('mysql+pymysql://"),
        ("aiomysql.pool.Pool", "AsyncSQLAlchemySaver(create_async_engine('mysql+aiomysql://"),
        ("sqlite3.Connection", "SQLAlchemySaver(create_engine('sqlite:///app.db'"),
        (
            "aiosqlite.core.Connection",
            "AsyncSQLAlchemySaver(create_async_engine('sqlite+aiosqlite:",
        ),
    ],
)
def test_a_drivers_connection_or_pool_is_named_with_the_line_to_write(name: str, line: str) -> None:
    bind = unmade(name)
    with pytest.raises(ConfigurationError) as error:
        SQLAlchemySaver(bind)
    said = str(error.value)
    assert f"this is {name.split('.', maxsplit=1)[0]}.{name.rsplit('.', maxsplit=1)[-1]}." in said
    assert f"Write {line}" in said
    assert ("pool_size=" in said) is ("Pool" in name)
    assert ast.parse(said.partition("Write ")[2].partition(", with the engine")[0])
    with pytest.raises(
        ConfigurationError, match=r"Write AsyncSQLAlchemySaver\(create_async_engine"
    ):
        AsyncSQLAlchemySaver(bind)
    with pytest.raises(
        ConfigurationError, match=r"Expected a database URL.*SQLAlchemySaver\(engine"
    ):
        SQLAlchemySaver.from_conn_string(bind).__enter__()


def test_real_connections_are_recognised() -> None:
    connection: Any = sqlite3.connect(":memory:")
    with pytest.raises(ConfigurationError, match=r"this is sqlite3\.Connection"):
        SQLAlchemySaver(connection)
    connection.close()
    pool: Any = psycopg.AsyncConnection.__new__(psycopg.AsyncConnection)
    with pytest.raises(ConfigurationError, match=r"this is psycopg\.AsyncConnection"):
        AsyncSQLAlchemySaver(pool)
    with Session(make_engine("sqlite://")) as session:
        wrong: Any = session
        with pytest.raises(ConfigurationError, match=r"SQLAlchemySaver\(session\.connection\(\)\)"):
            SQLAlchemySaver(wrong)


def test_an_error_about_a_driver_imports_no_driver() -> None:
    program = (
        "import sys; from checkpoint_sa.engine import binds;"
        "binds.refused(type('Connection', (), {'__module__': 'psycopg'})(), 'S', is_async=False);"
        "assert not {'psycopg', 'pymysql', 'aiosqlite', 'asyncpg'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_langgraphs_pipeline_is_refused_with_the_line_to_write() -> None:
    line = r"Write SQLAlchemySaver\.from_conn_string\(url\) without it"
    with pytest.raises(ConfigurationError, match=line):
        SQLAlchemySaver.from_conn_string("sqlite://", pipeline=True).__enter__()
    with SQLAlchemySaver.from_conn_string("sqlite://", pipeline=False) as saver:
        saver.setup()

    async def use() -> None:
        async with AsyncSQLAlchemySaver.from_conn_string("sqlite://", pipeline=True):
            pass

    with pytest.raises(ConfigurationError, match="Write AsyncSQLAlchemySaver"):
        asyncio.run(use())


def test_an_autocommit_engine_still_stores_checkpoints_whole(store: Store) -> None:
    if store.kind.is_async:
        engine: Any = create_async_engine(store.url, isolation_level="AUTOCOMMIT")
        other = store.using(AsyncSQLAlchemySaver(engine))
    else:
        engine = create_engine(store.url, isolation_level="AUTOCOMMIT")
        other = store.using(SQLAlchemySaver(engine))
    other.save("whole", {"a": [1]})
    assert store.found(thread("whole")).checkpoint["channel_values"] == {"a": [1]}
    # The second statement fails: the blobs of the first must not stay.
    before = store.rows()
    with pytest.raises(ConfigurationError):
        _fail_in_put(other, "half")
    after = store.rows()
    if store.kind.is_async:
        store.run(engine.dispose())
    else:
        engine.dispose()
    assert after == before


@pytest.mark.parametrize("migrated_store", ["sqlite", "pg-psycopg"], indirect=True)
def test_a_listener_that_begins_transactions_loses_nothing(store: Store) -> None:
    sqlite = store.kind.server == ""
    options: dict[str, Any] = {"isolation_level": "autocommit"} if sqlite else {}
    engine = create_engine(store.url, **options)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    other = store.using(SQLAlchemySaver(engine))
    config = other.save("begun", {"a": [1]})
    other.put_writes(config, [("x", 1)], "task")
    engine.dispose()
    found = store.found(thread("begun"))
    assert found.checkpoint["channel_values"] == {"a": [1]}
    assert found.pending_writes == [("task", "x", 1)]


@pytest.mark.parametrize("migrated_store", ["mariadb-pymysql", "mysql-pymysql"], indirect=True)
def test_a_driver_that_commits_by_itself_stores_checkpoints_whole(store: Store) -> None:
    engine = create_engine(store.url, connect_args={"autocommit": True})
    other = store.using(SQLAlchemySaver(engine))
    before = store.rows()
    with pytest.raises(ConfigurationError):
        _fail_in_put(other, "half")
    engine.dispose()
    assert store.rows() == before


def test_lists_are_json_whatever_the_engine_makes_of_json(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}", json_serializer=lambda _: b"bytes")
    saver = SQLAlchemySaver(engine)
    saver.setup()
    saver.delete_thread("t")
    assert saver.get_tuple({"configurable": {"thread_id": "t"}}) is None
    engine.dispose()


def _fail_in_put(store: Store, thread_id: str) -> None:
    bind: Any = store.saver.bind
    engine = bind.sync_engine if store.kind.is_async else bind

    def fail(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "INSERT INTO checkpoints " in statement:
            raise ConfigurationError("on purpose")

    event.listen(engine, "before_cursor_execute", fail)
    try:
        store.save(thread_id, {"a": [1]})
    finally:
        event.remove(engine, "before_cursor_execute", fail)


def test_a_value_beyond_the_packet_size_names_the_setting(store: Store) -> None:
    if store.kind.server not in ("mariadb", "mysql"):
        store.save(values={"a": b"\0" * (20 * 2**20)})
        return
    packet = store.sql("SELECT @@max_allowed_packet")[0][0]
    with pytest.raises(ValueTooLargeError, match="max_allowed_packet"):
        store.save(values={"a": b"x" * packet})
    store.save(values={"a": b"x" * (packet - 2**20 if packet < 2**25 else 20 * 2**20)})
    assert len(store.found(thread()).checkpoint["channel_values"]["a"]) > 2**23


def test_a_put_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(ConfigurationError):
        _fail_in_put(store, "half")
    assert store.rows() == (0, 0, 0)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (make_url("sqlite://"), r"For a URL use SQLAlchemySaver\.from_conn_string"),
        (AsyncSession(), r"Write AsyncSQLAlchemySaver\(await session\.connection\(\)\)"),
        (Session(), r"Write SQLAlchemySaver\(session\.connection\(\)\)"),
        (MetaData(), "Pass the engine"),
    ],
)
def test_another_object_of_sqlalchemy_is_refused_with_advice(wrong: Any, advice: str) -> None:
    with pytest.raises(ConfigurationError, match=advice):
        SQLAlchemySaver(wrong)
