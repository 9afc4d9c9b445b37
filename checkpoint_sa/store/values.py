"""An item's value as JSON that every engine holds, and back, exactly.

Entries that an engine's JSON changes or refuses (NaN, integers beyond 64 bits, NUL, lone
surrogates, -0.0) are written once more by Python's own JSON, into a text under one more name. So
PostgresStore reads the rest of such a value, and replaces all of it by its next put.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from checkpoint_sa.codec.exact_json import (
    encode_json,
    is_exact_json,
    is_json_name,
    json_subset,
)
from checkpoint_sa.errors import InvalidInputError

EXACT = "__checkpoint_sa__"
"""The name of the text that holds the entries which the engine's JSON doesn't."""


def dump(value: Any) -> str:
    """Return an item's value as JSON.

    A tuple is stored as a list, a member of an Enum that is text or a number as that.

    Raises:
        InvalidInputError: It isn't a mapping, has a key that isn't text, or something that JSON
            can't hold: the message names its place and its type.
    """
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"The value is of type {type(value).__name__}. Items hold dicts.")
    document = dict(value)
    try:
        if not _inexact(document):
            return encode_json(document)
        document = _plain(document, "value")
        inexact = _inexact(document)
        subset = json_subset({k: v for k, v in document.items() if k != EXACT})
        return encode_json(subset | ({EXACT: encode_json(inexact)} if inexact else {}))
    except RecursionError:
        raise InvalidInputError(
            "The value contains itself, or is nested more deeply than Python's JSON goes."
        ) from None


def _inexact(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: item
        for name, item in document.items()
        if name == EXACT or not (is_json_name(name) and is_exact_json(item))
    }


def _plain(value: Any, place: str) -> Any:
    """Return a value as Python's JSON reads it back; `place` says where it is, for the error."""
    if value is None or isinstance(value, bool):
        return value
    for base in (str, int, float):
        if isinstance(value, base):
            return base.__str__(value) if base is str else base(value)
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise InvalidInputError(
                    f"A key of {place} is of type {type(name).__name__}. JSON's keys are text:"
                    " convert it."
                )
        return {
            str.__str__(name): _plain(item, f"{place}[{name!r}]") for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{i}]") for i, item in enumerate(value)]
    raise InvalidInputError(
        f"{place} is of type {type(value).__name__}, which JSON hasn't. Convert it, to text for"
        " example."
    )


def load(text: str) -> dict[str, Any]:
    """Return the value that was stored."""
    value: dict[str, Any] = json.loads(text)
    if EXACT not in value:
        return value
    exact = _exact(value[EXACT])
    if exact is None:
        return value
    del value[EXACT]
    return {**value, **exact}


def _exact(text: object) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
