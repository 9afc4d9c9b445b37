"""MessagePack of LangGraph's serializer: checked, and documents taken apart. No object is made.

ormsgpack reads it. The extensions, of which LangGraph's serializer makes objects, stay bytes.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

import ormsgpack
from langgraph.checkpoint.serde import jsonplus

if TYPE_CHECKING:
    from collections.abc import Callable

EXTENSIONS = range(jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, jsonplus.EXT_DELTA_SNAPSHOT + 1)
"""The extensions of LangGraph's serializer. Each holds MessagePack."""

SNAPSHOT = jsonplus.EXT_DELTA_SNAPSHOT

_OPTION = ormsgpack.OPT_NON_STR_KEYS
_END = 127, secrets.token_bytes(16)
"""An extension that no data has."""


class Extension(NamedTuple):
    """The code and the content of an object."""

    code: int
    content: bytes


class MalformedError(ValueError):
    """Bytes that LangGraph's serializer didn't write; the message quotes no content."""


def check(data: bytes) -> None:
    """Check that bytes are one value as LangGraph's serializer writes it.

    Raises:
        MalformedError: They aren't such a value.
    """
    _read(data, _check_extension)


def plain(data: bytes) -> Any:
    """Return a value without extensions.

    Raises:
        MalformedError: The bytes have an extension, or aren't a single value.
    """

    def refuse(code: int, _: bytes) -> Any:
        raise MalformedError(f"an extension of type {code} is where plain data is expected")

    return _read(data, refuse)


def read(data: bytes) -> Any:
    """Return a value, with an `Extension` in place of each object.

    Raises:
        MalformedError: The bytes aren't a single value.
    """
    return _read(data, Extension)


def split(data: bytes, field: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Take a map with text for keys apart: return its other fields, and the entries of one field.

    Raises:
        MalformedError: The bytes or the field aren't such a map, or `check` refuses a value.
    """

    def keep(code: int, content: bytes) -> ormsgpack.Ext:
        _check_extension(code, content)
        return ormsgpack.Ext(code, content)

    document = _map(_read(data, keep))
    entries = _map(document.pop(field, {}))
    return _packed(document), _packed(entries)


def _check_extension(code: int, content: bytes) -> None:
    if code not in EXTENSIONS:
        raise MalformedError(f"it has an extension of unknown type {code}")
    check(content)


def _read(data: bytes, make: Callable[[int, bytes], Any]) -> Any:
    """Read one value; `make` makes a value of an extension's code and content."""
    error: Exception = MalformedError("it isn't MessagePack, or ends too early")
    end = object()

    def hook(code: int, content: bytes) -> Any:
        nonlocal error
        if (code, content) == _END:
            return end
        try:
            return make(code, content)
        except Exception as found:  # ormsgpack keeps no cause
            error = found
            raise

    # ormsgpack ignores bytes behind a value. In a list of the value and a mark they show up.
    whole = b"\x92" + data + ormsgpack.packb(ormsgpack.Ext(*_END))
    try:
        value, mark = ormsgpack.unpackb(whole, ext_hook=hook, option=_OPTION)
    except ValueError:
        raise error from None
    if mark is not end:
        raise MalformedError("something follows the value")
    return value


def _map(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError("a map is expected, and another type is there")
    if not all(isinstance(name, str) for name in value):
        raise MalformedError("a name isn't text")
    return value


def _packed(fields: dict[str, Any]) -> dict[str, bytes]:
    return {name: ormsgpack.packb(value, option=_OPTION) for name, value in fields.items()}
