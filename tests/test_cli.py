"""The command `checkpoint-sa`: what it prints, its exit codes, and that no password is shown."""

from __future__ import annotations

import importlib.metadata
import os
import runpy
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from databases import bare_store, on_connection
from sqlalchemy import URL
from stores import KINDS, Store

import checkpoint_sa
from checkpoint_sa import migrate
from checkpoint_sa.__main__ import run
from checkpoint_sa.cli import DATA, main
from checkpoint_sa.engine import engines, locks

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["bare_store"]

DONE, SCHEMA, USAGE, DATABASE = range(4)

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "SCHEMA", "LOCK_TIMEOUT"):
        monkeypatch.delenv(f"CHECKPOINT_SA_{name}", raising=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'app.db'}"


@pytest.mark.parametrize("bare_store", list(KINDS), indirect=True)
def test_every_command_on_every_driver(bare_store: Store, capsys: Captured) -> None:
    given = ["--url", bare_store.url]
    assert main(["upgrade", *given]) == DONE
    assert main(["verify", *given]) == DONE
    assert main(["downgrade", "checkpoint_sa_0001", *given]) == DONE
    assert main(["current", *given]) == DONE
    assert main(["verify", *given]) == SCHEMA
    assert main(["upgrade", *given]) == DONE
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        migrate.HEAD,
        migrate.HEAD,
        "checkpoint_sa_0001",
        "checkpoint_sa_0001",
        migrate.HEAD,
    ]
    for part in ("checkpoint_sa_0001", migrate.HEAD, "checkpoint-sa upgrade"):
        assert part in said.err
    assert on_connection(bare_store, migrate.current) == migrate.HEAD


def test_the_database_comes_from_the_environment(
    url: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKPOINT_SA_URL", url)
    assert main(["upgrade"]) == DONE
    assert main(["verify", "--url", url]) == DONE
    assert capsys.readouterr().out == f"{migrate.HEAD}\n{migrate.HEAD}\n"


def test_verify_of_a_database_without_tables(url: str, capsys: Captured) -> None:
    main(["upgrade", "--url", url])
    main(["downgrade", "base", "--drop-all-checkpoints", "--url", url])
    assert main(["current", "--url", url]) == DONE
    assert main(["verify", "--url", url]) == SCHEMA
    said = capsys.readouterr()
    assert said.out == f"{migrate.HEAD}\nnone\nnone\n"
    assert "no checkpoint tables" in said.err


def test_a_probe_loads_neither_langgraph_nor_alembic_nor_the_orm(url: str) -> None:
    migrate.upgrade(url)
    program = (
        "import sys; from checkpoint_sa.cli import main;"
        " assert main(['verify', '--url', sys.argv[1]]) == 0;"
        " slow = {'langgraph', 'langchain_core', 'alembic', 'sqlalchemy.orm', 'rich'};"
        " assert not slow & sys.modules.keys(), slow & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program, url], check=True)


def test_every_public_name_is_there_at_its_first_use() -> None:
    program = (
        "import checkpoint_sa;"
        " assert all(getattr(checkpoint_sa, name) for name in checkpoint_sa.__all__);"
        " assert set(checkpoint_sa.__all__) <= set(dir(checkpoint_sa));"
        " assert checkpoint_sa.migrate.HEAD and not hasattr(checkpoint_sa, 'nosuch')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_nothing_is_dropped_by_accident(url: str, capsys: Captured) -> None:
    main(["upgrade", "--url", url])
    assert main(["downgrade", "base", "--url", url]) == USAGE
    assert "--drop-all-checkpoints" in capsys.readouterr().err
    migrate.verify(url)


def test_a_lock_that_cannot_be_had(url: str, capsys: Captured) -> None:
    with engines.make_engine(url).connect() as connection, locks.migration_lock(connection):
        assert main(["upgrade", "--url", url, "--lock-timeout", "0.2"]) == SCHEMA
    assert "Another session" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["upgrade"], USAGE, "CHECKPOINT_SA_URL"),
        (["upgrade", "--url", "app:s3cr%25t@host"], USAGE, "isn't a database URL"),
        (["verify", "--url", "nosuch://app:s3cr%25t@host/app"], USAGE, "nosuch"),
        (["verify", "--url", "mssql+pyodbc://app:s3cr%25t@host/app"], USAGE, "pyodbc"),
        (["sql", "--dialect", "nosuch"], USAGE, "nosuch"),
        (["verify", "--url", "postgresql+psycopg://app:s3cr%25t@127.0.0.1:1/app"], DATABASE, ""),
        (["verify", "--url", "postgresql+asyncpg://app:s3cr%25t@127.0.0.1:1/app"], DATABASE, ""),
        (["upgrade", "--url", "mysql+pymysql://app:s3cr%25t@127.0.0.1:1/app"], DATABASE, ""),
        (
            ["current", "--url", "sqlite:////nowhere/app.db"],
            DATABASE,
            "no SQLite file /nowhere/app.db",
        ),
    ],
)
def test_a_failure_has_its_exit_code_and_shows_no_password(
    arguments: list[str], code: int, message: str, capsys: Captured
) -> None:
    assert main(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("checkpoint-sa: ")
    assert message in said.err
    for password in ("s3cr%25t", "s3cr%t"):
        assert password not in said.err


@pytest.mark.parametrize(
    ("password", "said", "shown"),
    [
        # A word of the message that has the password's letters.
        ("postgres", "postgresql+psycopg://app:***@db/app is down", None),
        ("app", 'no database "app" for user "app" in application', None),
        ("e", "the server is not there", None),
        # The password itself.
        ("s3cret", "postgresql://app:s3cret@db/app", "postgresql://app:***@db/app"),
        ("s3c/ret", "postgresql://app:s3c%2Fret@db/app", "postgresql://app:***@db/app"),
        ("s3cret", 'missing "=" after "s3cret" in', 'missing "=" after "***" in'),
        ("it's", 'argument "it\'s" is odd', 'argument "***" is odd'),
        ("s3cret", "host=db password=s3cret user=app", "host=db password=*** user=app"),
    ],
)
def test_a_message_hides_a_password_and_no_other_word(
    password: str,
    said: str,
    shown: str | None,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(said)

    url = URL.create("postgresql+psycopg", "app", password, "127.0.0.1", 1, "app")
    monkeypatch.setattr(migrate, "current", fail)
    assert main(["current", "--url", url.render_as_string(hide_password=False)]) == DATABASE
    assert capsys.readouterr().err == f"checkpoint-sa: {shown or said}\n"


def test_the_version_is_that_of_the_installed_package(capsys: Captured) -> None:
    assert checkpoint_sa.__version__ == importlib.metadata.version("langgraph-checkpoint-sa")
    with pytest.raises(SystemExit) as error:
        main(["--version"])
    assert error.value.code == DONE
    assert capsys.readouterr().out == f"checkpoint-sa {checkpoint_sa.__version__}\n"


def test_a_package_that_is_not_installed_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert checkpoint_sa.__version__ == "0+unknown"


@pytest.mark.parametrize(
    "command",
    [
        *("threads", "history t", "show t", "diff t 1 2", "stats", "verify", "current"),
        *("prune --all --keep 1 --yes", "delete t --yes", "vacuum-orphans --yes"),
        *("downgrade checkpoint_sa_0001", "rewrite --plain"),
    ],
)
@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_a_typo_makes_no_file(tmp_path: Path, capsys: Captured, command: str, driver: str) -> None:
    path = tmp_path / "tpyo.db"
    assert main([*command.split(), "--url", f"{driver}:///{path}"]) == DATABASE
    said = capsys.readouterr()
    assert said.out == ""
    assert f"There is no SQLite file {path}" in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["copy", "import"])
def test_a_typo_in_a_source_or_a_target_makes_no_file(
    url: str, tmp_path: Path, capsys: Captured, command: str
) -> None:
    typo = f"sqlite:///{tmp_path / 'tpyo.db'}"
    main(["upgrade", "--url", url])
    assert main([command, "--from", typo, "--to", url]) == DATABASE
    assert main([command, "--from", url, "--to", typo]) == DATABASE
    assert capsys.readouterr().err.count("There is no SQLite file") == 2
    assert not (tmp_path / "tpyo.db").exists()


INTERRUPTED = """
import os, signal, sys
from checkpoint_sa.__main__ import run
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
where = sys.argv.pop(1)
if where == "import":
    class Finder:
        def find_spec(self, name, *_):
            if name == "checkpoint_sa.cli":
                os.kill(os.getpid(), signal.SIGINT)
    sys.meta_path.insert(0, Finder())
else:
    from checkpoint_sa import migrate
    migrate.current = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)
sys.exit(run())
"""


@pytest.mark.parametrize("where", ["import", "command"])
def test_ctrl_c_is_a_line_and_an_exit_code(url: str, where: str) -> None:
    migrate.upgrade(url)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, where, "current", "--url", url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "checkpoint-sa: interrupted\n"


def test_a_revision_that_is_not_there(url: str, capsys: Captured) -> None:
    assert main(["upgrade", "nosuch", "--url", url]) == SCHEMA
    assert "nosuch" in capsys.readouterr().err


def test_an_unknown_command_is_a_usage_error(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as error:
        main(["nosuch"])
    assert error.value.code == USAGE
    assert "nosuch" in capsys.readouterr().err


def test_sql_prints_a_script(capsys: Captured) -> None:
    assert main(["sql", "--dialect", "postgresql"]) == DONE
    assert capsys.readouterr().out.strip() == migrate.sql("postgresql").strip()
    assert main(["sql", "--dialect", "mysql", "--downgrade", f"{migrate.HEAD}:base"]) == DONE
    assert capsys.readouterr().out.count("DROP TABLE") == 6


def test_ini_prints_where_the_packaged_ini_lies(capsys: Captured) -> None:
    assert main(["ini"]) == DONE
    assert capsys.readouterr().out == f"{migrate.ini_path()}\n"


def test_python_m_runs_it(url: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "checkpoint_sa", "upgrade", "--url", url],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{migrate.HEAD}\n", "")


def test_the_help_documents_every_command_and_exit_code(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for command in ("upgrade", "downgrade", "current", "verify", "sql", "rewrite", "ini"):
        assert f"    {command}" in said
    for code in (DONE, SCHEMA, USAGE, DATABASE):
        assert f"\n  {code}  " in said


def test_the_module_runs_the_command(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["checkpoint-sa", "current", "--url", sqlite_store.url])
    monkeypatch.delitem(sys.modules, run.__module__)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("checkpoint_sa", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{migrate.HEAD}\n"


@pytest.mark.parametrize("when", ["in a command", "in an import"])
def test_ctrl_c_ends_the_process_with_its_code(
    sqlite_store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    when: str,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    place = "checkpoint_sa.cli.database.run" if when == "in a command" else "checkpoint_sa.cli.main"
    monkeypatch.setattr(place, interrupt)
    monkeypatch.setattr(sys, "argv", ["checkpoint-sa", "threads", "--url", sqlite_store.url])
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 130
    assert capsys.readouterr().err.count("interrupted") == 1


@pytest.mark.parametrize("command", ["upgrade", "verify", "threads"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, capsys: Captured, command: str) -> None:
    text = tmp_path / "text.db"
    text.write_text("a letter")
    for name, code, message in (
        ("text.db", DATABASE, "text.db isn't a database of SQLite"),
        ("", USAGE, "is a folder"),
        ("none/app.db", DATABASE, "app.db"),
    ):
        assert main([command, "--url", f"sqlite:///{tmp_path / name}"]) == code
        assert message in capsys.readouterr().err
    assert text.read_text() == "a letter"


def test_another_applications_table_is_named(tmp_path: Path, capsys: Captured) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE checkpoints (id INTEGER)")
    assert main(["threads", "--url", f"sqlite:///{tmp_path / 'app.db'}"]) == DATA
    assert "of another application" in capsys.readouterr().err
