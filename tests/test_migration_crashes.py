"""An upgrade is killed before each of the changes that it makes: the next one completes it.

And many at once on tables of other packages, which take their time.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from databases import SYNC, as_admin, bare_store, sync_url
from stores import Store, thread
from test_migration_adoption import (
    fill_mysql_tables,
    logical,
    make_mysql_tables,
    make_peer_tables,
    structure,
)

from checkpoint_sa import metadata, migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["bare_store"]

KILLED_UPGRADES = """
import os, signal, sys
import alembic.command
from sqlalchemy import event
from checkpoint_sa import migrate
from checkpoint_sa.engine import engines

QUESTIONS = ("SELECT", "SHOW", "PRAGMA", "DESCRIBE")

def upgrade(url, last):
    engine = engines.make_engine(url)
    changes = 0

    @event.listens_for(engine, "before_cursor_execute")
    def kill(connection, cursor, statement, *_):
        nonlocal changes
        changes += not statement.lstrip().upper().startswith(QUESTIONS)
        if changes == last:
            print(f"killed before: {' '.join(statement.split())[:100]}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    migrate.upgrade(engine)
    print("done", flush=True)
    os._exit(0)

for line in sys.stdin:
    child = os.fork() or upgrade(sys.argv[1], int(line))
    if os.waitpid(child, 0)[1] not in (0, signal.SIGKILL):
        sys.exit("an upgrade failed by itself")
"""


@contextmanager
def killed_upgrades(url: str) -> Iterator[Callable[[int], str]]:
    """Yield a function that runs an upgrade and kills it before its n-th change.

    A helper process forks for each, since it has no threads and has imported everything.
    """
    command = [sys.executable, "-c", KILLED_UPGRADES, url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as helper:
        assert helper.stdin is not None
        assert helper.stdout is not None

        def run(change: int) -> str:
            assert helper.stdin is not None
            assert helper.stdout is not None
            helper.stdin.write(f"{change}\n")
            helper.stdin.flush()
            return helper.stdout.readline().strip()

        yield run
        helper.stdin.close()
    assert helper.returncode == 0


def start_anew(store: Store) -> None:
    if not store.kind.server:
        for table in metadata.tables:
            store.sql(f"DROP TABLE IF EXISTS {table}")
        store.sql(f"DROP TABLE IF EXISTS {migrate.VERSION_TABLE}")
        return
    store.engine.dispose()
    admin = Store(store.kind, sync_url(store).replace("/bare", "/test"))
    as_admin(admin, "DROP DATABASE bare", "CREATE DATABASE bare")
    admin.close()


def kill_everywhere(store: Store, prepare: Callable[[], None], check: Callable[[], None]) -> int:
    """Kill an upgrade before each change it makes, and complete it each time; count the kills."""
    with killed_upgrades(store.url) as run:
        for change in range(1, 100):
            start_anew(store)
            prepare()
            outcome = run(change)
            if outcome == "done":
                return change - 1
            assert outcome.startswith("killed before"), outcome
            store.setup()
            migrate.verify(store.engine)
            check()
    pytest.fail("there is no end of changes")


@pytest.mark.parametrize("bare_store", SYNC, indirect=True)
def test_a_new_database_is_completed(bare_store: Store) -> None:
    bare_store.setup()
    expected = structure(bare_store)

    def check() -> None:
        assert structure(bare_store) == expected
        bare_store.save("t", {"a": [1]})

    assert kill_everywhere(bare_store, lambda: None, check) >= 7


@pytest.mark.parametrize("version", [3, 9])
@pytest.mark.parametrize("bare_store", ["pg-psycopg"], indirect=True)
def test_tables_of_the_postgres_saver_are_completed(bare_store: Store, version: int) -> None:
    def check() -> None:
        assert bare_store.found(thread()).checkpoint["channel_values"]["large"] == ["large"]
        valid = bare_store.sql("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
        assert valid == [(0,)]

    assert kill_everywhere(bare_store, lambda: make_peer_tables(bare_store, version), check) >= 7


@pytest.mark.parametrize("bare_store", ["mariadb-pymysql", "mysql-pymysql"], indirect=True)
def test_tables_of_the_mysql_saver_are_converted_to_the_end(bare_store: Store) -> None:
    bare_store.setup()
    expected = structure(bare_store)
    before: list[object] = []

    def prepare() -> None:
        make_mysql_tables(bare_store.engine, 21)
        fill_mysql_tables(bare_store.engine)
        before[:] = logical(bare_store)

    def check() -> None:
        assert structure(bare_store) == expected
        assert logical(bare_store) == before
        assert bare_store.sql("SELECT count(*) FROM checkpoints WHERE run_id IS NULL") == [(0,)]
        assert bare_store.found(thread("ü")).checkpoint["channel_values"]["small"] == "x"

    assert kill_everywhere(bare_store, prepare, check) >= 10


EIGHT_UPGRADES = """
import os, sys, traceback
import alembic.command
from checkpoint_sa import migrate

def upgrade():
    try:
        migrate.upgrade(sys.argv[1])
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

children = [os.fork() or upgrade() for _ in range(8)]
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


@pytest.mark.parametrize(
    "bare_store", ["pg-psycopg", "mariadb-pymysql", "mysql-pymysql"], indirect=True
)
def test_eight_processes_adopt_one_database(bare_store: Store) -> None:
    if bare_store.kind.server == "postgresql":
        make_peer_tables(bare_store, 3)
    else:
        make_mysql_tables(bare_store.engine, 21)
        fill_mysql_tables(bare_store.engine)
    result = subprocess.run(
        [sys.executable, "-c", EIGHT_UPGRADES, bare_store.url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    migrate.verify(bare_store.engine)
    assert bare_store.found(thread()).checkpoint["channel_values"]["small"] == "x"
