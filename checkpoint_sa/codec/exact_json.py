"""The values that JSON holds exactly, in every engine's JSON and in Python's own."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import orjson

JSON_DEPTH = 24
"""Deeper documents aren't given to the engine: MariaDB's JSON functions end at 32."""

encode_json = json.JSONEncoder(separators=(",", ":")).encode


def encode_document(document: Any) -> str:
    """Return a document of `split_exact` as JSON: what `encode_json` returns, if ASCII sooner."""
    try:
        data = orjson.dumps(document)
    except orjson.JSONEncodeError:  # such as an integer beyond 64 bits
        return encode_json(document)
    # Other characters are escaped, so that every character set of a connection takes them.
    return data.decode() if data.isascii() else encode_json(document)


def exact_json(value: Any) -> bytes | None:
    """Return a value as JSON that LangGraph's serializer reads back exactly, or None."""
    if not is_python_json(value):
        return None
    raw = encode_json(value).encode()
    return None if b'"lc":' in raw else raw  # the serializer makes an object of it


def is_python_json(value: Any) -> bool:
    """Whether Python's own JSON holds a value: it has NaN, integers of any size, surrogates."""
    kind = type(value)
    if kind is dict:
        return all(type(k) is str and is_python_json(v) for k, v in value.items())
    if kind in (list, tuple):
        return all(map(is_python_json, value))
    return kind in (str, int, float, bool, type(None))


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_int64(value: int) -> bool:
    return -(2**63) <= value < 2**63


def is_exact_json(value: Any, depth: int = JSON_DEPTH) -> bool:  # noqa: PLR0911 - a return for each type
    """Whether every engine's JSON gives back exactly this value.

    It doesn't for NUL and lone surrogates (PostgreSQL and MySQL refuse them), integers beyond 64
    bits (MySQL makes them floats), NaN, infinities, -0.0, and floats that are written with an
    exponent (PostgreSQL makes 1e22 an integer). A tuple counts as a list, because LangGraph's
    serializer makes a list of it.
    """
    kind = type(value)
    if kind is str:
        return "\0" not in value and (value.isascii() or _is_text(value))
    if kind is bool or value is None:
        return True
    if kind is int:
        return _is_int64(value)
    if kind is float:
        shown = repr(value)
        return shown != "-0.0" and shown.strip("-0123456789.") == ""
    # Lists: generators take twice as long, at every put.
    if depth > 0 and kind is dict:
        return _is_plain_text(value) or all(
            [  # noqa: C419
                is_json_name(k) and is_exact_json(v, depth - 1) for k, v in value.items()
            ]
        )
    if depth > 0 and (kind is list or kind is tuple):
        return all([is_exact_json(item, depth - 1) for item in value])  # noqa: C419
    return False


def _is_plain_text(value: dict[Any, Any]) -> bool:
    """Whether names and values are short ASCII, as versions are: all are looked at together."""
    texts = [*value, *value.values()]
    if not {*map(type, texts)} <= {str}:
        return False
    text = "".join(texts)
    return len(text) <= _JSON_NAME and text.isascii() and "\0" not in text


_JSON_NAME = 65_535 // 4
"""MySQL refuses longer names in an object; it counts bytes, at most four for a character."""


def is_json_name(name: Any) -> bool:
    """Whether every engine's JSON takes this as the name of an entry."""
    return (
        type(name) is str
        and len(name) <= _JSON_NAME
        and "\0" not in name
        and (name.isascii() or _is_text(name))
    )


class NotJSON(Exception):  # noqa: N818 - never leaves this module
    """A value has no part that an engine's JSON takes."""


def json_subset(value: Any, depth: int = JSON_DEPTH) -> Any:
    """Return the part of a value that an engine's JSON takes, for its filters.

    Numbers stay, even where the engine rounds them. A dict's entries that JSON doesn't take are
    left out; a list is all or nothing.

    Raises:
        NotJSON: There is no such part.
    """
    value = _plain(value)
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int:
        if abs(value) < 2**1023:  # MySQL refuses larger integers than a double holds
            return value
        raise NotJSON
    if type(value) not in (dict, list, tuple) and is_exact_json(value):
        return value
    if depth > 0 and type(value) is dict:
        subset = {}
        for name, item in value.items():
            if is_json_name(name):
                with suppress(NotJSON):
                    subset[name] = json_subset(item, depth - 1)
        return subset
    if depth > 0 and type(value) in (list, tuple):
        return [json_subset(item, depth - 1) for item in value]
    raise NotJSON


def _plain(value: Any) -> Any:
    """Return the text or number that an instance of a subclass is, such as an Enum's member."""
    for base in (str, int, float):
        if isinstance(value, base) and type(value) not in (base, bool):
            return base.__str__(value) if base is str else base(value)
    return value


def split_exact(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a document into its JSON and the entries that JSON can't hold exactly."""
    if is_exact_json(document, JSON_DEPTH + 1):
        return document, {}
    inexact = {k: v for k, v in document.items() if not (is_json_name(k) and is_exact_json(v))}
    return json_subset(dict(document)), inexact
