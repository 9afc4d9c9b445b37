"""The schema: Alembic makes it, models and revisions agree, and a saver says where it stands."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from stores import KINDS, Kind, Store, thread

from checkpoint_sa import SchemaError, migrate

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Server
    from sqlalchemy import Connection


@pytest.fixture(params=list(KINDS))
def bare_store(
    request: pytest.FixtureRequest, start_server: Callable[[str], Server], tmp_path: Path
) -> Iterator[Store]:
    """A store on a database without tables."""
    kind = KINDS[request.param]
    if not kind.server:
        store = Store(kind, f"{kind.driver}:///{tmp_path / 'bare.db'}")
        yield store
        store.close()
        return
    server = start_server(kind.server)
    admin = Store(sync_twin(kind), server.url(sync_twin(kind).driver))
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DROP DATABASE IF EXISTS bare"))
        connection.execute(text("CREATE DATABASE bare"))
    url = server.url(kind.driver).replace(f"/{server.database}", "/bare")
    store = Store(kind, url)
    yield store
    store.close()
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DROP DATABASE bare"))
    admin.close()


def sync_twin(kind: Kind) -> Kind:
    return next(k for k in KINDS.values() if k.server == kind.server and not k.is_async)


def on_connection(store: Store, function: Callable[[Connection], T]) -> T:
    """Call a function with a connection of the store, sync or through run_sync."""
    if store.async_engine is None:
        with store.engine.connect() as connection:
            return function(connection)

    async def call() -> T:
        assert store.async_engine is not None
        async with store.async_engine.connect() as connection:
            return await connection.run_sync(function)

    return store.run(call())  # type: ignore[no-any-return]


def script() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(migrate.ini_path()))


def test_there_is_one_head_and_the_package_knows_it() -> None:
    assert script().get_heads() == [migrate.HEAD]


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
    revisions = [revision.revision for revision in script().walk_revisions()]
    for revision in [*revisions[1:], "base"]:
        on_connection(bare_store, partial(alembic, action=command.downgrade, revision=revision))
        if revision != "base":
            assert bare_store.count("checkpoints") == 1
    assert on_connection(bare_store, migrate.current) is None
    bare_store.setup()
    assert bare_store.rows() == (0, 0, 0)


def alembic(connection: Connection, *, action: Callable[..., None], revision: str) -> None:
    config = Config(migrate.ini_path())
    config.attributes.update(connection=connection, schema=None)
    with migrate._process_lock:
        action(config, revision)
    connection.commit()


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


def test_eight_processes_set_up_one_database(bare_store: Store) -> None:
    url = bare_store.url.replace(bare_store.kind.driver, sync_twin(bare_store.kind).driver)
    result = subprocess.run(
        [sys.executable, "-c", EIGHT_PROCESSES, url], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert bare_store.sql(f"SELECT version_num FROM {migrate.VERSION_TABLE}") == [(migrate.HEAD,)]


def test_the_command_line_upgrades(bare_store: Store) -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "alembic",
            "-c",
            str(migrate.ini_path()),
            "-x",
            f"url={bare_store.url}",
            "upgrade",
            "head",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert result.returncode == 0, result.stderr
    assert on_connection(bare_store, migrate.current) == migrate.HEAD
    bare_store.save(values={"a": [1]})
