"""Commands that copy checkpoints and items from one database to another."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect

from checkpoint_sa.cli import database, terminal
from checkpoint_sa.cli.terminal import Column
from checkpoint_sa.engine import engines
from checkpoint_sa.moving import copying, importing
from checkpoint_sa.repository import threads
from checkpoint_sa.store import SQLAlchemyStore
from checkpoint_sa.store.moving import Copied, copy_items, has_items_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from checkpoint_sa import SQLAlchemySaver
    from checkpoint_sa.cli.terminal import Commands
    from checkpoint_sa.moving.copying import CopySummary

_SUMMARY = (
    Column("threads", "copied threads", is_number=True),
    Column("skipped", "threads there already", is_number=True),
    Column("checkpoints", "checkpoints", is_number=True),
    Column("values", "values", is_number=True),
    Column("writes", "writes", is_number=True),
    Column("bytes", "size", terminal.bytes_or_size, is_number=True),
    Column("items", "copied items", is_number=True, is_optional=True),
    Column("items_present", "items there already", is_number=True, is_optional=True),
    Column("vectors", "vectors", is_number=True, is_optional=True),
)


def add(commands: Commands) -> None:
    """Add the commands of this module."""
    copy = terminal.command(commands, "copy", _copy, "copy threads and items to another database")
    _add_arguments(copy)
    import_ = terminal.command(
        commands,
        "import",
        _import,
        "bring threads and items of LangGraph's own savers and stores into a database",
    )
    _add_arguments(import_)


def _add_arguments(command: argparse.ArgumentParser) -> None:
    for end, dest, text in (("from", "source", "has"), ("to", "target", "gets")):
        variable = f"CHECKPOINT_SA_{end.upper()}"
        command.add_argument(
            f"--{end}",
            dest=dest,
            metavar="URL",
            default=os.environ.get(variable),
            help=f"the database that {text} the threads and items; default: {variable}",
        )
        command.add_argument(
            f"--{end}-schema",
            dest=f"{dest}_schema",
            metavar="SCHEMA",
            help="the schema of that database's tables; default: its own",
        )
    command.add_argument("--dry-run", action="store_true", help="compare and count, store nothing")
    command.add_argument(
        "thread", nargs="*", help="the ids of threads; default: all, and the items"
    )
    terminal.add_json(command)


def _copy(args: argparse.Namespace) -> None:
    database.need("from", args.source)
    database.need("to", args.target)

    def run(source: SQLAlchemySaver, target: SQLAlchemySaver) -> tuple[CopySummary, Copied]:
        total = None
        if not args.thread and terminal.shows_progress():
            total = source.database.read("copy", threads.count)
        with _progress(args, total) as options:
            done = copying.copy(source, target, **options)
        return done, _copy_items(args, source.bind.engine, target)

    done = database.run_on_two(
        (args.source, args.source_schema), (args.target, args.target_schema), run
    )
    _print(args, *done)


def _import(args: argparse.Namespace) -> None:
    database.need("from", args.source)
    database.need("to", args.target)

    def run(target: SQLAlchemySaver) -> tuple[CopySummary, Copied]:
        with importing.opened(args.source) as source:
            done = _NOTHING
            if not (_has_items(args, source) and _has_no_checkpoints(args, source)):
                with _progress(args) as options:
                    done = importing.import_threads(
                        source, target, schema=args.source_schema, **options
                    )
            return done, _copy_items(args, source, target)

    in_loop = engines.is_async(args.source)
    database.check_file(args.source, is_source=True)
    done = database.run_on(args.target, args.target_schema, run, in_loop=in_loop, writes=True)
    _print(args, *done)


_NOTHING = copying.CopySummary(0, 0, 0, 0, 0, 0)


def _has_items(args: argparse.Namespace, source: Engine) -> bool:
    """Whether there are items to copy: none if threads are named."""
    return not args.thread and has_items_table(source, args.source_schema)


def _has_no_checkpoints(args: argparse.Namespace, source: Engine) -> bool:
    with source.connect() as connection:
        return not inspect(connection).has_table("checkpoints", schema=args.source_schema)


def _copy_items(args: argparse.Namespace, source: Engine, target: SQLAlchemySaver) -> Copied:
    if not _has_items(args, source):
        return Copied(0, 0)
    store = SQLAlchemyStore(target.bind, schema=target.schema)
    return copy_items(source, store, schema=args.source_schema, dry_run=args.dry_run)


def _print(args: argparse.Namespace, done: CopySummary, items: Copied) -> None:
    row = {
        **done._asdict(),
        "items": items.items,
        "items_present": items.present,
        "vectors": items.vectors,
    }
    terminal.rows(args, _SUMMARY, [row])


@contextmanager
def _progress(args: argparse.Namespace, total: int | None = None) -> Iterator[dict[str, Any]]:
    """Show a progress bar; return the arguments that `copy` and `import_from` share.

    `total` is the number of threads if none are named.
    """
    with terminal.progress("threads", len({*args.thread}) or total) as advance:
        yield {
            "threads": args.thread or None,
            "dry_run": args.dry_run,
            "progress": lambda _: advance(1),
        }
