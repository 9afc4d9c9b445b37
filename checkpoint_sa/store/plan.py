"""A batch of LangGraph's operations: checked, with keys and values as they are stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp

from checkpoint_sa.codec.ids import validate_id
from checkpoint_sa.errors import ConfigurationError, InvalidInputError
from checkpoint_sa.models import ITEM_KEY_BYTES
from checkpoint_sa.store import filters, values
from checkpoint_sa.store.namespaces import to_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langgraph.store.base import Op

    from checkpoint_sa.store.index import Index, Text
    from checkpoint_sa.store.namespaces import Namespace

Key = tuple[str, str]
"""The namespace as text, and the item's key."""

_MOST_MINUTES = 2**31 - 1
"""The largest number of the column `ttl_minutes`: 4,000 years."""


_MOST_ROWS = 2**62
"""The sum of a limit and an offset fits into 64 bits; `sys.maxsize` often means all."""


class Get(NamedTuple):
    """Read one item."""

    key: Key
    refresh: bool


class Put(NamedTuple):
    """Store one item."""

    value: str
    """JSON."""
    ttl: float | None
    """Minutes."""
    texts: list[Text]
    """The texts that are embedded; none without an index."""


class Search(NamedTuple):
    """Read the items of a namespace and those below it."""

    prefix: str
    filter: Mapping[str, Any] | None
    filter_json: str | None
    """The part of the filter that the engine can answer."""
    limit: int
    offset: int
    refresh: bool
    query: str | None
    """The text by which items are ranked; None without an index."""


class List(NamedTuple):
    """Read namespaces."""

    prefix: str
    """The namespace to which all conditions limit it, '' without one."""
    conditions: tuple[MatchCondition, ...]
    max_depth: int | None
    limit: int
    offset: int


class Plan(NamedTuple):
    """The operations of a batch. Its reads see the items as they are before its writes."""

    gets: dict[int, Get]
    """By the operation's place in the batch, as the others."""
    searches: dict[int, Search]
    lists: dict[int, List]
    puts: dict[Key, Put]
    """The last one of each key."""
    deletes: list[Key]
    size: int
    """The number of operations."""

    @property
    def reads(self) -> bool:
        """Whether it reads."""
        return bool(self.gets or self.searches or self.lists)

    @property
    def writes(self) -> bool:
        """Whether it writes."""
        return bool(self.puts or self.deletes)

    @property
    def written(self) -> set[Key]:
        """The items that it writes."""
        return {*self.puts, *self.deletes}

    @property
    def name(self) -> str:
        """The method that makes such operations, for logs."""
        kinds = {
            "get": self.gets,
            "search": self.searches,
            "list_namespaces": self.lists,
            "put": self.puts,
            "delete": self.deletes,
        }
        used = [name for name, operations in kinds.items() if operations]
        return f"store.{used[0]}" if len(used) == 1 else "store.batch"


def plan(operations: Sequence[Op], index: Index | None) -> Plan:
    """Check and encode operations; with an index, find the texts that are to be embedded.

    Raises:
        InvalidInputError: One of them can't be done; nothing was sent to the database.
    """
    gets: dict[int, Get] = {}
    searches: dict[int, Search] = {}
    lists: dict[int, List] = {}
    last: dict[Key, PutOp] = {}
    for i, op in enumerate(operations):
        if isinstance(op, GetOp):
            gets[i] = Get(_key(op), op.refresh_ttl)
        elif isinstance(op, SearchOp):
            searches[i] = _search(op, index)
        elif isinstance(op, ListNamespacesOp):
            lists[i] = _list(op)
        elif isinstance(op, PutOp):
            last[_key(op)] = op
        else:
            raise InvalidInputError(
                f"Operation {i} of the batch is of type {type(op).__name__}. Expected GetOp,"
                " SearchOp, PutOp or ListNamespacesOp."
            )
    # Sorted: two batches that write the same items don't wait for each other.
    written = sorted(last.items(), key=lambda item: item[0])
    puts = {}
    for key, op in written:
        if op.value is not None:
            value = values.dump(op.value)
            puts[key] = Put(value, check_ttl(op.ttl), _texts(op, value, index))
    deletes = [key for key, op in written if op.value is None]
    return Plan(gets, searches, lists, puts, deletes, len(operations))


def _key(op: GetOp | PutOp) -> Key:
    return to_text(op.namespace), validate_id("key", op.key, ITEM_KEY_BYTES)


def _texts(op: PutOp, value: str, index: Index | None) -> list[Text]:
    if index is None or op.index is False:
        return []
    # As it is read back: LangGraph finds no texts in mappings and sequences of other types.
    return index.texts(values.load(value), op.index)


def check_names(option: str, config: Any, allowed: Iterable[str]) -> None:
    """Check the names in a configuration; the names that LangGraph's stores add are ignored.

    Raises:
        ConfigurationError: It isn't a mapping, or has another name.
    """
    if not isinstance(config, Mapping):
        raise ConfigurationError(
            f"`{option}` is of type {type(config).__name__}. Expected a dict with some of"
            f" {', '.join(sorted(allowed))}."
        )
    for name in config:
        if name not in allowed and not str(name).startswith("__"):
            raise ConfigurationError(
                f"`{option}` has no {name!r}. Expected some of {', '.join(sorted(allowed))}."
            )


def check_ttl(minutes: Any) -> float | None:
    """Return a time to live, in minutes.

    Raises:
        InvalidInputError: It isn't a positive number of minutes.
    """
    if minutes is None:
        return None
    is_number = isinstance(minutes, int | float) and not isinstance(minutes, bool)
    if not is_number or math.isnan(minutes) or not 0 < minutes <= _MOST_MINUTES:
        shown = minutes if is_number else f"a {type(minutes).__name__}"
        raise InvalidInputError(
            f"ttl is {shown}. Expected minutes: a number above 0, up to {_MOST_MINUTES:,}, or None"
            " for an item that doesn't expire."
        )
    return float(minutes)


def _search(op: SearchOp, index: Index | None) -> Search:
    _check_range(op.limit, op.offset)
    wanted = op.filter or None
    if op.filter is not None:
        filters.check(op.filter)
    return Search(
        prefix=to_text(op.namespace_prefix),
        filter=wanted,
        filter_json=filters.prefilter(wanted) if wanted else None,
        limit=min(op.limit, _MOST_ROWS),
        offset=min(op.offset, _MOST_ROWS),
        refresh=op.refresh_ttl,
        query=(op.query or None) if index is not None else None,
    )


def _list(op: ListNamespacesOp) -> List:
    _check_range(op.limit, op.offset)
    if op.max_depth is not None and (not _is_int(op.max_depth) or op.max_depth < 0):
        raise InvalidInputError(
            f"max_depth is {op.max_depth!r}. Expected a number of labels from 0 on, or None."
        )
    conditions = tuple(op.match_conditions or ())
    limit, offset = min(op.limit, _MOST_ROWS), min(op.offset, _MOST_ROWS)
    return List(_scope(conditions), conditions, op.max_depth, limit, offset)


def _scope(conditions: tuple[MatchCondition, ...]) -> str:
    """Return the longest namespace to which prefixes without wildcards limit a list."""
    longest: Namespace = ()
    for condition in conditions:
        if condition.match_type not in ("prefix", "suffix"):
            raise InvalidInputError(
                f"match_type is {condition.match_type!r}. Expected 'prefix' or 'suffix'."
            )
        to_text(condition.path)  # which checks the labels
        if condition.match_type == "prefix":
            path = tuple(condition.path)
            literal = path[: path.index("*")] if "*" in path else path
            longest = max(longest, literal, key=len)
    return to_text(longest)


def _check_range(limit: Any, offset: Any) -> None:
    for name, number in (("limit", limit), ("offset", offset)):
        if not _is_int(number) or number < 0:
            raise InvalidInputError(f"{name} is {number!r}. Expected a whole number from 0 on.")


def _is_int(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def has(namespace: Namespace, condition: MatchCondition) -> bool:
    """Whether a namespace begins, or ends, with a path; `*` in the path is any one label."""
    path = condition.path
    if len(namespace) < len(path):
        return False
    part = (
        namespace[: len(path)]
        if condition.match_type == "prefix"
        else namespace[len(namespace) - len(path) :]
    )
    return all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))
