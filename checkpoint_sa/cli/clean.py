"""Commands that delete old checkpoints, threads, runs, and rows that no checkpoint refers to."""

from __future__ import annotations

import json
import re
from argparse import ArgumentTypeError
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from checkpoint_sa.cli import database, terminal
from checkpoint_sa.errors import ConfigurationError
from checkpoint_sa.inspection import Inspector
from checkpoint_sa.repository import threads as thread_pages
from checkpoint_sa.repository.deleting import Deleted
from checkpoint_sa.retention import GRACE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from checkpoint_sa import SQLAlchemySaver
    from checkpoint_sa.cli.terminal import Commands

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add(commands: Commands) -> None:
    """Add the commands of this module."""
    prune = terminal.command(commands, "prune", _prune, "delete old checkpoints, or idle threads")
    _add_common(prune)
    prune.add_argument("thread", nargs="*", help="the ids of threads")
    prune.add_argument("--all", action="store_true", help="all threads")
    how_many = prune.add_mutually_exclusive_group()
    how_many.add_argument(
        "--keep-latest",
        dest="keep",
        action="store_const",
        const=1,
        help="keep the latest checkpoint of each namespace",
    )
    how_many.add_argument(
        "--keep", type=_number, metavar="N", help="keep the N latest of each namespace"
    )
    prune.add_argument(
        "--older-than",
        type=_age,
        metavar="AGE",
        help="delete only checkpoints that are older: 30d, 12h, 90m, 2w",
    )
    prune.add_argument(
        "--idle-for",
        type=_age,
        metavar="AGE",
        help="delete whole threads without a younger checkpoint",
    )

    delete = terminal.command(
        commands, "delete", _delete, "delete threads, a run, or all threads of a user"
    )
    _add_common(delete)
    delete.add_argument("thread", nargs="*", help="the ids of threads")
    delete.add_argument("--run", dest="run_id", metavar="ID", help="the checkpoints of a run")
    database.add_where(delete, "the threads that have a checkpoint with this metadata")

    vacuum = terminal.command(
        commands,
        "vacuum-orphans",
        _vacuum,
        "delete the writes and values of late writers, which have no checkpoint",
    )
    _add_common(vacuum)
    vacuum.add_argument(
        "--older-than",
        type=_age,
        default=GRACE,
        metavar="AGE",
        help="delete only older rows; must be longer than any run takes (default: 1d)",
    )


def _add_common(command: argparse.ArgumentParser) -> None:
    database.add_arguments(command)
    command.add_argument("--dry-run", action="store_true", help="count the rows, delete nothing")
    command.add_argument("--yes", action="store_true", help="don't ask; needed without a terminal")
    terminal.add_json(command)


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} isn't a number from 1 on")
    return int(text)


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} isn't an age; say 90m, 12h, 30d or 4w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _prune(args: argparse.Namespace) -> None:
    options = {"keep": args.keep, "older_than": args.older_than, "idle_for": args.idle_for}
    if all(value is None for value in options.values()):
        raise ConfigurationError(
            "No rule for the checkpoints to delete. Pass --keep-latest, --keep N, --older-than AGE"
            " or --idle-for AGE."
        )
    if bool(args.thread) is args.all:
        raise ConfigurationError("Pass either the ids of threads, or --all.")
    threads = args.thread or None

    def prune(saver: SQLAlchemySaver, *, dry_run: bool, report: Callable[[Deleted], None]) -> None:
        act = saver.prunable if dry_run else saver.prune
        act(threads, report=report, **options)

    _run(args, prune)


def _delete(args: argparse.Namespace) -> None:
    if [bool(args.thread), args.run_id is not None, bool(args.where)].count(True) != 1:
        raise ConfigurationError(
            "Pass one of these: the ids of threads, --run ID, or --where NAME=VALUE."
        )
    metadata = dict(args.where) or {"run_id": args.run_id}
    if len(metadata) < len(args.where):
        raise ConfigurationError("--where has a name twice, but metadata has it once.")

    def delete(saver: SQLAlchemySaver, *, dry_run: bool, report: Callable[[Deleted], None]) -> None:
        if args.thread:
            act = saver.prunable if dry_run else saver.prune
            act(args.thread, strategy="delete", report=report)
        else:
            saver.serde = Inspector()  # metadata may have values that JSON can't represent
            whole = args.run_id is None
            saver.delete_where(metadata, whole_threads=whole, dry_run=dry_run, report=report)

    _run(args, delete)


def _vacuum(args: argparse.Namespace) -> None:
    def vacuum(saver: SQLAlchemySaver, *, dry_run: bool, report: Callable[[Deleted], None]) -> None:
        saver.vacuum_orphans(args.older_than, dry_run=dry_run, report=report)

    _run(args, vacuum)


def _run(args: argparse.Namespace, action: Callable[..., None]) -> None:
    """Count the rows to delete, ask unless `--yes` is given, delete, and print the counts."""
    asks = terminal.asks(args)

    def run(saver: SQLAlchemySaver) -> None:
        threads = list(dict.fromkeys(getattr(args, "thread", ())))
        total = len(threads) or None
        if getattr(args, "all", False) and terminal.shows_progress():
            total = saver.database.read("threads", thread_pages.count)
        if args.dry_run or asks:
            found = _counted(partial(action, saver, dry_run=True), "Looking", total, threads)
            _name_missing(args, found)
            if args.dry_run:
                _say(args, found.sum, "would be deleted")
                return
            if found.sum == Deleted():
                _say(args, found.sum, "deleted")
                return
            if not terminal.agrees(f"Delete {_text(found.sum)} from {database.name(args)}?"):
                terminal.note("Nothing was deleted.")
                return
        done = _counted(partial(action, saver, dry_run=False), "Deleting", total, threads)
        if not asks:
            _name_missing(args, done)
        _say(args, done.sum, "deleted")

    database.run(args, run, writes=not args.dry_run)


class _Counted(NamedTuple):
    """The rows that were counted or deleted, and the given threads that have none."""

    sum: Deleted
    missing: list[str]


def _name_missing(args: argparse.Namespace, found: _Counted) -> None:
    """Say that there was nothing to delete; `delete` alone deletes all that it finds."""
    if args.run is not _delete:
        return
    for thread in found.missing:
        terminal.note(f"There is no thread {terminal.visible(repr(thread))}.")
    if not args.thread and found.sum == Deleted():
        what = "this run" if args.run_id is not None else "this metadata"
        terminal.note(f"There is no checkpoint of {what}.")


def _counted(
    action: Callable[..., None], what: str, total: int | None, threads: Sequence[str]
) -> _Counted:
    """Run an action with a progress bar; it reports the `threads` in their order."""
    counted = Deleted()
    missing: list[str] = []
    number = 0
    with terminal.progress(what, total) as advance:

        def report(deleted: Deleted) -> None:
            nonlocal counted, number
            counted += deleted
            if number < len(threads) and not any(deleted):
                missing.append(threads[number])
            number += 1
            advance(1)

        action(report=report)
    return _Counted(counted, missing)


def _say(args: argparse.Namespace, deleted: Deleted, done: str) -> None:
    if args.json:
        terminal.say(json.dumps({**deleted._asdict(), "dry_run": args.dry_run}))
    else:
        terminal.say(f"{_text(deleted)} {done}")


def _text(deleted: Deleted) -> str:
    """Return counts as text: `3 checkpoints, 5 values, 1 write of 2 threads (1.5 MB)`."""
    parts = [
        terminal.several(deleted.checkpoints, "checkpoint"),
        terminal.several(deleted.values, "value"),
        terminal.several(deleted.writes, "write"),
    ]
    threads = terminal.several(deleted.threads, "thread")
    return f"{', '.join(parts)} of {threads} ({terminal.size(deleted.bytes)})"
