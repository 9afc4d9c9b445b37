"""Commands about the schema, for a deploy pipeline or a readiness probe; and `rewrite`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from importlib import import_module
from typing import TYPE_CHECKING, Any

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
        commands,
        "rewrite",
        _rewrite,
        "rewrite values as deltas or as whole values, or states in their newest shape",
    )
    database.add_arguments(rewrite)
    form = rewrite.add_mutually_exclusive_group()
    form.add_argument("--incremental", action="store_true", default=None, help="store deltas")
    form.add_argument(
        "--plain",
        dest="incremental",
        action="store_false",
        default=None,
        help="store whole values, which LangGraph's PostgresSaver reads as well",
    )
    rewrite.add_argument(
        "--transform",
        metavar="MODULE:NAME",
        help="the revisions of state, a dict of names and functions",
    )
    rewrite.add_argument(
        "--serde",
        metavar="MODULE:NAME",
        help="the serializer of the states, or a function that makes it; with --transform",
    )
    rewrite.add_argument(
        "--dry-run", action="store_true", help="print the changes of --transform, store nothing"
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
    database.check_file(url, may_be_new=True)
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
    threads = args.thread or None
    if args.transform is None:
        if args.incremental is None or args.serde or args.dry_run:
            raise ConfigurationError(
                "Pass --incremental, --plain or --transform MODULE:NAME. --serde and --dry-run need"
                " --transform."
            )
        count = database.run(
            args, lambda saver: saver.rewrite(threads, incremental=args.incremental), writes=True
        )
        terminal.say(f"{count} values rewritten")
        return
    revisions = _loaded("--transform", args.transform)
    serde = _loaded("--serde", args.serde) if args.serde else None
    changes: Counter[str] = Counter()

    def rewrite(saver: SQLAlchemySaver) -> int:
        if serde is not None:
            saver.serde = serde() if callable(serde) else serde
        return saver.rewrite(
            threads,
            incremental=args.incremental,
            transform=revisions,
            dry_run=args.dry_run,
            report=lambda diff: changes.update(diff.changes),
        )

    count = database.run(args, rewrite, writes=not args.dry_run)
    for change, number in sorted(changes.items()):
        terminal.say(f"{number:8} {terminal.visible(change)}")
    terminal.say(f"{count} checkpoints {'would be ' if args.dry_run else ''}rewritten")


def _loaded(option: str, place: str) -> Any:
    """Return the object that an option names, from a module of the working folder or installed.

    Raises:
        ConfigurationError: There is no such module, or no such name in it.
    """
    module, colon, name = place.partition(":")
    if not (module and colon and name):
        raise ConfigurationError(f"{option} is {place!r}. Pass MODULE:NAME, such as app.state:ALL.")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            f"{option} {place!r}: there is no module {module!r} in the working folder, and none is"
            " installed."
        ) from None
    except AttributeError:
        raise ConfigurationError(f"{option} {place!r}: {module!r} has no {name!r}.") from None


def _ini(_: argparse.Namespace) -> None:
    terminal.say(str(migrate.ini_path()))
