"""Vectors in PostgresStore's own table, on a server that has pgvector, beside PostgresStore."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import test_store_index
from databases import as_admin, sync_twin, sync_url
from langgraph.store.base import PutOp
from langgraph.store.memory import InMemoryStore
from langgraph.store.postgres import PostgresStore
from memories import Memory, OpenTarget
from servers import PostgreSQLWithVectors
from sqlalchemy import create_engine
from stores import KINDS, Store
from test_store_index import DIMS, INDEX, NS, embed
from test_store_moving import copied_into

from checkpoint_sa import ConfigurationError, TransferError
from checkpoint_sa.store import pgvector

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQLWithVectors]:
    found = PostgreSQLWithVectors.find()
    assert not isinstance(found, str), found
    with found as running:
        yield running


@pytest.fixture(params=["pg-psycopg", "pg-psycopg-async", "pg-asyncpg"])
def empty(request: pytest.FixtureRequest, server: PostgreSQLWithVectors) -> Iterator[Store]:
    """A store on a database without tables, with the extension."""
    kind = KINDS[request.param]
    admin = Store(sync_twin(kind), server.url(sync_twin(kind).driver))
    as_admin(admin, "DROP DATABASE IF EXISTS bare", "CREATE DATABASE bare")
    store = Store(kind, server.url(kind.driver).replace(f"/{server.database}", "/bare"))
    store.sql("CREATE EXTENSION vector")
    yield store
    store.close()
    as_admin(admin, "DROP DATABASE bare")
    admin.close()


def memory_on(store: Store, **change: Any) -> Memory:
    memory = Memory(store, index={**INDEX, **change})
    memory.run("setup")
    return memory


def peer_on(store: Store, **change: Any) -> Any:
    url = sync_url(store).replace("+psycopg", "")
    index: Any = {**INDEX, **change}
    return PostgresStore.from_conn_string(url, index=index)


TEXTS = [f"{a} {b}" for a in ("tea", "lake", "sun") for b in ("blue", "green", "red", "old")]


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_both_find_the_same_in_the_same_order(empty: Store, metric: str, kind: str) -> None:
    change = {"distance_type": metric, "ann_index_config": {"vector_type": kind, "kind": "flat"}}
    memory = memory_on(empty, **change)
    with peer_on(empty, **change) as peer:
        peer.setup()
        for i, words in enumerate(TEXTS):
            put = memory.put if i % 2 else peer.put
            put(NS, f"{i:02}", {"text": words, "i": i})
        assert empty.count("store_vectors") == len(TEXTS)
        assert empty.count("store_embeddings") == 0
        for query in ("blue tea", "old lake sun", "green"):
            ours = {item.key: item.score for item in memory.search(NS, query=query, limit=20)}
            theirs = {item.key: item.score for item in peer.search(NS, query=query, limit=20)}
            assert ours == pytest.approx(theirs, abs=1e-4)
            scores: list[Any] = [*ours.values()]
            assert scores == sorted(scores, reverse=True)
            best = memory.search(NS, query=query, limit=3, offset=2, filter={"i": {"$lt": 9}})
            assert [item.key for item in best] == [key for key in ours if key < "09"][2:5]


def test_the_ranking_is_that_of_the_other_engines(empty: Store) -> None:
    memory = memory_on(empty)
    model = InMemoryStore(index={"dims": DIMS, "embed": embed, "fields": ["text"]})
    ops = [PutOp(NS, f"{i}", {"text": words}) for i, words in enumerate([*TEXTS, ""])]
    memory.batch(ops)
    model.batch(ops)
    for query in ("blue tea", "green sun"):
        ours = {item.key: item.score for item in memory.search(NS, query=query, limit=20)}
        theirs = {item.key: item.score for item in model.search(NS, query=query, limit=20)}
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("ann", [None, {"kind": "hnsw"}])
def test_expired_items_take_no_place_in_a_page(empty: Store, ann: dict[str, str] | None) -> None:
    memory = memory_on(empty, **({} if ann is None else {"ann_index_config": ann}))
    test_store_index.test_expired_items_take_no_place_in_a_page(memory)


@pytest.mark.parametrize("number", [2**31, 2**80])
def test_any_limit_and_offset_of_a_ranking_are_taken(empty: Store, number: int) -> None:
    test_store_index.test_any_limit_and_offset_of_a_ranking_are_taken(memory_on(empty), number)


def test_a_ranking_reaches_the_namespaces_below(empty: Store) -> None:
    memory = memory_on(empty)
    places = [NS, (*NS, "below"), (*NS, "below", "deep"), ("doc",), ("docs2",), ("other", "docs")]
    memory.batch([PutOp(place, "k", {"text": "green tea"}) for place in places])
    found = [item.namespace for item in memory.search(NS, query="tea")]
    assert found == places[:3]
    assert len(memory.search((), query="tea")) == len(places)


def test_an_item_with_many_texts_has_one_place(empty: Store) -> None:
    test_store_index.test_an_item_with_many_texts_has_one_place(memory_on(empty))


@pytest.mark.parametrize("ann", [None, {"kind": "hnsw"}])
def test_a_search_is_one_statement(empty: Store, ann: dict[str, str] | None) -> None:
    memory = memory_on(empty, **({} if ann is None else {"ann_index_config": ann}))
    memory.batch([PutOp(NS, f"{i}", {"text": f"tea {i}"}) for i in range(10)])
    memory.search(NS, query="tea")
    with memory.on.statements() as sent:
        assert len(memory.search(NS, query="tea", limit=10)) == 10
    assert [text for text in sent.texts if not text.startswith("BEGIN")] == sent.texts[-1:]


def test_vectors_of_postgresstore_are_adopted(empty: Store) -> None:
    with peer_on(empty) as peer:
        peer.setup()
        peer.put(NS, "theirs", {"text": "green tea"})
    memory = memory_on(empty)
    (item,) = memory.search(NS, query="tea green")
    assert item.score == pytest.approx(1)
    memory.put(NS, "theirs", {"text": "blue lake"})
    memory.put(NS, "ours", {"text": "green tea"}, ttl=5)
    with peer_on(empty) as peer:
        peer.setup()
        found = {item.key: item.score for item in peer.search(NS, query="green tea")}
        assert found["ours"] == pytest.approx(1)
        assert found["theirs"] < 0.9
    memory.delete(NS, "theirs")
    memory.expire("ours")
    assert memory.sweep() == 1
    assert empty.count("store_vectors") == 0


def test_setup_makes_the_table_as_postgresstore_does(empty: Store) -> None:
    def columns() -> list[Any]:
        return [
            *empty.sql(
                "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
                " WHERE attrelid = 'store_vectors'::regclass AND attnum > 0 ORDER BY attnum"
            ),
            *empty.sql(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE conrelid = 'store_vectors'::regclass AND contype <> 'n' ORDER BY 1"
            ),
        ]

    memory_on(empty)
    ours = columns()
    empty.sql("DROP TABLE store_vectors")
    with peer_on(empty) as peer:
        peer.setup()
        assert columns() == ours


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
@pytest.mark.parametrize(
    "ann",
    [
        {"kind": "hnsw", "vector_type": "vector"},
        {"kind": "hnsw", "vector_type": "halfvec", "m": 8, "ef_construction": 32},
        {"kind": "ivfflat", "vector_type": "vector", "nlist": 3},
    ],
)
def test_setup_makes_the_index_as_postgresstore_does(
    empty: Store, metric: str, ann: dict[str, Any]
) -> None:
    change = {"distance_type": metric, "ann_index_config": ann}
    definition = "SELECT pg_get_indexdef('store_vectors_embedding_idx'::regclass)"
    memory_on(empty, **change)
    memory_on(empty, **change)
    ours = empty.sql(definition)
    empty.sql("DROP TABLE store_vectors")
    with peer_on(empty, **change) as peer:
        peer.setup()
        assert empty.sql(definition) == ours


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
@pytest.mark.parametrize("ann", [{"kind": "hnsw"}, {"kind": "ivfflat", "lists": 2}])
def test_an_approximate_search_uses_the_index_and_finds_as_many(
    empty: Store, metric: str, ann: dict[str, Any]
) -> None:
    exact = memory_on(empty, distance_type=metric)
    exact.batch([PutOp(NS, f"{i:02}", {"text": words}) for i, words in enumerate(TEXTS)])
    exact.put(("other",), "far", {"text": "moon"})
    near = memory_on(empty, distance_type=metric, ann_index_config=ann)
    empty.sql("ALTER DATABASE bare SET enable_seqscan = off")
    empty.run(empty.own.dispose()) if empty.is_async else empty.own.dispose()

    def scans() -> int:
        time.sleep(0.1)
        return int(
            empty.sql(
                "SELECT pg_stat_force_next_flush(), idx_scan FROM pg_stat_user_indexes"
                " WHERE indexrelname = 'store_vectors_embedding_idx'"
            )[0][1]
        )

    before = scans()
    found = {item.key: item.score for item in near.search(NS, query="blue tea", limit=2)}
    best = {item.key: item.score for item in exact.search(NS, query="blue tea", limit=2)}
    if ann["kind"] == "hnsw":
        assert found == pytest.approx(best)
    assert len(found) == len(best)
    empty.run(empty.own.dispose()) if empty.is_async else empty.own.dispose()
    assert scans() > before
    assert near.keys(("other",), query="blue tea", limit=3) == ["far"]
    assert len(near.keys(NS, query="blue tea", limit=12)) == len(TEXTS)


@pytest.mark.parametrize(
    ("ann", "message"),
    [
        ({"kind": "tree"}, "Expected 'hnsw', 'ivfflat' or 'flat'"),
        ({"kind": "hnsw", "m": "8) --"}, "Expected a whole number from 1 on"),
        ({"kind": "ivfflat", "lists": 0}, "Expected a whole number from 1 on"),
    ],
)
def test_an_index_that_pgvector_does_not_have_is_refused(
    sqlite_store: Store, ann: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Memory(sqlite_store, index={**INDEX, "ann_index_config": ann})


def test_vectors_that_are_stored_without_pgvector_stay_where_they_are(empty: Store) -> None:
    empty.sql("DROP EXTENSION vector")
    memory = memory_on(empty)
    memory.put(NS, "k", {"text": "tea"})
    empty.sql("CREATE EXTENSION vector")
    again = memory_on(empty)
    assert [item.key for item in again.search(NS, query="tea")] == ["k"]
    assert empty.sql("SELECT to_regclass('store_vectors')") == [(None,)]


def test_vectors_of_another_length_are_refused(empty: Store) -> None:
    memory_on(empty)
    other = Memory(empty, index={**INDEX, "dims": 3})
    with pytest.raises(ConfigurationError, match=r"of type vector\(16\), `dims` of `index` is 3"):
        other.put(NS, "k", {"text": "tea"})


def test_without_the_package_the_error_names_the_extra(
    empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_on(empty)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pgvector"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pgvector", None)
    with pytest.raises(ConfigurationError, match=r"langgraph-checkpoint-sa\[pgvector\]"):
        Memory(empty, index=INDEX).search(NS, query="tea")


def test_a_vector_is_written_with_all_its_digits() -> None:
    import numpy as np  # noqa: PLC0415

    vector = np.array([0.1, -1e-30, 3e38, 0.0], dtype="<f4")
    text = pgvector.as_text(vector.tobytes())
    assert np.array_equal(np.array(text[1:-1].split(","), dtype="<f4"), vector)


def test_vectors_are_copied_into_pgvectors_type_and_out_of_it(
    empty: Store, open_target: OpenTarget
) -> None:
    memory, other = memory_on(empty), open_target().using(index=INDEX)
    source = create_engine(sync_url(empty))
    memory.batch([PutOp(NS, text, {"text": text}) for text in TEXTS])
    found = [item.key for item in memory.search(NS, query="tea blue", limit=99)]
    assert copied_into(other, source).vectors == len(TEXTS)
    source.dispose()
    assert [item.key for item in other.search(NS, query="tea blue", limit=99)] == found
    memory.on.sql("DELETE FROM store")
    assert copied_into(memory, other.on.engine).vectors == len(TEXTS)
    assert memory.on.count("store_vectors") == len(TEXTS)
    assert [item.key for item in memory.search(NS, query="tea blue", limit=99)] == found
    other.put(NS, "tea blue", {"text": "lake"})
    copied_into(memory, other.on.engine)
    assert memory.search(NS, query="lake")[0].key == "tea blue"


def test_vectors_of_another_length_are_not_copied(empty: Store, open_target: OpenTarget) -> None:
    memory_on(empty)
    other = open_target().using(
        index={"dims": 2, "embed": lambda texts: [[1.0, 0.0]] * len(texts), "fields": ["text"]}
    )
    other.put(NS, "k", {"text": "tea"})
    with pytest.raises(TransferError, match=f"'k'.* have 2 dimensions, .* takes {DIMS}"):
        copied_into(Memory(empty), other.on.engine)
    assert empty.count("store_vectors") == 0
