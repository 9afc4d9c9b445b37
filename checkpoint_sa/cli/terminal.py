"""The output of commands: for a person at a terminal, for a pipe, as JSON.

At a terminal, with the package `rich` (extra `cli`), rows are printed as tables with colours. In a
pipe each row is a line, with tabs between its fields and no heading. With `--json` each row is a
JSON object on a line. Notes and progress go to standard error.

Stored text may contain escape codes of a terminal or rich's markup: `rows`, `lines` and `visible`
print them as text. `rich` is imported where it is used: a probe has no need of it.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TextIO, TypeAlias

    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001


class Column(NamedTuple):
    """A field of each row."""

    name: str
    """The field's key in a row, and in JSON."""
    heading: str
    show: Callable[[Any], str] = str
    """The text of a value for a person and for a pipe; JSON has the value itself."""
    is_number: bool = False
    style: str = ""
    """The style, in rich's syntax."""
    wraps: bool = True
    """Whether the text may be wrapped where a table is too wide."""
    brief: Callable[[Any], str] | None = None
    """A shorter text of a value, for tables."""


def command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None], text: str
) -> argparse.ArgumentParser:
    """Add a command."""
    added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    added.set_defaults(run=run, url=None)
    return added


def add_json(command: argparse.ArgumentParser) -> None:
    """Add the option `--json`."""
    command.add_argument("--json", action="store_true", help="one JSON object a line")


def is_pretty(stream: TextIO | None = None) -> bool:
    """Whether a stream, standard output by default, is a terminal and `rich` is installed."""
    return (stream or sys.stdout).isatty() and find_spec("rich") is not None


def say(text: str) -> None:
    """Print a line of the result."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Print a line that isn't part of the result."""
    sys.stderr.write(f"{text}\n")


def visible(text: str) -> str:
    """Return stored text for a line; unprintable characters are escaped as in JSON."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON that is safe to print at a terminal."""
    return _lines(json.dumps(value, default=_json_default, ensure_ascii=False, indent=indent))


def _json_default(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def rows(
    args: argparse.Namespace, columns: Sequence[Column], found: Iterable[Mapping[str, Any]]
) -> None:
    """Print rows as they come; a table is printed after the last row."""
    if args.json:
        for row in found:
            say(as_json(row))
    elif is_pretty():
        _table(columns, found)
    else:
        for row in found:
            say("\t".join(visible(_text(column, row)) for column in columns))


def _table(columns: Sequence[Column], found: Iterable[Mapping[str, Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            style=column.style,
            overflow="fold",
            no_wrap=not column.wraps,
        )
    for row in found:
        # Text, because rich looks for markup in a string.
        table.add_row(*(Text(_lines(_text(column, row, brief=True))) for column in columns))
    Console().print(table)


def lines(found: Iterable[tuple[str, str]]) -> None:
    """Print lines of text, each with a style for a person."""
    if not is_pretty():
        for text, _ in found:
            say(visible(text))
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    for text, style in found:
        console.print(Text(visible(text), style=style))


def _text(column: Column, row: Mapping[str, Any], *, brief: bool = False) -> str:
    value = row.get(column.name)
    show = (brief and column.brief) or column.show
    return "" if value is None else show(value)


def _lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error, at a terminal; the context is a function that advances it."""
    if not is_pretty(sys.stderr):
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    bar = Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda number: bar.advance(task, number)


def size(number: float) -> str:
    """Return a number of bytes as text: `512 B`, `1.5 MB`."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 1000:  # noqa: PLR2004 - SI's step
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def bytes_or_size(number: int) -> str:
    """Return a number of bytes: as text for a person, otherwise as digits."""
    return size(number) if is_pretty() else str(number)
