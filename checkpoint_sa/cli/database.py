"""The arguments that name a command's database, and a saver on that database."""

from __future__ import annotations

import asyncio
import json
import os
from argparse import ArgumentTypeError
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.util import greenlet_spawn

import checkpoint_sa
from checkpoint_sa.cli import terminal
from checkpoint_sa.engine import engines
from checkpoint_sa.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from checkpoint_sa import SQLAlchemySaver

T = TypeVar("T")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments for the URL and the schema of the tables."""
    command.add_argument(
        "--url",
        default=os.environ.get("CHECKPOINT_SA_URL"),
        help="the database; default: the environment's CHECKPOINT_SA_URL",
    )
    command.add_argument(
        "--schema",
        default=os.environ.get("CHECKPOINT_SA_SCHEMA") or None,
        help="the schema of the tables; default: CHECKPOINT_SA_SCHEMA, or the database's own",
    )


def add_where(command: argparse.ArgumentParser, text: str) -> None:
    """Add the option that filters by metadata."""
    command.add_argument(
        "--where",
        action="append",
        default=[],
        type=_criterion,
        metavar="NAME=VALUE",
        help=f"{text}; a JSON value is read as JSON: step=1 is a number; several must all match",
    )


def _criterion(text: str) -> tuple[str, Any]:
    name, is_given, value = text.partition("=")
    if not name or not is_given:
        raise ArgumentTypeError(f"{text!r} isn't NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def url(args: argparse.Namespace) -> str:
    """Return the URL of a command's database.

    Raises:
        ConfigurationError: No URL was given.
    """
    return need("url", args.url)


def need(option: str, value: str | None) -> str:
    """Return the URL of an option, or of its environment variable.

    Raises:
        ConfigurationError: Neither was given.
    """
    if not value:
        raise ConfigurationError(
            f"No database. Set CHECKPOINT_SA_{option.upper()}, or pass --{option}"
            " postgresql://user@host/database."
        )
    return value


def name(args: argparse.Namespace) -> str:
    """Return the name of a command's database for a person: neither a password nor options."""
    parsed = engines.url_of(url(args)).set(password=None, query={})
    schema = f", schema {args.schema}" if args.schema else ""
    return f"{terminal.visible(parsed.render_as_string())}{schema}"


def check_file(url: str, *, may_be_new: bool = False, is_source: bool = False) -> None:
    """Refuse an SQLite file that isn't there, since opening it would make an empty file.

    The file isn't opened: to close it would end the locks of this process's connections to it.

    Args:
        url: The database; one of another engine isn't looked at.
        may_be_new: Whether the command makes the file; its folder must be there.
        is_source: Whether a new, empty database would be of no use.

    Raises:
        FileNotFoundError: The file, or its folder, isn't there.
        ConfigurationError: It is a folder.
    """
    path = engines.sqlite_file(engines.url_of(url))
    if path is None:
        return
    folder = path.absolute().parent
    shown = terminal.visible(str(path))
    if path.is_dir():
        raise ConfigurationError(f"{shown} is a folder. Expected an SQLite file.")
    if may_be_new and not folder.is_dir():
        raise FileNotFoundError(f"The folder of the SQLite file {shown} isn't there. Make it.")
    if not may_be_new and not path.exists():
        remedy = "" if is_source else " `checkpoint-sa upgrade` makes a new file with the tables."
        raise FileNotFoundError(
            f"There is no SQLite file {shown} (in the folder {terminal.visible(str(folder))})."
            f" Check the path.{remedy}"
        )


def run(
    args: argparse.Namespace, function: Callable[[SQLAlchemySaver], T], *, writes: bool = False
) -> T:
    """Call a function with a saver on a command's database, with a sync or an async driver.

    A database of SQLite is opened for reading unless the function `writes`.
    """
    return run_on(url(args), args.schema, function, writes=writes)


def run_on(
    url: str,
    schema: str | None,
    function: Callable[[SQLAlchemySaver], T],
    *,
    in_loop: bool = False,
    writes: bool = False,
) -> T:
    """Call a function with a saver; an async driver runs in an event loop of its own.

    `in_loop` is for a function that uses an async driver itself.
    """
    check_file(url)
    if not writes:
        url = _read_only(url)
    if in_loop or engines.is_async(url):
        return asyncio.run(_in_loop([(url, schema)], function))
    with checkpoint_sa.SQLAlchemySaver.from_conn_string(url, schema=schema) as saver:
        return function(saver)


def run_on_two(
    source: tuple[str, str | None],
    target: tuple[str, str | None],
    function: Callable[[SQLAlchemySaver, SQLAlchemySaver], T],
) -> T:
    """Call a function with savers on two databases, each a URL and a schema; the second writes."""
    check_file(source[0], is_source=True)
    check_file(target[0])
    if any(engines.is_async(url) for url, _ in (source, target)):
        return asyncio.run(_in_loop([(_read_only(source[0]), source[1]), target], function))
    return run_on(
        *source,
        lambda one: run_on(*target, lambda other: function(one, other), writes=True),
    )


def _read_only(url: str) -> str:
    return engines.read_only(engines.url_of(url)).render_as_string(hide_password=False)


async def _in_loop(places: Sequence[tuple[str, str | None]], function: Callable[..., T]) -> T:
    async with AsyncExitStack() as stack:
        savers = []
        for url, schema in places:
            if engines.is_async(url):
                own = engines.make_async_engine(url)
                stack.push_async_callback(own.dispose)
                engine = own.sync_engine
            else:
                engine = engines.make_engine(url)
                stack.callback(engine.dispose)
            savers.append(checkpoint_sa.SQLAlchemySaver(engine, schema=schema))
        return await greenlet_spawn(function, *savers)
