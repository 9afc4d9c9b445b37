"""The command `checkpoint-sa`: the schema from a deploy pipeline or a readiness probe.

On argparse: these commands must run wherever the package is installed, without an extra that an
image may lack, and a probe starts them every few seconds. Tables, progress bars and completion can
join from an extra later, on the same parser.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from checkpoint_sa import engines, migrate
from checkpoint_sa.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, SCHEMA, USAGE, DATABASE = range(4)

_EPILOG = """\
exit codes:
  0  done; verify: the database is at this release's revision
  1  the schema: behind, ahead, not there, another package's, or locked by another migration
  2  usage: an argument, the URL, a driver that isn't installed
  3  the database: can't be reached, or refused a statement

A URL on the command line shows in the list of processes; CHECKPOINT_SA_URL doesn't.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. Errors go to standard error, without a password."""
    given = _parser().parse_args(arguments)
    try:
        given.run(given)
    except ConfigurationError as error:
        return _fail(error, given, USAGE)
    except CheckpointError as error:
        return _fail(error, given, SCHEMA)
    except (ArgumentError, ImportError) as error:
        return _fail(error, given, USAGE)
    except (SQLAlchemyError, OSError) as error:
        return _fail(error, given, DATABASE)
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="checkpoint-sa",
        description="The database schema of LangGraph checkpoints.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run, url=None)
        return command

    upgrade = add("upgrade", _upgrade, "make the tables, or bring them to this release's revision")
    _add_database(upgrade)
    _add_lock_timeout(upgrade)
    upgrade.add_argument("revision", nargs="?", default="head", help="default: head")

    downgrade = add("downgrade", _downgrade, "take the tables back to an earlier revision")
    _add_database(downgrade)
    _add_lock_timeout(downgrade)
    downgrade.add_argument("revision", help="a revision, or base: no tables")
    downgrade.add_argument(
        "--drop-all-checkpoints",
        action="store_true",
        help="needed for base, which drops the tables with everything in them",
    )

    _add_database(add("current", _current, "print the revision that the database is at"))
    _add_database(
        add("verify", _verify, "check, without changing anything, that it is this release's")
    )

    sql = add("sql", _sql, "print an upgrade as an SQL script; no database, no driver is needed")
    _add_database(sql)
    sql.add_argument("--dialect", help="instead of a URL: postgresql, mysql, mariadb, sqlite, ...")
    sql.add_argument("--downgrade", action="store_true", help="the way back; revision is from:to")
    sql.add_argument("revision", nargs="?", default="head", help="head, or from:to")

    add("ini", _ini, "print where the packaged alembic.ini lies, for alembic -c")
    return parser


def _add_database(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--url",
        default=os.environ.get("CHECKPOINT_SA_URL"),
        help="the database; default: the environment's CHECKPOINT_SA_URL",
    )
    command.add_argument(
        "--schema",
        default=os.environ.get("CHECKPOINT_SA_SCHEMA") or None,
        help="the schema of the tables; default: CHECKPOINT_SA_SCHEMA, else the database's own",
    )


def _add_lock_timeout(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lock-timeout",
        type=float,
        default=os.environ.get("CHECKPOINT_SA_LOCK_TIMEOUT", engines.LOCK_SECONDS),
        metavar="SECONDS",
        help="how long to wait for another migration or a long transaction (default: %(default)s)",
    )


def _url(given: argparse.Namespace) -> str:
    if not given.url:
        raise ConfigurationError(
            "No database. Set CHECKPOINT_SA_URL, or pass --url postgresql://user@host/database."
        )
    return str(given.url)


def _upgrade(given: argparse.Namespace) -> None:
    url = _url(given)
    migrate.upgrade(url, given.revision, schema=given.schema, lock_timeout=given.lock_timeout)
    _say_revision(url, given)


def _downgrade(given: argparse.Namespace) -> None:
    url = _url(given)
    if given.revision == "base" and not given.drop_all_checkpoints:
        raise ConfigurationError(
            "base drops the tables with every checkpoint in them. If that is what you want, add"
            " --drop-all-checkpoints."
        )
    migrate.downgrade(url, given.revision, schema=given.schema, lock_timeout=given.lock_timeout)
    _say_revision(url, given)


def _current(given: argparse.Namespace) -> None:
    _say_revision(_url(given), given)


def _say_revision(url: str, given: argparse.Namespace) -> None:
    _say(migrate.current(url, schema=given.schema) or "none")


def _verify(given: argparse.Namespace) -> None:
    migrate.verify(_url(given), schema=given.schema)
    _say(migrate.HEAD)


def _sql(given: argparse.Namespace) -> None:
    bind = given.dialect or _url(given)
    script = migrate.sql(bind, given.revision, schema=given.schema, downgrade=given.downgrade)
    _say(script.rstrip())


def _ini(_: argparse.Namespace) -> None:
    _say(str(migrate.ini_path()))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _fail(error: Exception, given: argparse.Namespace, code: int) -> int:
    sys.stderr.write(f"checkpoint-sa: {_without_password(str(error), given.url)}\n")
    return code


def _without_password(text: str, url: str | None) -> str:
    """Hide a password in what a driver says, in case one quotes what it was given."""
    try:
        password = engines.url_of(url).password if url else None
    except ConfigurationError:
        return text
    for form in {password, quote(password), quote_plus(password)} if password else ():
        text = text.replace(form, "***")
    return text
