"""Commands that copy checkpoints from one database to another."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from checkpoint_sa.cli import database, terminal
from checkpoint_sa.cli.terminal import Column
from checkpoint_sa.engine import engines
from checkpoint_sa.moving import copying, importing
from checkpoint_sa.repository import threads

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from checkpoint_sa import SQLAlchemySaver
    from checkpoint_sa.cli.terminal import Commands
    from checkpoint_sa.moving.copying import CopySummary

_SUMMARY = (
    Column("threads", "copied threads", is_number=True),
    Column("skipped", "there already", is_number=True),
    Column("checkpoints", "checkpoints", is_number=True),
    Column("values", "values", is_number=True),
    Column("writes", "writes", is_number=True),
    Column("bytes", "size", terminal.bytes_or_size, is_number=True),
)


def add(commands: Commands) -> None:
    """Add the commands of this module."""
    copy = terminal.command(
        commands, "copy", _copy, "copy threads to another database, and read them back"
    )
    _add_arguments(copy)
    import_ = terminal.command(
        commands,
        "import",
        _import,
        "bring threads of LangGraph's own savers into a database, and read them back",
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
            help=f"the database that {text} the threads; default: the environment's {variable}",
        )
        command.add_argument(
            f"--{end}-schema",
            dest=f"{dest}_schema",
            metavar="SCHEMA",
            help="the schema of that database's tables; default: its own",
        )
    command.add_argument("--dry-run", action="store_true", help="compare and count, store nothing")
    command.add_argument("thread", nargs="*", help="the ids of threads; default: all")
    terminal.add_json(command)


def _copy(args: argparse.Namespace) -> None:
    database.need("from", args.source)
    database.need("to", args.target)

    def run(source: SQLAlchemySaver, target: SQLAlchemySaver) -> CopySummary:
        total = None
        if not args.thread and terminal.shows_progress():
            total = source.database.read("copy", threads.count)
        with _progress(args, total) as options:
            return copying.copy(source, target, **options)

    done = database.run_on_two(
        (args.source, args.source_schema), (args.target, args.target_schema), run
    )
    terminal.rows(args, _SUMMARY, [done._asdict()])


def _import(args: argparse.Namespace) -> None:
    database.need("from", args.source)
    database.need("to", args.target)

    def run(target: SQLAlchemySaver) -> CopySummary:
        with _progress(args) as options:
            return importing.import_threads(
                args.source, target, schema=args.source_schema, **options
            )

    in_loop = engines.is_async(args.source)
    database.check_file(args.source)
    done = database.run_on(args.target, args.target_schema, run, in_loop=in_loop, writes=True)
    terminal.rows(args, _SUMMARY, [done._asdict()])


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
