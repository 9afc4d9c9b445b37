"""A later release has upgraded the tables: this one goes on if their revision says so."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from databases import bare_store, on_connection, sync_url
from sqlalchemy import inspect
from stores import Store, thread

from checkpoint_sa import SchemaError, migrate
from checkpoint_sa.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

    Upgrade = Callable[[Store, str], None]

__all__ = ["bare_store"]

TOP = Path(__file__).parents[1]
NUMBER = migrate.HEAD.removeprefix("checkpoint_sa_")[:4]
ADDS = f"checkpoint_sa_9998_from_{NUMBER}"
"""A revision of a later release that only adds."""
NEEDS_LATER = ["checkpoint_sa_9999", "checkpoint_sa_9999_from_9998"]
"""Revisions with which only later releases work."""

REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "{name}"
down_revision = "{head}"


def upgrade():
    column = sa.Column("later", sa.Integer())
    op.add_column("checkpoints", column, schema=op.get_context().opts["checkpoint_sa_schema"])
"""


@pytest.fixture
def upgrade(tmp_path: Path) -> Upgrade:
    """Run `alembic upgrade head` of a release that has one revision more."""
    shutil.copytree(TOP / "migrations", tmp_path / "later" / "migrations")
    ini = Path(shutil.copy(TOP / "alembic.ini", tmp_path / "later"))

    def run(store: Store, name: str) -> None:
        later = tmp_path / "later" / "migrations" / "versions" / "later.py"
        later.write_text(REVISION.format(name=name, head=migrate.HEAD))
        alembic(store, ini)

    return run


def alembic(store: Store, ini: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ini), f"-xurl={store.url}", "upgrade", "head"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


on_each_engine = pytest.mark.parametrize(
    "bare_store", ["sqlite", "pg-asyncpg", "mariadb-pymysql", "mysql-async"], indirect=True
)


@on_each_engine
def test_a_release_works_with_a_later_schema_that_only_adds(
    bare_store: Store,
    upgrade: Upgrade,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migrate, "_accepted", set())  # the warning is logged once a process
    bare_store.setup()
    config = bare_store.save(values={"x": [1]})
    upgrade(bare_store, ADDS)

    with caplog.at_level(logging.WARNING, "checkpoint_sa.migrate"):
        saver = bare_store.using(bare_store.make_saver())
        saver.put_writes(saver.save(parent=config, values={"x": [2]}), [("x", 3)], "task")
    (record,) = caplog.records
    assert record.message == (
        f"The checkpoint tables are at revision {ADDS} of a later release; this release makes"
        f" {migrate.HEAD} and works with them"
    )
    assert saver.found(thread()).pending_writes == [("task", "x", 3)]

    saver.setup()
    assert on_connection(bare_store, migrate.verify) == ADDS
    url = sync_url(bare_store)
    for command in ("verify", "upgrade"):
        assert main([command, "--url", url]) == 0
        assert capsys.readouterr().out == f"{ADDS}\n"
    assert f"{ADDS} of a later release" in alembic(bare_store, migrate.ini_path())
    columns = on_connection(bare_store, lambda c: inspect(c).get_columns("checkpoints"))
    assert "later" in {column["name"] for column in columns}


@on_each_engine
@pytest.mark.parametrize("name", NEEDS_LATER)
def test_a_release_refuses_a_later_schema_that_it_does_not_work_with(
    bare_store: Store, upgrade: Upgrade, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bare_store.setup()
    upgrade(bare_store, name)
    with pytest.raises(SchemaError, match=rf"{name}, with which .* {migrate.HEAD}\. Install"):
        bare_store.using(bare_store.make_saver()).get_tuple(thread())
    with pytest.raises(SchemaError, match=name):
        bare_store.setup()
    for command in ("verify", "upgrade"):
        assert main([command, "--url", sync_url(bare_store)]) == 1
        assert name in capsys.readouterr().err


@pytest.mark.parametrize("bare_store", ["sqlite", "pg-asyncpg", "mysql-pymysql"], indirect=True)
def test_an_applications_version_table_tells_it_as_well(bare_store: Store) -> None:
    bare_store.setup()
    bare_store.sql(f"DROP TABLE {migrate.VERSION_TABLE}")
    bare_store.sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    bare_store.sql(f"INSERT INTO alembic_version VALUES ('{ADDS}'), ('f00')")
    saver = bare_store.using(bare_store.make_saver())
    assert saver.get_tuple(thread()) is None
    saver.setup()


def test_every_revision_from_the_first_release_on_says_which_releases_work_with_it() -> None:
    """Without it a rolling upgrade is an outage; a revision that needs it stands here."""
    named = {"checkpoint_sa_0001", "checkpoint_sa_0002", "checkpoint_sa_0003", "checkpoint_sa_0004"}
    named.add("checkpoint_sa_0005")  # the first release makes it
    for file in (TOP / "migrations" / "versions").glob("0*.py"):
        (line,) = (row for row in file.read_text().splitlines() if row.startswith("revision = "))
        name = line.partition('"')[2].rstrip('"')
        assert name in named or "_from_" in name, name
