"""The criteria of `list`, and the meaning of a filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checkpoint_sa import models
from checkpoint_sa.codec.exact_json import encode_json, is_json_name
from checkpoint_sa.codec.ids import validate_id
from checkpoint_sa.errors import InvalidInputError
from checkpoint_sa.rows import Criteria

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig


def criteria(
    config: RunnableConfig | None,
    before: RunnableConfig | None,
    filter: Mapping[str, Any] | None,
) -> Criteria:
    """Make the criteria of `list`.

    Raises:
        InvalidInputError: An id can't be stored, or `filter` isn't a mapping.
    """
    configurable = (config or {}).get("configurable") or {}
    earlier = ((before or {}).get("configurable") or {}).get("checkpoint_id")
    if filter is not None and not isinstance(filter, Mapping):
        raise InvalidInputError(
            f"filter is a {type(filter).__name__}; pass a dict of metadata keys and values."
        )

    def given(name: str, limit: int) -> str | None:
        value = configurable.get(name)
        return None if value is None else validate_id(name, value, limit)

    return Criteria(
        thread_id=given("thread_id", models.THREAD_ID_BYTES),
        checkpoint_ns=given("checkpoint_ns", models.NAMESPACE_BYTES),
        checkpoint_id=given("checkpoint_id", models.CHECKPOINT_ID_BYTES) or None,
        before=validate_id("before", earlier, models.CHECKPOINT_ID_BYTES) if earlier else None,
        filter_json=encode_json(wanted) if (wanted := _prefilter(filter or {})) else None,
    )


def _prefilter(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a filter that every engine's JSON compares alike.

    It has strings, booleans, None and small integers under plain keys. It may let too many rows
    through, never too few; `matches` decides.
    """
    return {
        name: value
        for name, value in wanted.items()
        if is_json_name(name)
        and name.isascii()
        and name.isidentifier()
        and (
            value is None
            or type(value) is bool
            or (type(value) is int and abs(value) < 2**53)
            or (type(value) is str and value.isascii() and value.isprintable())
        )
    }


def matches(metadata: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Whether metadata matches a filter.

    A dict matches as a subset, nested dicts too. Other values match by JSON's equality: 1 is not
    true, 1 equals 1.0, null is null and not a missing key.
    """
    return all(
        name in metadata and _matches(metadata[name], value)
        for name, value in (wanted or {}).items()
    )


def _matches(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and matches(found, wanted)
    return _equal(found, wanted)


def _equal(found: Any, wanted: Any) -> bool:
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return found.keys() == wanted.keys() and all(_equal(found[k], wanted[k]) for k in wanted)
    if isinstance(found, list | tuple) and isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(_equal, found, wanted))
    return bool(found == wanted)
