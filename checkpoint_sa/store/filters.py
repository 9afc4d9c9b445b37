"""The meaning of a filter: that of LangGraph's InMemoryStore, on every engine.

It differs in one place: where InMemoryStore's comparison raises an error because an item has no
number to compare, that item doesn't match.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checkpoint_sa.codec.exact_json import encode_json
from checkpoint_sa.errors import InvalidInputError
from checkpoint_sa.store.values import EXACT

_ORDER = {
    "$gt": lambda found, wanted: found > wanted,
    "$gte": lambda found, wanted: found >= wanted,
    "$lt": lambda found, wanted: found < wanted,
    "$lte": lambda found, wanted: found <= wanted,
}

_OPERATORS = ("$eq", "$ne", *_ORDER)


def check(wanted: Any) -> None:
    """Check a filter.

    Raises:
        InvalidInputError: It isn't a mapping, has an unknown operator, or compares by order with
            something that is no number.
    """
    if not isinstance(wanted, Mapping):
        raise InvalidInputError(
            f"filter is of type {type(wanted).__name__}; pass a dict of names and values."
        )
    for item in wanted.values():
        _check_value(item)


def _check_value(wanted: Any) -> None:
    if isinstance(wanted, list | tuple):
        for item in wanted:
            _check_value(item)
    if not isinstance(wanted, Mapping):
        return
    if any(not isinstance(name, str) for name in wanted):
        raise InvalidInputError("A filter has a name that isn't text. Names of values are text.")
    if not _has_operators(wanted):
        check(wanted)
        return
    for operator, operand in wanted.items():
        if operator not in _OPERATORS:
            raise InvalidInputError(
                f"A filter has the operator {operator!r}. The operators are"
                f" {', '.join(_OPERATORS)}, and stand in a dict of their own."
            )
        if operator in _ORDER and _number(operand) is None:
            raise InvalidInputError(
                f"{operator} compares numbers, and is given a {type(operand).__name__} that is"
                " none."
            )


def _has_operators(wanted: Mapping[str, Any]) -> bool:
    return any(name.startswith("$") for name in wanted)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def matches(value: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an item's value has everything that a checked filter names.

    Equality is Python's: True equals 1. None equals a missing entry.
    """
    return all(_matches(value.get(name), item) for name, item in wanted.items())


def _matches(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if _has_operators(wanted):
            return all(_compare(found, *item) for item in wanted.items())
        return isinstance(found, Mapping) and matches(found, wanted)
    if isinstance(wanted, list | tuple):
        return (
            isinstance(found, list | tuple)
            and len(found) == len(wanted)
            and all(map(_matches, found, wanted))
        )
    return bool(found == wanted)


def _compare(found: Any, operator: str, wanted: Any) -> bool:
    if operator == "$eq":
        return bool(found == wanted)
    if operator == "$ne":
        return bool(found != wanted)
    number = _number(found)
    return number is not None and bool(_ORDER[operator](number, float(wanted)))


def prefilter(wanted: Mapping[str, Any]) -> str | None:
    """Return the part of a filter that every engine's JSON answers, as JSON; None without one.

    The engine may let too many items through, never too few: texts, and the integers that no
    boolean equals, under plain names. `matches` decides.
    """
    part = {name: _operand(item) for name, item in wanted.items()}
    part = {name: item for name, item in part.items() if _is_plain(name, item)}
    return encode_json(part) if part else None


def _operand(wanted: Any) -> Any:
    is_equality = isinstance(wanted, Mapping) and "$eq" in wanted
    return wanted["$eq"] if is_equality else wanted


def _is_plain(name: str, wanted: Any) -> bool:
    if not (name.isascii() and name.isidentifier()) or name == EXACT:
        return False
    if type(wanted) is str:
        return wanted.isascii() and wanted.isprintable()
    return type(wanted) is int and 1 < abs(wanted) < 2**53
