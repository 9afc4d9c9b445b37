"""MessagePack as spans of bytes: where each value begins and ends. Nothing is made of it.

For documents of LangGraph's serializer that are taken apart, and for values whose bytes are checked
before they are stored. A walk over the bytes, without recursion: depth costs no stack.
"""

from __future__ import annotations

from typing import NamedTuple

from langgraph.checkpoint.serde import jsonplus

DEPTH = 1024
"""How deep lists, maps and extensions may be nested; ormsgpack reads no deeper."""

EXTENSIONS = range(jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, jsonplus.EXT_DELTA_SNAPSHOT + 1)
"""The extensions of LangGraph's serializer. Each holds MessagePack."""

SNAPSHOT = jsonplus.EXT_DELTA_SNAPSHOT

_PLAIN, _TEXT, _LIST, _MAP, _EXTENSION = range(5)


class MalformedError(ValueError):
    """Bytes that LangGraph's serializer didn't write; says what is wrong, without content."""


class _Head(NamedTuple):
    """What the first bytes of a value say."""

    kind: int
    size: int
    """Bytes; of a list values, of a map entries."""
    start: int
    """Where the content begins."""
    code: int = 0
    """Of an extension."""


class _Form(NamedTuple):
    kind: int
    digits: int
    """Bytes that have the size; 0 where `size` is it."""
    size: int = 0


_FORMS = (
    {byte: _Form(_PLAIN, 0) for byte in (*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100))}
    | {0x80 | size: _Form(_MAP, 0, size) for size in range(16)}
    | {0x90 | size: _Form(_LIST, 0, size) for size in range(16)}
    | {0xA0 | size: _Form(_TEXT, 0, size) for size in range(32)}
    | {0xC4 + i: _Form(_PLAIN, 1 << i) for i in range(3)}
    | {0xC7 + i: _Form(_EXTENSION, 1 << i) for i in range(3)}
    | {0xCA: _Form(_PLAIN, 0, 4), 0xCB: _Form(_PLAIN, 0, 8)}
    | {0xCC + i: _Form(_PLAIN, 0, 1 << i) for i in range(4)}
    | {0xD0 + i: _Form(_PLAIN, 0, 1 << i) for i in range(4)}
    | {0xD4 + i: _Form(_EXTENSION, 0, 1 << i) for i in range(5)}
    | {0xD9 + i: _Form(_TEXT, 1 << i) for i in range(3)}
    | {0xDC + i: _Form(_LIST, 2 << i) for i in range(2)}
    | {0xDE + i: _Form(_MAP, 2 << i) for i in range(2)}
)


def check(data: bytes) -> None:
    """Check that bytes are one value as LangGraph's serializer writes it.

    Raises:
        MalformedError: They aren't.
    """
    if _end(data, 0) != len(data):
        raise MalformedError("something follows the value")


def extension(data: bytes) -> int | None:
    """Return the code of a value that is an extension; None of another one."""
    head = _head(data, 0)
    return head.code if head.kind == _EXTENSION else None


def is_plain(data: bytes) -> bool:
    """Whether a value is a number, text, a boolean, None or bytes."""
    return _head(data, 0).kind in (_PLAIN, _TEXT)


def split(data: bytes, field: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Take a map with text for keys apart: return its other fields, and the entries of one field.

    Raises:
        MalformedError: It isn't such a map, or the field isn't.
    """
    fields: dict[str, bytes] = {}
    entries: dict[str, bytes] = {}
    count, at = _open_map(data, 0)
    for _ in range(count):
        name, at = _name(data, at)
        if name == field:
            size, at = _open_map(data, at)
            for _ in range(size):
                at = _take(data, at, entries)
        else:
            end = _end(data, at)
            fields[name] = data[at:end]
            at = end
    if at != len(data):
        raise MalformedError("something follows the document")
    return fields, entries


def _take(data: bytes, at: int, entries: dict[str, bytes]) -> int:
    name, start = _name(data, at)
    end = _end(data, start)
    entries[name] = data[start:end]
    return end


def _open_map(data: bytes, at: int) -> tuple[int, int]:
    head = _head(data, at)
    if head.kind != _MAP:
        raise MalformedError("a map is expected, and another type is there")
    return head.size, head.start


def _name(data: bytes, at: int) -> tuple[str, int]:
    head = _head(data, at)
    if head.kind != _TEXT:
        raise MalformedError("a name isn't text")
    return _decoded(data, head), head.start + head.size


def _decoded(data: bytes, head: _Head) -> str:
    try:
        return data[head.start : head.start + head.size].decode()
    except UnicodeDecodeError:
        raise MalformedError("text isn't UTF-8") from None


def _head(data: bytes, at: int) -> _Head:
    if at >= len(data):
        raise MalformedError("it ends too early")
    form = _FORMS.get(data[at])
    if form is None:
        raise MalformedError("a byte isn't MessagePack")
    kind, digits, size = form
    start = at + 1 + digits
    if digits:
        size = int.from_bytes(data[at + 1 : start], "big")
    code = 0
    if kind == _EXTENSION:
        code = int.from_bytes(data[start : start + 1], "big", signed=True)
        start += 1
    # A value in a list has a byte at least.
    if start + size > len(data):
        raise MalformedError("it ends too early")
    return _Head(kind, size, start, code)


def _end(data: bytes, at: int) -> int:
    """Return where the value that begins at `at` ends.

    Raises:
        MalformedError: It isn't one that LangGraph's serializer writes.
    """
    around: list[tuple[int, int]] = []
    left, bound = 1, -1  # values, and where they have to end
    while True:
        if not left:
            if bound not in (-1, at):
                raise MalformedError("an extension isn't one value")
            if not around:
                return at
            left, bound = around.pop()
            continue
        left -= 1
        head = _head(data, at)
        at = head.start
        if head.kind in (_PLAIN, _TEXT):
            if head.kind == _TEXT:
                _decoded(data, head)
            at += head.size
        elif len(around) == DEPTH:
            raise MalformedError(f"it is nested deeper than {DEPTH} levels")
        else:
            around.append((left, bound))
            left, bound = _inside(head)


def _inside(head: _Head) -> tuple[int, int]:
    """Return how many values are inside of one, and where they have to end; -1 is anywhere."""
    if head.kind != _EXTENSION:
        return head.size * (2 if head.kind == _MAP else 1), -1
    if head.code not in EXTENSIONS:
        raise MalformedError(f"it has an extension of unknown type {head.code}")
    return 1, head.start + head.size
