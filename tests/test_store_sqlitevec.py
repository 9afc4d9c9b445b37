"""Vectors that SQLite ranks itself, by the extension sqlite-vec: as Python ranks them.

Few builds of Python have an SQLite that loads extensions; the package pysqlite3-binary has one.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.store.base import PutOp
from memories import Memory
from stores import KINDS, Store
from test_store_index import (
    INDEX,
    NS,
    test_a_filter_and_a_namespace_limit_a_ranking,
    test_a_new_value_and_a_deletion_take_the_vectors_with_them,
    test_a_ranking_refreshes_what_it_returns,
    test_an_item_with_many_texts_has_one_place,
    test_any_limit_and_offset_of_a_ranking_are_taken,
    test_expired_items_take_no_place_in_a_page,
    test_the_most_alike_come_first_with_their_scores,
    test_the_ranking_is_that_of_exact_search,
    test_the_ranking_is_that_of_langgraphs_in_memory,
    test_vectors_of_another_length_are_an_error,
)

from checkpoint_sa import SQLAlchemyStore
from checkpoint_sa.store import sqlitevec
from checkpoint_sa.store.index import Index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pysqlite3 = pytest.importorskip("pysqlite3", reason="no pysqlite3-binary for this machine")

__all__ = [
    "test_a_filter_and_a_namespace_limit_a_ranking",
    "test_a_new_value_and_a_deletion_take_the_vectors_with_them",
    "test_a_ranking_refreshes_what_it_returns",
    "test_an_item_with_many_texts_has_one_place",
    "test_any_limit_and_offset_of_a_ranking_are_taken",
    "test_expired_items_take_no_place_in_a_page",
    "test_the_most_alike_come_first_with_their_scores",
    "test_the_ranking_is_that_of_exact_search",
    "test_the_ranking_is_that_of_langgraphs_in_memory",
    "test_vectors_of_another_length_are_an_error",
]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    """A memory on an SQLite with the extension."""
    store = Store(KINDS["sqlite"], f"sqlite:///{tmp_path / 'store.db'}", module=pysqlite3)
    sqlitevec.load(store.root)
    store.setup()
    yield Memory(store)
    store.close()


@pytest.fixture
def indexed(memory: Memory) -> Memory:
    return memory.using(index=INDEX)


@pytest.mark.parametrize(
    ("metric", "there"), [("cosine", True), ("l2", True), ("inner_product", False)]
)
def test_sqlite_ranks_by_the_metrics_of_the_extension(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, metric: str, there: bool
) -> None:
    in_python: list[int] = []
    scores = Index.scores

    def count(index: Index, query: Any, vectors: Sequence[bytes]) -> list[float]:
        in_python.append(len(vectors))
        return scores(index, query, vectors)

    monkeypatch.setattr(Index, "scores", count)
    indexed = memory.using(index={**INDEX, "distance_type": metric})
    indexed.batch([PutOp(NS, f"{i}", {"text": f"tea {i}"}) for i in range(20)])
    assert len(indexed.search(NS, query="tea 1")) == 10
    assert in_python == ([] if there else [20])


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_store_of_its_own_engine_loads_the_extension_if_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_installed: bool
) -> None:
    if not is_installed:
        monkeypatch.setattr(sqlitevec, "sqlite_vec", None)
    index: Any = INDEX
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with SQLAlchemyStore.from_conn_string(url, index=index, module=pysqlite3) as store:
        store.setup()
        store.put(NS, "k", {"text": "tea"})
        assert [item.key for item in store.search(NS, query="tea")] == ["k"]
        assert store.index is not None
        assert store.index.in_sqlite is is_installed


ASYNC = """
import asyncio, sys
import pysqlite3
sys.modules["sqlite3"] = pysqlite3
from checkpoint_sa import AsyncSQLAlchemyStore

def embed(texts):
    return [[float(len(text)), 1.0] for text in texts]

async def main():
    index = {"dims": 2, "embed": embed, "fields": ["text"]}
    async with AsyncSQLAlchemyStore.from_conn_string(sys.argv[1], index=index) as store:
        await store.setup()
        await store.aput(("docs",), "k", {"text": "tea"})
        found = await store.asearch(("docs",), query="tea")
        print(found[0].key, round(found[0].score, 4), store.index.in_sqlite)

asyncio.run(main())
"""


def test_an_async_store_loads_the_extension(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'store.db'}"
    done = subprocess.run(
        [sys.executable, "-c", ASYNC, url], capture_output=True, text=True, check=False
    )
    assert done.stdout == "k 1.0 True\n", done.stderr


def test_a_search_is_one_statement(indexed: Memory) -> None:
    indexed.batch([PutOp(NS, f"{i}", {"text": f"tea {i}"}) for i in range(10)])
    with indexed.on.statements() as sent:
        assert len(indexed.search(NS, query="tea", limit=10)) == 10
        assert len(indexed.search(NS, query="tea", limit=20)) == 10
    assert len(sent.texts) == 2
