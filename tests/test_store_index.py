"""Semantic search on every engine: what is embedded, how it is ranked, what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import math
import sys
import threading
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.store.base import GetOp, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore
from stores import ONE_PER_PROTOCOL
from test_model import examples

from checkpoint_sa import (
    AsyncSQLAlchemyStore,
    ConfigurationError,
    InvalidInputError,
    SQLAlchemyStore,
)
from checkpoint_sa.store import filters, repository

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memories import Memory
    from stores import Store

pytestmark = pytest.mark.kinds(ONE_PER_PROTOCOL)

NS = ("docs",)
DIMS = 16


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Count letters and words, by their hash: texts with the same words are alike."""
    vectors = []
    for text in texts:
        vector = [0.0] * DIMS
        for word in text.lower().split():
            digest = hashlib.sha256(word.encode()).digest()
            vector[digest[0] % DIMS] += 1 + digest[1] / 256
        vectors.append(vector)
    return vectors


INDEX: dict[str, Any] = {"dims": DIMS, "embed": embed, "fields": ["text"]}


@pytest.fixture
def indexed(memory: Memory) -> Memory:
    return memory.using(index=INDEX)


def scores(memory: Memory, query: str, **options: Any) -> dict[str, float | None]:
    return {item.key: item.score for item in memory.search(NS, query=query, **options)}


def test_the_most_alike_come_first_with_their_scores(indexed: Memory) -> None:
    for key, text in {"tea": "green tea", "both": "tea coffee", "none": "mountain lake"}.items():
        indexed.put(NS, key, {"text": text})
    found = scores(indexed, "green tea")
    assert [*found][:2] == ["tea", "both"]
    assert found["tea"] == pytest.approx(1)
    assert found["none"] is not None
    assert scores(indexed, "green tea", limit=1, offset=1).keys() == {"both"}
    assert scores(indexed, "green tea", limit=0) == {}
    assert {item.score for item in indexed.search(NS)} == {None}


def test_what_is_embedded_can_be_said_for_each_put(indexed: Memory) -> None:
    value = {"text": "tea", "title": "lake", "parts": [{"t": "one"}, {"t": "two"}]}
    indexed.put(NS, "default", value)
    indexed.put(NS, "title", value, index=["title"])
    indexed.put(NS, "parts", value, index=["parts[*].t", "text"])
    indexed.put(NS, "never", value, index=False)
    fields = indexed.on.sql("SELECT field_name FROM store_embeddings ORDER BY 1")
    assert sorted(text_of(row[0]) for row in fields) == [
        "parts[*].t.0",
        "parts[*].t.1",
        "text",
        "text",
        "title",
    ]
    assert scores(indexed, "two")["parts"] == pytest.approx(1)
    assert "never" not in scores(indexed, "tea")
    assert len(scores(indexed, "tea")) == 3


def test_a_path_that_stands_twice_is_embedded_once(indexed: Memory) -> None:
    indexed.put(NS, "k", {"text": "tea"}, index=["text", "text"])
    assert scores(indexed, "tea")["k"] == pytest.approx(1)
    assert indexed.on.count("store_embeddings") == 1


@pytest.mark.parametrize("index", [True, "text", 1])
def test_an_index_that_is_no_list_is_an_error(indexed: Memory, index: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"index is a .* Expected a list of paths, False"):
        indexed.put(NS, "k", {"text": "tea"}, index=index)
    assert indexed.keys(NS) == []


@pytest.mark.parametrize("fields", [["$"], ["a.text"], ["parts[*].t"]])
def test_any_mapping_and_sequence_is_embedded_as_it_is_stored(
    memory: Memory, fields: list[str]
) -> None:
    given = MappingProxyType(
        {"a": MappingProxyType({"text": "tea"}), "parts": (MappingProxyType({"t": "lake"}),)}
    )
    plain = {"a": {"text": "tea"}, "parts": [{"t": "lake"}]}
    indexed = memory.using(index=INDEX)
    indexed.put(NS, "given", given, index=fields)
    indexed.put(NS, "plain", plain, index=fields)
    assert indexed.found(NS, "given").value == plain
    found = scores(indexed, "tea lake")
    assert found.keys() == {"given", "plain"}
    assert found["given"] == found["plain"]


def test_a_path_that_is_no_text_is_an_error(indexed: Memory) -> None:
    with pytest.raises(InvalidInputError, match="index has a path of type int"):
        indexed.put(NS, "k", {"text": "tea"}, index=[1])


def text_of(value: Any) -> str:
    return value.decode() if isinstance(value, bytes | bytearray) else str(value)


def test_a_new_value_and_a_deletion_take_the_vectors_with_them(indexed: Memory) -> None:
    indexed.put(NS, "k", {"text": "tea"})
    indexed.put(NS, "k", {"text": "lake"})
    assert scores(indexed, "lake")["k"] == pytest.approx(1)
    assert indexed.on.count("store_embeddings") == 1
    indexed.put(NS, "k", {"text": "lake"}, index=False)
    assert indexed.on.count("store_embeddings") == 0
    indexed.put(NS, "k", {"text": "tea"})
    indexed.put(NS, "l", {"text": "tea"}, ttl=5)
    indexed.delete(NS, "k")
    assert scores(indexed, "tea").keys() == {"l"}
    indexed.expire("l")
    assert scores(indexed, "tea") == {}
    assert indexed.sweep() == 1
    assert indexed.on.count("store_embeddings") == 0


def test_a_store_without_an_index_deletes_vectors_as_well(indexed: Memory) -> None:
    indexed.put(NS, "k", {"text": "tea"})
    plain = indexed.using()
    assert [item.score for item in plain.search(NS, query="tea")] == [None]
    plain.delete(NS, "k")
    assert indexed.on.count("store_embeddings") == 0


def test_an_item_and_its_vectors_are_stored_together(indexed: Memory) -> None:
    with indexed.on.statements() as sent:
        indexed.batch([PutOp(NS, f"{i}", {"text": f"number {i}"}) for i in range(50)])
    counted = [s for s in sent.texts if s.startswith(("INSERT", "DELETE", "UPDATE"))]
    assert len(counted) == 3, counted
    assert indexed.on.count("store_embeddings") == 50


def test_expired_items_take_no_place_in_a_page(indexed: Memory) -> None:
    ops = [PutOp((*NS, f"{i}"), "gone", {"text": "green tea"}, ttl=5) for i in range(50)]
    indexed.batch([*ops, *(PutOp(NS, word, {"text": word}) for word in ("green", "lake", "sun"))])
    indexed.expire("gone")
    indexed.put(("other",), "elsewhere", {"text": "green tea"})
    found = [*scores(indexed, "green tea", limit=3)]
    assert found[0] == "green"
    assert {*found} == {"green", "lake", "sun"}
    assert [*scores(indexed, "green tea", limit=1, offset=1)] == found[1:2]


@pytest.mark.parametrize("number", [2**31, sys.maxsize, 2**80])
def test_any_limit_and_offset_of_a_ranking_are_taken(indexed: Memory, number: int) -> None:
    indexed.put(NS, "a", {"text": "tea"})
    assert [*scores(indexed, "tea", limit=number)] == ["a"]
    assert [*scores(indexed, "tea", limit=3, offset=number)] == []


def test_an_item_with_many_texts_has_one_place(memory: Memory) -> None:
    indexed = memory.using(index={**INDEX, "fields": ["texts[*]"]})
    for i in range(4):
        near = [f"green tea{' sun' * i}"] * 5
        indexed.put(NS, f"{i}", {"texts": [*near, "lake"]})
    indexed.put(NS, "far", {"texts": ["lake"]})
    assert [*scores(indexed, "green tea", limit=5)] == ["0", "1", "2", "3", "far"]


def test_a_filter_and_a_namespace_limit_a_ranking(indexed: Memory) -> None:
    for i in range(30):
        indexed.put(NS, f"{i:02}", {"text": "tea " * (i % 3), "i": i, "odd": i % 2})
    indexed.put(("other",), "x", {"text": "tea"})
    found = indexed.search(NS, query="tea", filter={"odd": 1, "i": {"$lt": 20}}, limit=100)
    assert {item.key for item in found} == {f"{i:02}" for i in range(1, 20, 2)}
    assert {item.key for item in indexed.search((), query="tea", limit=100)} >= {"x", "00"}


def test_a_ranking_refreshes_what_it_returns(indexed: Memory) -> None:
    indexed.put(NS, "k", {"text": "tea"}, ttl=5)
    indexed.on.sql("UPDATE store SET ttl_minutes = 50")
    indexed.search(NS, query="tea")
    assert indexed.minutes_left() == pytest.approx([50], abs=1)


WORDS = st.sampled_from(["tea", "lake", "green", "blue", "one", "two", "three", ""])
TEXTS = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
def test_the_ranking_is_that_of_exact_search(
    memory: Memory, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_PAGE_ROWS", (3, 3))  # an item's vectors on two pages
    indexed = memory.using(index={**INDEX, "fields": ["a", "b"], "distance_type": metric})

    def exact(query: list[float], vector: list[float]) -> float:
        dot = sum(x * y for x, y in zip(query, vector, strict=True))
        if metric == "inner_product":
            return dot
        if metric == "l2":
            return -math.dist(query, vector)
        lengths = math.hypot(*query) * math.hypot(*vector)
        return dot / lengths if lengths else 0.0

    @examples(15)
    @given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8), TEXTS, st.integers(0, 4))
    def run(texts: list[tuple[str, str]], query: str, offset: int) -> None:
        memory.on.sql("DELETE FROM store")
        indexed.batch([PutOp(NS, f"{i}", {"a": a, "b": b}) for i, (a, b) in enumerate(texts)])
        (wanted,) = embed([query])
        expected = sorted(
            (max(exact(wanted, vector) for vector in embed(pair)) for pair in texts), reverse=True
        )
        query_or_blank = query or " "
        found = indexed.search(NS, query=query_or_blank, limit=5, offset=offset)
        assert [item.score for item in found] == pytest.approx(
            expected[offset : offset + 5], abs=1e-5
        )
        assert len({item.key for item in found}) == len(found)

    run()


def test_the_ranking_is_that_of_langgraphs_in_memory(indexed: Memory) -> None:
    model = InMemoryStore(index={"dims": DIMS, "embed": embed, "fields": ["text"]})
    texts = [f"{a} {b}" for a in ("tea", "lake", "sun") for b in ("blue", "green", "red", "old")]
    ops = [PutOp(NS, f"{i}", {"text": text, "i": i}) for i, text in enumerate(texts)]
    model.batch(ops)
    indexed.batch(ops)
    for query in ("blue tea", "old lake sun", "green"):
        theirs = {item.key: item.score for item in model.search(NS, query=query, limit=20)}
        assert scores(indexed, query, limit=20) == pytest.approx(theirs, abs=1e-5)


def test_a_batch_ranks_before_it_writes(indexed: Memory) -> None:
    indexed.put(NS, "old", {"text": "tea"})
    results = indexed.batch(
        [PutOp(NS, "new", {"text": "tea"}), SearchOp(NS, query="tea"), GetOp(NS, "old")]
    )
    assert [item.key for item in results[1]] == ["old"]
    assert results[2].key == "old"
    assert scores(indexed, "tea").keys() == {"old", "new"}


def test_an_async_function_embeds_for_an_async_store(memory: Memory) -> None:
    async def aembed(texts: Sequence[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return embed(texts)

    indexed = memory.using(index={**INDEX, "embed": aembed})
    if not memory.on.kind.is_async:

        async def use() -> Any:
            await indexed.store.aput(NS, "k", {"text": "tea"})

        with pytest.raises(Exception, match="async"):
            asyncio.run(use())
        return
    indexed.put(NS, "k", {"text": "tea"})
    assert scores(indexed, "tea") == {"k": pytest.approx(1)}


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": 0}, "`dims`"),
        ({"dims": "16"}, "`dims`"),
        ({"embed": None}, "no `embed`"),
        ({"distance_type": "hamming"}, "cosine, l2, inner_product"),
        ({"ann_index_config": {"vector_type": "bit"}}, "Expected 'vector' or 'halfvec'"),
    ],
)
def test_an_index_that_cannot_work_is_refused(
    sqlite_store: Store, change: dict[str, Any], message: str
) -> None:
    index: Any = {**INDEX, **change}
    with pytest.raises(ConfigurationError, match=message):
        SQLAlchemyStore(sqlite_store.own, index=index)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda texts: [[1.0] * 3 for _ in texts], "a vector of 3 numbers, `dims` says 16"),
        (lambda texts: [[1.0] * DIMS] * (len(texts) + 1), "returned 2 vectors for 1 texts"),
        (lambda texts: [[math.nan] * DIMS for _ in texts], "isn't finite"),
    ],
)
def test_embeddings_that_are_not_as_said_store_nothing(
    memory: Memory, function: Callable[[Sequence[str]], Any], message: str
) -> None:
    indexed = memory.using(index={**INDEX, "embed": function})
    with pytest.raises(InvalidInputError, match=message):
        indexed.put(NS, "k", {"text": "secret"})
    assert memory.on.count("store") == 0


def test_vectors_of_another_length_are_an_error(indexed: Memory) -> None:
    indexed.put(NS, "k", {"text": "tea"})
    other = indexed.using(
        index={**INDEX, "dims": 3, "embed": lambda texts: [[1.0, 2.0, 3.0] for _ in texts]}
    )
    with pytest.raises(ConfigurationError, match="other than 3 dimensions"):
        other.search(NS, query="tea")


def test_without_numpy_the_error_names_the_extra(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.delitem(sys.modules, "checkpoint_sa.store.index", raising=False)
    index: Any = INDEX
    with pytest.raises(ConfigurationError, match=r"langgraph-checkpoint-sa\[index\]"):
        SQLAlchemyStore(sqlite_store.own, index=index)
    monkeypatch.undo()


def test_an_async_store_takes_an_index(tmp_path: Any) -> None:
    async def use() -> list[Any]:
        url = f"sqlite:///{tmp_path / 'a.db'}"
        index: Any = INDEX
        async with AsyncSQLAlchemyStore.from_conn_string(url, index=index) as store:
            await store.setup()
            await store.aput(NS, "k", {"text": "tea"})
            return await store.asearch(NS, query="tea")

    (item,) = asyncio.run(use())
    assert item.score == pytest.approx(1)


@pytest.mark.parametrize("migrated_store", ["aiosqlite", "pg-asyncpg"], indirect=True)
@pytest.mark.parametrize("query", [None, "tea"])
def test_the_event_loop_goes_on_while_a_filter_looks_through_large_values(
    indexed: Memory, query: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = {"text": "tea", "more": "x" * 20_000}
    indexed.batch([PutOp(NS, f"{i:02}", {**large, "n": i}) for i in range(60)])
    threads = set()
    matches = filters.matches

    def watched(document: Any, wanted: Any) -> bool:
        threads.add(threading.get_ident())
        return matches(document, wanted)

    monkeypatch.setattr(filters, "matches", watched)
    wanted: dict[str, Any] = {"query": query, "filter": {"n": {"$gte": 40}}}
    found = indexed.keys(NS, **wanted, limit=100)
    assert sorted(found) == [str(n) for n in range(40, 60)]
    assert indexed.keys(NS, **wanted, limit=5, offset=3) == found[3:8]
    assert threads
    assert threading.get_ident() not in threads
