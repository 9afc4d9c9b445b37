"""Long-term memory on every engine beside LangGraph's InMemoryStore.

The same examples come in every run; CHECKPOINT_SA_EXAMPLES=500 looks for that many random ones.
Where InMemoryStore isn't the measure: it lists namespaces whose items are all deleted, its searches
are in the order of the first put, and a comparison by order raises an error where an item has no
number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore
from stores import ONE_PER_SERVER, exact
from test_model import examples

from checkpoint_sa.store import filters
from checkpoint_sa.store.namespaces import to_labels, to_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langgraph.store.base import Op
    from memories import Labels, Memory

pytestmark = pytest.mark.kinds(ONE_PER_SERVER)

ALL = 1_000

LABELS = st.sampled_from(["a", "b", "ab", "A", "a.b", "", ".", "a ", "ü", "😀", "%", "_"])
NAMESPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
KEYS = st.sampled_from(["k", "K", "l", "l "])

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, 3, -1, 5, 5.0, 0.0, -0.0, 1.5, 2**53, 2**53 + 1, 2**70, 1e22]),
    st.sampled_from(["", "a", "A", "a ", "5", "1", "ü", "e\u0301", "true", "null", "\0", "it's"]),
)
NAMES = st.sampled_from(["x", "y", "x.y", "ü", "", "__checkpoint_sa__", "a b"])
VALUES = st.recursive(
    SCALARS,
    lambda part: st.lists(part, max_size=2) | st.dictionaries(NAMES, part, max_size=2),
    max_leaves=5,
)
ITEMS = st.dictionaries(NAMES, VALUES, max_size=3)

NUMBERS = st.sampled_from([0, 1, 2, 5, -1, 1.5, "5", True, 2**53, 1e22])
ORDERS = st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS, max_size=2)
EQUALITIES = st.dictionaries(st.sampled_from(["$eq", "$ne"]), VALUES, max_size=2)
OPERATORS = st.tuples(ORDERS, EQUALITIES).map(lambda parts: parts[0] | parts[1])
FILTERS = st.dictionaries(NAMES, VALUES | OPERATORS, max_size=2)


class Model(InMemoryStore):
    """InMemoryStore, without the namespaces that have no items."""

    def _handle_list_namespaces(self, op: ListNamespacesOp) -> list[Labels]:
        for namespace in [name for name, items in self._data.items() if not items]:
            del self._data[namespace]
        return super()._handle_list_namespaces(op)


def seen(item: Any) -> Any:
    return None if item is None else (item.namespace, item.key, exact(item.value))


def same_items(found: Any, expected: Any) -> None:
    """Compare items in any order."""
    ours, theirs = (
        {(item.namespace, item.key): seen(item) for item in items} for items in (found, expected)
    )
    assert ours == theirs
    assert len(found) == len(expected)


PUTS = st.tuples(NAMESPACES, KEYS, st.none() | ITEMS).map(lambda parts: PutOp(*parts))
PATHS = st.lists(LABELS | st.just("*"), max_size=3).map(tuple)
KINDS: Any = st.sampled_from(["prefix", "suffix"])
CONDITIONS = st.tuples(KINDS, PATHS)
READS = st.one_of(
    st.tuples(NAMESPACES, KEYS).map(lambda parts: GetOp(*parts)),
    (NAMESPACES | st.just(())).map(lambda namespace: SearchOp(namespace, limit=ALL)),
    st.tuples(
        st.lists(CONDITIONS.map(lambda parts: MatchCondition(*parts)), max_size=2).map(tuple),
        st.none() | st.integers(0, 3),
        st.integers(0, 6),
        st.integers(0, 3),
    ).map(lambda parts: ListNamespacesOp(*parts)),
)
BATCHES = st.lists(st.lists(PUTS | READS, max_size=8), min_size=1, max_size=6)


def test_batches_do_what_they_do_in_memory(memory: Memory) -> None:
    @examples(60)
    @given(BATCHES)
    def run(batches: list[list[Op]]) -> None:
        memory.on.sql("DELETE FROM store")
        model = Model()
        for ops in batches:
            found, expected = memory.batch(ops), model.batch(ops)
            assert len(found) == len(expected)
            for op, result, wanted in zip(ops, found, expected, strict=True):
                if isinstance(op, GetOp):
                    assert seen(result) == seen(wanted)
                elif isinstance(op, SearchOp):
                    same_items(result, wanted)
                else:
                    assert result == wanted

    run()


def in_memory(value: Mapping[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether InMemoryStore finds an item; False where it raises an error for want of a number."""
    store = InMemoryStore()
    store.put(("n",), "k", dict(value))
    try:
        return bool(store.search(("n",), filter=wanted))
    except (TypeError, ValueError, OverflowError):
        return False


def test_filters_mean_what_they_mean_in_memory(memory: Memory) -> None:
    @examples(60)
    @given(st.lists(ITEMS, min_size=1, max_size=6), st.lists(FILTERS, min_size=1, max_size=6))
    def run(values: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
        memory.on.sql("DELETE FROM store")
        memory.batch([PutOp(("n",), f"{i}", value) for i, value in enumerate(values)])
        # What one item has is what a filter asks for more often than chance does.
        asked = [*wanted, *values, *({"x": {"$eq": v["x"]}} for v in values if "x" in v)]
        asked = [item for item in asked if is_checked(item)]
        results = memory.batch([SearchOp(("n",), item, ALL) for item in asked])
        for item, found in zip(asked, results, strict=True):
            expected = {f"{i}" for i, value in enumerate(values) if in_memory(value, item)}
            assert {result.key for result in found} == expected, item

    run()


def is_checked(wanted: dict[str, Any]) -> bool:
    try:
        filters.check(wanted)
    except ValueError:
        return False
    return True


@examples(300)
@given(st.lists(st.text(max_size=4) | LABELS, max_size=4).map(tuple))
def test_a_namespaces_text_is_its_own(namespace: Labels) -> None:
    written = to_text(namespace)
    assert to_labels(written) == namespace
    if all(label and "." not in label and "\0" not in label for label in namespace):
        assert written == ".".join(namespace)


@examples(300)
@given(
    st.lists(LABELS, max_size=3).map(tuple),
    st.lists(LABELS, max_size=3).map(tuple),
)
def test_texts_below_a_namespace_begin_with_its_text(one: Labels, other: Labels) -> None:
    begins = (
        not one or to_text(other) == to_text(one) or to_text(other).startswith(f"{to_text(one)}.")
    )
    assert begins is (other[: len(one)] == one)
