"""The schema: Alembic makes it, models and revisions agree, and a saver says where it stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from databases import SYNC, bare_store, on_connection, sync_url
from sqlalchemy import inspect
from stores import KINDS, Store, thread

from checkpoint_sa import (
    AsyncSQLAlchemySaver,
    ConfigurationError,
    SchemaError,
    SQLAlchemySaver,
    migrate,
)
from checkpoint_sa.engine import locks

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["bare_store"]

on_each_engine = pytest.mark.parametrize("bare_store", SYNC, indirect=True)


def script() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(migrate.ini_path()))


def test_there_is_one_head_and_the_package_knows_it() -> None:
    assert script().get_heads() == [migrate.HEAD]


def test_revisions_are_numbered_and_say_what_they_lock() -> None:
    revisions = list(script().walk_revisions())
    numbers = [f"{number:04}" for number in range(len(revisions), 0, -1)]
    names = [revision.revision.partition("_from_")[0] for revision in revisions]
    assert names == [f"checkpoint_sa_{number}" for number in numbers]
    assert revisions[-1].branch_labels == {"checkpoint_sa"}
    for revision in revisions:
        for part in ("Why: ", "Locks: ", "Downgrade: "):
            assert part in revision.longdoc, revision.revision


def test_setup_makes_the_schema_and_the_saver_works(bare_store: Store) -> None:
    bare_store.setup()
    bare_store.save(values={"a": [1]})
    assert bare_store.found(thread()).checkpoint["channel_values"] == {"a": [1]}
    assert on_connection(bare_store, migrate.current) == migrate.HEAD


def test_setup_again_keeps_everything_and_is_cheap(bare_store: Store) -> None:
    bare_store.setup()
    bare_store.save(values={"a": [1]})
    with bare_store.statements() as statements:
        bare_store.setup()
    assert len(statements) <= 4, statements.texts
    assert bare_store.rows() == (1, 1, 0)


def test_models_and_revisions_agree(bare_store: Store) -> None:
    bare_store.setup()

    def check(connection: Connection) -> None:
        config = Config(migrate.ini_path())
        config.attributes.update(connection=connection, schema=None)
        command.check(config)  # raises where autogenerate would change something

    on_connection(bare_store, check)


def test_a_database_without_tables_is_an_error_that_names_the_command(bare_store: Store) -> None:
    with pytest.raises(SchemaError) as error:
        bare_store.get_tuple(thread())
    assert "no checkpoint tables" in str(error.value)
    assert migrate.HEAD in str(error.value)
    assert "alembic upgrade head" in str(error.value)


@pytest.mark.parametrize(
    ("found", "advice"),
    [("checkpoint_sa_0001", "alembic upgrade head"), ("checkpoint_sa_9999", "Install the release")],
)
def test_another_revision_is_an_error_that_names_both(
    bare_store: Store, found: str, advice: str
) -> None:
    bare_store.setup()
    bare_store.sql(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '{found}'")
    with pytest.raises(SchemaError) as error:
        bare_store.using(bare_store.make_saver()).list(None)
    for part in (found, migrate.HEAD, advice):
        assert part in str(error.value)


def test_a_saver_that_found_no_tables_works_after_setup(bare_store: Store) -> None:
    with pytest.raises(SchemaError):
        bare_store.get_tuple(thread())
    bare_store.setup()
    assert bare_store.get_tuple(thread()) is None


def test_the_revision_is_checked_once(store: Store) -> None:
    saver = store.using(store.make_saver())
    saver.get_tuple(thread())
    with store.statements() as statements:
        saver.get_tuple(thread())
    assert not [s for s in statements.texts if migrate.VERSION_TABLE in s]


def test_every_revision_goes_down_and_up_again(bare_store: Store) -> None:
    bare_store.setup()
    bare_store.save(values={"a": [1]})
    url = sync_url(bare_store)
    revisions = [revision.revision for revision in script().walk_revisions()]
    for revision in revisions[1:]:
        migrate.downgrade(url, revision)
        assert bare_store.rows() == (1, 1, 0)
    for revision in reversed(revisions[:-1]):
        migrate.upgrade(url, revision)
        assert migrate.current(url) == revision
    assert bare_store.found(thread()).checkpoint["channel_values"] == {"a": [1]}
    migrate.downgrade(url, "base")
    assert on_connection(bare_store, migrate.current) is None
    bare_store.setup()
    assert bare_store.rows() == (0, 0, 0)


def test_a_half_applied_upgrade_is_completed(bare_store: Store) -> None:
    bare_store.setup()
    # As an engine without transactional DDL is left by a crash: tables, but no revision.
    bare_store.sql(f"DELETE FROM {migrate.VERSION_TABLE}")
    bare_store.sql("DROP TABLE checkpoint_writes")
    bare_store.setup()
    assert bare_store.rows() == (0, 0, 0)
    assert on_connection(bare_store, migrate.current) == migrate.HEAD


EIGHT_PROCESSES = """
import os, sys, traceback
import alembic.command
from checkpoint_sa import SQLAlchemySaver

def upgrade():
    try:
        with SQLAlchemySaver.from_conn_string(sys.argv[1]) as saver:
            saver.setup()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

children = [os.fork() or upgrade() for _ in range(8)]
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


# With async drivers: test_peer_bugs.py.
@pytest.mark.parametrize("bare_store", SYNC, indirect=True)
def test_eight_processes_set_up_one_database(bare_store: Store) -> None:
    result = subprocess.run(
        [sys.executable, "-c", EIGHT_PROCESSES, bare_store.url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert bare_store.sql(f"SELECT version_num FROM {migrate.VERSION_TABLE}") == [(migrate.HEAD,)]


# The command alembic


def alembic(
    *arguments: str, url: str | None = None, environ: dict[str, str] | None = None, x: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the real command with the packaged ini, from somewhere else."""
    given = [f"-xurl={url}"] if url else []
    given += [f"-x{x}"] if x else []
    return subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(migrate.ini_path()), *given, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, **(environ or {})},
    )


def test_the_alembic_command_upgrades(bare_store: Store) -> None:
    result = alembic("upgrade", "head", url=bare_store.url)
    assert result.returncode == 0, result.stderr
    assert on_connection(bare_store, migrate.current) == migrate.HEAD
    bare_store.save(values={"a": [1]})


SEVERAL_COMMANDS = """
import json, sys
from alembic.config import main
for arguments in json.loads(sys.argv[2]):
    print("$", *arguments, flush=True)
    main(["-c", sys.argv[1], *arguments])
"""


@on_each_engine
def test_every_alembic_command_works(bare_store: Store) -> None:
    commands = [
        ["history"],
        ["current"],
        ["stamp", "checkpoint_sa_0001"],
        ["current"],
        ["stamp", "base"],
        ["upgrade", "head"],
        ["check"],
        ["downgrade", "-1"],
        ["current"],
        ["upgrade", "head", "--sql"],
    ]
    result = subprocess.run(
        [sys.executable, "-c", SEVERAL_COMMANDS, str(migrate.ini_path()), json.dumps(commands)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, "CHECKPOINT_SA_URL": bare_store.url},
    )
    assert result.returncode == 0, result.stderr
    said = [part.partition("\n") for part in result.stdout.split("$ ")[1:]]
    output = [text.strip() for _, _, text in said]
    assert output[0].count(" -> ") == len(list(script().walk_revisions()))
    assert output[1] == ""
    assert output[3] == "checkpoint_sa_0001"
    assert "No new upgrade operations detected" in output[6]
    assert output[8] == "checkpoint_sa_0006_from_0005"
    # PostgreSQL's script has a `$$ ` of its own, at which it was split.
    assert "".join(output[9:]).count("CREATE TABLE") == 7


def test_the_alembic_command_without_a_database_says_how_to_name_one() -> None:
    result = alembic("upgrade", "head", environ={"CHECKPOINT_SA_URL": ""})
    assert result.returncode != 0
    assert "CHECKPOINT_SA_URL" in result.stdout + result.stderr


def test_the_alembic_command_takes_the_url_of_the_ini_with_percent_signs(tmp_path: Path) -> None:
    ini = tmp_path / "alembic.ini"
    packaged = migrate.ini_path()
    ini.write_text(
        packaged.read_text()
        .replace("%(here)s", str(packaged.parent))
        .replace(
            "# sqlalchemy.url = postgresql://user@host/database",
            f"sqlalchemy.url = sqlite:///{tmp_path}/a%%25b.db",
        )
    )
    subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ini), "upgrade", "head"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        env={**os.environ, "CHECKPOINT_SA_URL": ""},
    )
    assert list(tmp_path.glob("a%*.db"))


@pytest.mark.parametrize(
    "bare_store", ["pg-psycopg", "pg-asyncpg", "mariadb-pymysql", "mysql-async"], indirect=True
)
def test_a_password_with_percent_signs_works(bare_store: Store) -> None:
    is_postgresql = bare_store.kind.server == "postgresql"
    password = "p%41@/%%"
    if is_postgresql:
        bare_store.sql(f"CREATE ROLE percent LOGIN SUPERUSER PASSWORD '{password}'")
    else:
        bare_store.sql(f"CREATE USER percent@'%' IDENTIFIED BY '{password}'")
        bare_store.sql("GRANT ALL ON bare.* TO percent@'%'")
    try:
        url = bare_store.engine.url.set(username="percent", password=password)
        text = url.render_as_string(hide_password=False)
        result = alembic("upgrade", "head", url=text)
        assert result.returncode == 0, result.stderr
        assert on_connection(bare_store, migrate.current) == migrate.HEAD
    finally:
        if is_postgresql:
            bare_store.sql("DROP OWNED BY percent CASCADE")
        bare_store.sql("DROP ROLE percent" if is_postgresql else "DROP USER percent@'%'")


@on_each_engine
def test_the_alembic_command_says_whom_to_wait_for(bare_store: Store) -> None:

    with bare_store.engine.connect() as connection, locks.migration_lock(connection):
        result = alembic("upgrade", "head", url=bare_store.url, x="lock_timeout=0.5")
    assert result.returncode != 0
    assert "Another session has held the right" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


# The schema, for a review to see


def dump(connection: Connection) -> str:
    """Describe our tables as the engine does."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
        )
        return "".join(f"{row[0]};\n\n".replace("\t", "    ") for row in rows)
    if connection.dialect.name == "postgresql":
        tables = connection.exec_driver_sql(
            "SELECT table_name, column_name, data_type, is_nullable, column_default"
            " FROM information_schema.columns WHERE table_schema = 'public'"
            " ORDER BY table_name, ordinal_position"
        )
        indexes = connection.exec_driver_sql(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"
        )
        columns = "".join(
            f"{table}.{name} {kind}{'' if null == 'YES' else ' NOT NULL'}"
            f"{f' DEFAULT {default}' if default else ''}\n"
            for table, name, kind, null, default in tables
        )
        return columns + "\n" + "".join(f"{row[0]}\n" for row in indexes)
    inspector = inspect(connection)
    shown = [
        connection.exec_driver_sql(f"SHOW CREATE TABLE {table}").one()[1]
        for table in sorted(inspector.get_table_names())
    ]
    # The last line tells the server's defaults, which our tables don't depend on.
    return "".join(f"{sql.rpartition(chr(10))[0]}\n)\n\n" for sql in shown)


SCHEMAS = Path(__file__).parent / "schema"


@on_each_engine
def test_the_schema_is_the_one_in_the_dump(bare_store: Store) -> None:
    """CHECKPOINT_SA_WRITE_SCHEMA=1 pytest -k schema_is_the_one writes the dumps anew."""
    bare_store.setup()
    file = SCHEMAS / f"{bare_store.kind.server or 'sqlite'}.txt"
    lines = on_connection(bare_store, dump).rstrip().splitlines()
    found = "".join(f"{line.rstrip()}\n" for line in lines)
    if os.environ.get("CHECKPOINT_SA_WRITE_SCHEMA"):
        file.write_text(found)
    assert found == file.read_text()


# Databases of earlier revisions, as files: one for each revision from the first release on


@pytest.mark.parametrize("file", sorted(SCHEMAS.glob("stored_*.sql")), ids=lambda file: file.stem)
def test_a_stored_database_of_an_earlier_revision_upgrades(file: Path, tmp_path: Path) -> None:
    """`python tests/stored.py` writes one for the revision that is the head."""
    import sqlite3  # noqa: PLC0415

    database = tmp_path / "stored.db"
    connection = sqlite3.connect(database)
    connection.executescript(file.read_text())
    connection.close()
    store = Store(KINDS["sqlite"], f"sqlite+pysqlite:///{database}")
    assert migrate.current(store.engine) == file.stem.removeprefix("stored_")
    store.setup()
    migrate.verify(store.engine)
    latest = store.found(thread("stored"))
    assert latest.checkpoint["channel_values"] == {"large": ["ü", 1], "small": "x"}
    assert latest.pending_writes == [("task", "large", {"a": None})]
    assert latest.parent_config is not None
    store.save(parent=latest.config)
    assert len(store.list(thread("stored"))) == 3
    store.close()


def test_there_is_a_stored_database_of_each_revision() -> None:
    stored = {file.stem for file in SCHEMAS.glob("stored_*.sql")}
    assert stored == {f"stored_{revision.revision}" for revision in script().walk_revisions()}


def test_setup_on_a_connection_is_the_callers_to_commit(bare_store: Store) -> None:
    if bare_store.kind.server in ("mariadb", "mysql"):
        expected: type[Exception] | None = ConfigurationError  # their DDL commits by itself
    else:
        expected = None

    async def use_async() -> None:
        assert bare_store.async_engine is not None
        async with bare_store.async_engine.connect() as connection:
            with pytest.raises(expected) if expected else nullcontext():
                await AsyncSQLAlchemySaver(connection).setup()
            await connection.rollback()

    if bare_store.kind.is_async:
        bare_store.run(use_async())
    else:
        with bare_store.engine.connect() as connection:
            with pytest.raises(expected) if expected else nullcontext():
                SQLAlchemySaver(connection).setup()
            connection.rollback()
    assert on_connection(bare_store, migrate.current) is None
