"""Tables that fit a terminal: an id or a number is never wrapped and never cut.

A table that is too wide first gets shorter headings, then shorter texts; then columns of text are
wrapped between words; then columns are left out. A table that is still too wide is printed wider
than the terminal.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    Line: TypeAlias = list[tuple[str, str]]
    """Texts, each with its style."""

_GAP = "  "
_LEAST = 16
"""The width under which a column of text isn't squeezed."""


@dataclass(frozen=True)
class Column:
    """A column with its texts."""

    heading: str
    texts: Sequence[str]
    abbreviation: str
    """The heading of a table that would be too wide."""
    narrow: Sequence[str]
    """The texts of a table that would be too wide."""
    is_number: bool = False
    wraps: bool = False
    style: str = ""
    dispensable: int = 0
    """The columns with the highest number are left out first; 0 stays."""

    @property
    def width(self) -> int:
        """Return the width without wrapping."""
        lines = (line for text in self.texts for line in text.split("\n"))
        return max(map(width, (self.heading, *lines)))

    @property
    def least(self) -> int:
        """Return the width below which no word fits."""
        if not self.wraps:
            return self.width
        words = (word for text in (self.heading, *self.texts) for word in text.split())
        longest = max(map(width, words), default=0)
        return min(self.width, max(longest, _LEAST))


def fitted(columns: Sequence[Column], room: int) -> Iterator[Line]:
    """Yield the lines of a table that is at most `room` wide, if that is possible."""
    found = list(columns)
    if _width(found) > room:
        found = [replace(column, heading=column.abbreviation) for column in found]
    if _width(found) > room:
        found = [replace(column, texts=column.narrow) for column in found]
    while _width(found, least=True) > room:
        rank = max((column.dispensable for column in found), default=0)
        if not rank:
            break
        found = [column for column in found if column.dispensable != rank]
    widths = _shared([*found], room)
    if any(column.heading for column in found):
        headings = [(column.heading, "bold") for column in found]
        yield _line(found, widths, headings)
    for texts in zip(*(column.texts for column in found), strict=True):
        cells = [
            wrapped(text, size) if column.wraps else text.split("\n")
            for column, text, size in zip(found, texts, widths, strict=True)
        ]
        for number in range(max(map(len, cells))):
            parts = [
                (cell[number] if number < len(cell) else "", column.style)
                for column, cell in zip(found, cells, strict=True)
            ]
            yield _line(found, widths, parts)


def _width(columns: Sequence[Column], *, least: bool = False) -> int:
    gaps = len(_GAP) * (len(columns) - 1)
    return gaps + sum(column.least if least else column.width for column in columns)


def _shared(columns: Sequence[Column], room: int) -> list[int]:
    """Return the widths of columns; columns that wrap share the room that the others leave."""
    widths = [column.least for column in columns]
    free = room - sum(widths) - len(_GAP) * (len(columns) - 1)
    while free > 0:
        wanting = [i for i, column in enumerate(columns) if widths[i] < column.width]
        if not wanting:
            break
        share = max(1, free // len(wanting))
        for number in wanting:
            more = min(share, free, columns[number].width - widths[number])
            widths[number] += more
            free -= more
    return widths


def _line(columns: Sequence[Column], widths: Sequence[int], parts: Line) -> Line:
    line: Line = []
    for number, (column, size, (text, style)) in enumerate(
        zip(columns, widths, parts, strict=True)
    ):
        padding = " " * (size - width(text))
        if number:
            line.append((_GAP, ""))
        line += (
            [(padding, ""), (text, style)] if column.is_number else [(text, style), (padding, "")]
        )
    return line


def wrapped(text: str, size: int) -> list[str]:
    """Wrap a text between words; a word is never broken."""
    lines = []
    for line in text.split("\n"):
        done = ""
        for word in re.findall(r"\s*\S+|\s+$", line):
            if done and width(done) + width(word) > size:
                lines.append(done)
                done = word.lstrip()
            else:
                done += word
        lines.append(done)
    return lines


def width(text: str) -> int:
    """Return the number of a terminal's cells that a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        2 if unicodedata.east_asian_width(sign) in "WF" else not unicodedata.combining(sign)
        for sign in text
    )
