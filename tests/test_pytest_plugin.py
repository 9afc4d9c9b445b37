"""The fixtures `checkpointer` and `async_checkpointer`, as a project has them that installs us."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from databases import SYNC
from sqlalchemy import Engine, create_engine, event, inspect, text
from stores import KINDS, Kind

from checkpoint_sa import ConfigurationError
from checkpoint_sa.engine import engines
from checkpoint_sa.testing import databases

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Server

pytest_plugins = ["pytester"]

SERVERS = [KINDS[name] for name in SYNC if KINDS[name].server]

TESTS = """
    import pytest
    from langgraph.checkpoint.base import empty_checkpoint

    CONFIG = {"configurable": {"thread_id": "1", "checkpoint_ns": ""}}

    @pytest.mark.parametrize("number", range(3))
    def test_sync(checkpointer, number):
        assert list(checkpointer.list(None)) == []
        checkpointer.put(CONFIG, empty_checkpoint(), {}, {})
        assert checkpointer.get_tuple(CONFIG) is not None

    @pytest.mark.asyncio
    async def test_asyncio(async_checkpointer):
        assert await async_checkpointer.aget_tuple(CONFIG) is None
        await async_checkpointer.aput(CONFIG, empty_checkpoint(), {}, {})
        assert await async_checkpointer.aget_tuple(CONFIG) is not None

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_anyio(async_checkpointer, anyio_backend):
        assert await async_checkpointer.aget_tuple(CONFIG) is None
        await async_checkpointer.aput(CONFIG, empty_checkpoint(), {}, {})

    def test_both_see_one_database(checkpointer, async_checkpointer):
        import asyncio
        checkpointer.put(CONFIG, empty_checkpoint(), {}, {})
        assert asyncio.run(async_checkpointer.aget_tuple(CONFIG)) is not None
        assert asyncio.run(async_checkpointer.aget_tuple(CONFIG)) is not None

    @pytest.mark.parametrize("number", range(2))
    def test_memory(store, number):
        assert store.search(()) == []
        store.put(("users",), "1", {"name": "Ada"})
        assert store.get(("users",), "1").value == {"name": "Ada"}

    @pytest.mark.asyncio
    async def test_async_memory(async_store, store):
        await async_store.aput(("users",), "1", {"name": "Ada"})
        assert (await store.aget(("users",), "1")).value == {"name": "Ada"}
"""
"""Nine tests."""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    options = ["-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    return pytester.runpytest_subprocess(*options, "-W", "error", *arguments)


def left_on(url: str) -> list[str]:
    engine = create_engine(url)
    names = inspect(engine).get_schema_names()
    engine.dispose()
    return [name for name in names if name.startswith(databases.PREFIX)]


def test_sqlite_is_the_default(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    run(pytester).assert_outcomes(passed=9)


def test_a_file_that_the_url_names_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    mine = pytester.path / "app.db"
    run(pytester, f"--checkpoint-url=sqlite:///{mine}").assert_outcomes(passed=9)
    assert not mine.exists()


@pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: kind.server)
def test_a_server_is_left_as_it_was(
    pytester: pytest.Pytester, start_server: Callable[[str], Server], kind: Kind
) -> None:
    url = start_server(kind.server).url(kind.driver)
    pytester.makepyfile(TESTS)
    workers = ("-n", "2") if kind.server == "postgresql" else ()
    run(pytester, *workers, f"--checkpoint-url={url}").assert_outcomes(passed=9)
    assert left_on(url) == []


def test_an_async_driver_serves_the_sync_fixture_by_the_default_driver(
    pytester: pytest.Pytester, start_server: Callable[[str], Server]
) -> None:
    url = start_server("postgresql").url("postgresql+asyncpg")
    pytester.makepyfile(TESTS)
    run(pytester, f"--checkpoint-url={url}").assert_outcomes(passed=9)


def test_several_urls_run_a_test_on_each(
    pytester: pytest.Pytester, start_server: Callable[[str], Server]
) -> None:
    url = start_server("postgresql").url("postgresql+psycopg")
    pytester.makepyfile("def test_it(checkpointer): pass\ndef test_other(): pass")
    pytester.makeini(f"[pytest]\ncheckpoint_urls =\n  sqlite://\n  {url}")
    result = run(pytester, "-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines_random(["*test_it?sqlite?*", "*test_it?postgresql+psycopg?*"])
    assert "--checkpoint-url" in run(pytester, "--help").stdout.str()


@pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: kind.server)
def test_what_a_crash_left_is_dropped_a_day_later(
    start_server: Callable[[str], Server], kind: Kind, tmp_path: Path
) -> None:
    url = start_server(kind.server).url(kind.driver)
    now = int(time.time())
    old, young = (f"{databases.PREFIX}{made}_{kind.server}" for made in (now - 90_000, now - 9))
    foreign = f"{databases.PREFIX}by_someone"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in (old, young, foreign):
            connection.execute(text(f"CREATE SCHEMA {name}"))
        databases.open_database(url, tmp_path).drop()
        assert set(left_on(url)) == {young, foreign}
        for name in (young, foreign):
            connection.execute(text(f"DROP SCHEMA {name}"))
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://app:secret@127.0.0.1:1/app", "can't be reached"),
        ("nonsense", "isn't a database URL"),
        ("nonsense://", "no dialect 'nonsense'"),
        ("mssql://", "no rule for private databases on 'mssql'"),
    ],
    ids=["port", "text", "dialect", "mssql"],
)
def test_a_url_that_does_not_work_is_explained(
    pytester: pytest.Pytester, url: str, message: str
) -> None:
    pytester.makepyfile("def test_it(checkpointer): pass")
    result = run(pytester, f"--checkpoint-url={url}")
    result.assert_outcomes(errors=1)
    output = result.stdout.str()
    assert message in output
    assert "secret" not in output
    assert "Traceback" not in output


def test_a_user_without_the_right_to_make_a_schema_is_told(
    start_server: Callable[[str], Server], tmp_path: Path
) -> None:
    url = engines.url_of(start_server("postgresql").url("postgresql+psycopg"))
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE poor LOGIN PASSWORD 'poor'"))
        with pytest.raises(ConfigurationError, match=r"can't make a schema.*CREATE"):
            databases.open_database(url.set(username="poor", password="poor"), tmp_path)
        connection.execute(text("DROP ROLE poor"))
    engine.dispose()


def test_between_two_tests_sqlite_executes_nothing(tmp_path: Path) -> None:
    database = databases.open_database("sqlite://", tmp_path)
    executed: list[str] = []

    def count(_: object, __: object, statement: str, *___: object) -> None:
        executed.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        for _ in range(3):
            database.begin()
            saver = databases.open_saver(database)
            saver.bind.engine.dispose()
            database.end()
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert executed == []
    database.drop()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: kind.server)
def test_between_two_tests_a_server_gets_six_statements(
    start_server: Callable[[str], Server], kind: Kind, tmp_path: Path
) -> None:
    database = databases.open_database(start_server(kind.server).url(kind.driver), tmp_path)
    executed: list[str] = []

    def count(_: object, __: object, statement: str, *___: object) -> None:
        executed.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    database.begin()
    event.remove(Engine, "before_cursor_execute", count)
    assert [statement.split()[0] for statement in executed] == ["DELETE"] * 6
    database.drop()


def test_a_project_without_the_fixtures_loads_nothing() -> None:
    code = (
        "import sys, pytest, checkpoint_sa_pytest\n"
        "print({'sqlalchemy', 'alembic', 'langgraph', 'checkpoint_sa'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_third_partys_dialect_passes_the_suite(pytester: pytest.Pytester) -> None:
    example = Path(__file__).parent.parent / "examples" / "dialect"
    shutil.copytree(example, pytester.path, dirs_exist_ok=True)
    outcomes = run(pytester).parseoutcomes()
    assert set(outcomes) == {"passed"}
    assert outcomes["passed"] >= 60


def test_an_async_driver_alone_is_enough(
    start_server: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines._MODULES, "psycopg", "psycopg_is_missing")  # noqa: SLF001
    url = start_server("postgresql").url("postgresql+asyncpg")
    database = databases.open_database(url, tmp_path)
    database.begin()
    saver = databases.open_async_saver(database)
    assert asyncio.run(saver.aget_tuple({"configurable": {"thread_id": "1"}})) is None
    with pytest.raises(ConfigurationError, match="needs the driver psycopg"):
        databases.open_saver(database)
    database.drop()
    monkeypatch.undo()
    assert left_on(start_server("postgresql").url("postgresql+psycopg")) == []
