"""Commands about the schema, for a deploy pipeline or a readiness probe; and `rewrite`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from checkpoint_sa import migrate
from checkpoint_sa.cli import database, terminal
from checkpoint_sa.engine import locks
from checkpoint_sa.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

    from checkpoint_sa import SQLAlchemySaver
    from checkpoint_sa.cli.terminal import Commands


def add(commands: Commands) -> None:
    """Add the commands of this module."""
    upgrade = terminal.command(
        commands, "upgrade", _upgrade, "make the tables, or bring them to this release's revision"
    )
    database.add_arguments(upgrade)
    _add_lock_timeout(upgrade)
    upgrade.add_argument("revision", nargs="?", default="head", help="default: head")

    downgrade = terminal.command(
        commands, "downgrade", _downgrade, "take the tables back to an earlier revision"
    )
    database.add_arguments(downgrade)
    _add_lock_timeout(downgrade)
    downgrade.add_argument("revision", help="a revision, or base: no tables")
    downgrade.add_argument(
        "--drop-all-checkpoints",
        action="store_true",
        help="needed for base, which drops the tables with everything in them",
    )

    database.add_arguments(
        terminal.command(
            commands, "current", _current, "print the revision of the database's tables"
        )
    )
    database.add_arguments(
        terminal.command(
            commands,
            "verify",
            _verify,
            "check, without changing anything, that this release works with the tables",
        )
    )

    sql = terminal.command(
        commands, "sql", _sql, "print an upgrade as an SQL script; needs no database and no driver"
    )
    database.add_arguments(sql)
    sql.add_argument("--dialect", help="instead of a URL: postgresql, mysql, mariadb, sqlite, ...")
    sql.add_argument("--downgrade", action="store_true", help="the way back; revision is from:to")
    sql.add_argument("revision", nargs="?", default="head", help="head, or from:to")

    rewrite = terminal.command(
        commands, "rewrite", _rewrite, "rewrite values as deltas, or as whole values again"
    )
    database.add_arguments(rewrite)
    form = rewrite.add_mutually_exclusive_group(required=True)
    form.add_argument("--incremental", action="store_true", help="store deltas")
    form.add_argument(
        "--plain",
        dest="incremental",
        action="store_false",
        help="store whole values, which LangGraph's PostgresSaver reads as well",
    )
    rewrite.add_argument("thread", nargs="*", help="the ids of threads; default: all")

    terminal.command(
        commands, "ini", _ini, "print the path of the packaged alembic.ini, for alembic -c"
    )


def _add_lock_timeout(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lock-timeout",
        type=float,
        default=os.environ.get("CHECKPOINT_SA_LOCK_TIMEOUT", locks.LOCK_SECONDS),
        metavar="SECONDS",
        help="how long to wait for another migration or a long transaction (default: %(default)s)",
    )


def _upgrade(args: argparse.Namespace) -> None:
    url = database.url(args)
    migrate.upgrade(url, args.revision, schema=args.schema, lock_timeout=args.lock_timeout)
    _say_revision(url, args)


def _downgrade(args: argparse.Namespace) -> None:
    url = database.url(args)
    if args.revision == "base" and not args.drop_all_checkpoints:
        raise ConfigurationError(
            "base drops the tables with every checkpoint in them. To confirm that, add"
            " --drop-all-checkpoints."
        )
    database.check_file(url)
    migrate.downgrade(url, args.revision, schema=args.schema, lock_timeout=args.lock_timeout)
    _say_revision(url, args)


def _current(args: argparse.Namespace) -> None:
    _say_revision(database.url(args), args)


def _say_revision(url: str, args: argparse.Namespace) -> None:
    database.check_file(url)
    terminal.say(migrate.current(url, schema=args.schema) or "none")


def _verify(args: argparse.Namespace) -> None:
    url = database.url(args)
    database.check_file(url)
    terminal.say(migrate.verify(url, schema=args.schema))


def _sql(args: argparse.Namespace) -> None:
    bind = args.dialect or database.url(args)
    script = migrate.sql(bind, args.revision, schema=args.schema, downgrade=args.downgrade)
    terminal.say(script.rstrip())


def _rewrite(args: argparse.Namespace) -> None:
    def rewrite(saver: SQLAlchemySaver) -> int:
        return saver.rewrite(args.thread or None, incremental=args.incremental)

    terminal.say(f"{database.run(args, rewrite, writes=True)} values rewritten")


def _ini(_: argparse.Namespace) -> None:
    terminal.say(str(migrate.ini_path()))
