"""The output of commands: for a person at a terminal, for a pipe, as JSON.

At a terminal rows are printed as a table, with colours if the package `rich` (extra `cli`) is
installed. In a pipe each row is a line, with tabs between its fields and no heading. With `--json`
each row is a JSON object on a line. Notes and progress go to standard error.

Stored text may contain escape codes of a terminal or rich's markup: `rows`, `lines` and `visible`
print them as text. `rich` is imported where it is used: a probe has no need of it.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from argparse import ArgumentTypeError
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from checkpoint_sa.cli import layout
from checkpoint_sa.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TextIO, TypeAlias

    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001

_ASCII = str.maketrans("●│─┘┴…", "*|-'-~")
"""The signs of trees and of cut texts, for terminals that can't show them."""


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
    wraps: bool = False
    """Whether the text may be wrapped, between words, where a table is too wide."""
    brief: Callable[[Any], str] | None = None
    """A shorter text of a value, for tables."""
    narrow: Callable[[Any], str] | None = None
    """A still shorter text, for a table that would be too wide."""
    abbreviation: str = ""
    """A shorter heading, for a table that would be too wide."""
    dispensable: int = 0
    """Columns are left out of a table that is too wide, the highest number first; 0 stays."""
    is_optional: bool = False
    """Whether a table leaves the column out if no row has a value."""


def prepare() -> None:
    """Let streams that aren't Unicode escape other characters, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if not _is_unicode(stream) and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _is_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().replace("-", "").startswith("utf")


def drawing(text: str) -> str:
    """Return a text with signs that standard output can show."""
    return text if _is_unicode(sys.stdout) else text.translate(_ASCII)


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


def from_zero(text: str) -> int:
    """Return the number of an option such as `--limit`."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} isn't a number from 0 on")
    return int(text)


def is_pretty(stream: TextIO | None = None) -> bool:
    """Whether a stream, standard output by default, is a terminal."""
    return (stream or sys.stdout).isatty()


def has_rich() -> bool:
    """Whether the package for colours and progress bars is installed."""
    return find_spec("rich") is not None


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
    """Return strict JSON that is safe to print at a terminal.

    JSON has no NaN and no infinity: they are the texts "NaN", "Infinity" and "-Infinity".
    """
    options: dict[str, Any] = {
        "default": _json_default,
        "ensure_ascii": not _is_unicode(sys.stdout),
        "indent": indent,
    }
    try:
        text = json.dumps(value, allow_nan=False, **options)
    except ValueError:
        text = json.dumps(_strict(value), **options)
    return _lines(text)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _json_default(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def asks(args: argparse.Namespace) -> bool:
    """Whether a command that deletes asks first: neither `--dry-run` nor `--yes` is given.

    Raises:
        ConfigurationError: It should, but can't.
    """
    if args.dry_run or args.yes:
        return False
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "Standard input isn't a terminal, so the command can't ask. Add --yes to delete, or"
            " --dry-run to count the rows."
        )
    return True


def agrees(question: str) -> bool:
    """Ask a person, and return whether the answer is yes."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


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
    """Print a table that fits the terminal, if that can be done without cutting a text."""
    rows = list(found)
    shown = [
        column
        for column in columns
        if not column.is_optional or any(row.get(column.name) for row in rows)
    ]
    table = layout.fitted(
        [
            layout.Column(
                column.heading,
                [_lines(_text(column, row, column.brief)) for row in rows],
                column.abbreviation or column.heading,
                [_lines(_text(column, row, column.narrow or column.brief)) for row in rows],
                is_number=column.is_number,
                wraps=column.wraps,
                style=column.style,
                dispensable=column.dispensable,
            )
            for column in shown
        ],
        shutil.get_terminal_size().columns,
    )
    if has_rich():
        from rich.console import Console  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        console = Console()
        for parts in table:
            # Text, because rich looks for markup in a string. The terminal wraps long text.
            line = Text.assemble(*parts)
            line.rstrip()
            console.print(line, soft_wrap=True)
    else:
        for parts in table:
            say("".join(text for text, _ in parts).rstrip())
        note("For colours and progress bars: pip install 'langgraph-checkpoint-sa[cli]'")


def lines(found: Iterable[tuple[str, str]]) -> None:
    """Print lines of text, each with a style for a person."""
    if not is_pretty() or not has_rich():
        for text, _ in found:
            say(visible(text))
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    for text, style in found:
        console.print(Text(visible(text), style=style), soft_wrap=True)


def _text(
    column: Column, row: Mapping[str, Any], shorter: Callable[[Any], str] | None = None
) -> str:
    value = row.get(column.name)
    return "" if value is None else (shorter or column.show)(value)


def _lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))


def shows_progress() -> bool:
    """Whether `progress` shows a bar."""
    return is_pretty(sys.stderr) and has_rich()


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error, at a terminal; the context is a function that advances it."""
    if not shows_progress():
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


def several(number: int, name: str) -> str:
    """Return a number with the name of its things: `1 item`, `2 items`."""
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def bytes_or_size(number: int) -> str:
    """Return a number of bytes: as text for a person, otherwise as digits."""
    return size(number) if is_pretty() else str(number)
