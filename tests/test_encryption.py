"""AESGCMSerializer: what is stored says nothing, and rows that somebody changed are noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from conftest import url_of
from langgraph.checkpoint.serde.types import ERROR, _DeltaSnapshot
from stores import KINDS, Store, thread
from test_faults import put

from checkpoint_sa import (
    AESGCMSerializer,
    ConfigurationError,
    CorruptDataError,
    InvalidInputError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Server

KEY, OLD = b"k" * 32, b"o" * 16
SECRET = "planted-s3cret"


@pytest.fixture(scope="module", params=["sqlite", "pg-asyncpg", "mariadb-pymysql", "mysql-async"])
def migrated_store(
    request: pytest.FixtureRequest,
    start_server: Callable[[str], Server],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Store]:
    kind = KINDS[request.param]
    store = Store(kind, url_of(kind, start_server, tmp_path_factory.mktemp("encrypted")))
    store.saver = store.make_saver(serde=AESGCMSerializer(KEY))
    store.setup()
    yield store
    store.close()


def fill(store: Store) -> Any:
    config = store.save(
        "a", {"x": [SECRET], "small": SECRET, "y": SECRET}, metadata={"n": float("nan")}
    )
    store.put_writes(config, [("x", SECRET), (ERROR, SECRET)], "task", "path")
    return config


def test_nothing_of_a_value_is_stored_in_clear(store: Store) -> None:
    fill(store)
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
        rows = repr([tuple(row) for row in store.sql(f"SELECT * FROM {table}")])
        assert SECRET not in rows
        assert SECRET.encode().hex() not in rows


def test_values_come_back(store: Store) -> None:
    config = fill(store)
    found = store.found(config)
    assert found.checkpoint["channel_values"] == {"x": [SECRET], "small": SECRET, "y": SECRET}
    assert found.pending_writes is not None
    assert sorted(found.pending_writes) == [("task", ERROR, SECRET), ("task", "x", SECRET)]


def test_a_delta_channel_is_rebuilt(store: Store) -> None:
    first = store.save("a", {"x": _DeltaSnapshot(["a"])})
    store.put_writes(first, [("x", ["b"])], "task")
    second = store.save(parent=first, values={"y": [1]})
    history = store.history(second, ["x"])["x"]
    assert history["seed"] == _DeltaSnapshot(["a"])
    assert [value for *_, value in history["writes"]] == [["b"]]


# What somebody who can write to the database could do.
BLOBS, WRITES = "UPDATE checkpoint_blobs SET", "UPDATE checkpoint_writes SET"
TAMPERING = {
    "the type of a value": f"{BLOBS} type = 'json+aesgcm' WHERE channel = 'x'",
    "a plain value": f"{BLOBS} type = 'json', {{blob}} = :plain WHERE channel = 'x'",
    "a value cut short": f"{BLOBS} {{blob}} = substr({{blob}}, 1, 20) WHERE channel = 'x'",
    "an empty value": f"{BLOBS} {{blob}} = :empty WHERE channel = 'x'",
    "another channel's value": f"{BLOBS} {{blob}} = (SELECT {{blob}} FROM (SELECT * FROM"
    " checkpoint_blobs) o WHERE o.channel = 'y') WHERE channel = 'x'",
    "another thread's values": f"{BLOBS} thread_id = 'a' WHERE thread_id = 'b'",
    "another task's write": f"{WRITES} task_id = 'other' WHERE idx = 0",
    "a write as another one": f"{WRITES} idx = 7 WHERE idx = 0",
    "a write of another channel": f"{WRITES} channel = 'y' WHERE idx = 0",
    "a plain write": f"{WRITES} type = 'null' WHERE idx = 0",
    "another checkpoint's metadata": "UPDATE checkpoints SET checkpoint_id = 'zz'",
}


def tamper(store: Store, what: str) -> None:
    is_mysql = store.kind.server in ("mariadb", "mysql")
    statement = TAMPERING[what].format(blob="`blob`" if is_mysql else "blob")
    values = {"plain": b'"x"', "empty": b""}
    store.sql(statement, **{name: v for name, v in values.items() if f":{name}" in statement})


@pytest.mark.parametrize("what", list(TAMPERING))
def test_what_somebody_changed_in_the_database_is_noticed(store: Store, what: str) -> None:
    fill(store)
    if what == "another thread's values":
        versions = store.found(thread("a")).checkpoint["channel_versions"]
        store.sql("DELETE FROM checkpoint_blobs")
        store.save("b", {"x": ["b"], "small": "b", "y": "b"}, versions=versions)
    tamper(store, what)
    with pytest.raises(CorruptDataError, match=r"thread_id='a'") as error:
        store.found(thread("a"))
    assert SECRET not in str(error.value)
    with pytest.raises(CorruptDataError):
        store.list(thread("a"))


def test_a_plain_value_in_the_json_is_noticed(store: Store) -> None:
    plain = store.using(store.make_saver())
    put(plain, "1")
    with pytest.raises(CorruptDataError, match="aren't encrypted"):
        store.found(thread("a"))
    reading = store.using(store.make_saver(serde=AESGCMSerializer(KEY, allow_plain=True)))
    assert reading.found(thread("a")).checkpoint["channel_values"] == {"list": ["1"], "small": "1"}


def test_a_key_can_be_changed(store: Store) -> None:
    old = store.using(store.make_saver(serde=AESGCMSerializer(OLD)))
    config = fill(old)
    with pytest.raises(CorruptDataError, match="another serializer or key"):
        store.found(config)
    both = store.using(store.make_saver(serde=AESGCMSerializer(KEY, old_keys=[OLD])))
    assert both.found(config).checkpoint["channel_values"]["x"] == [SECRET]
    newer = both.save(parent=config, values={"x": [2]})
    assert store.found(newer).checkpoint["channel_values"] == {"x": [2]}


def test_a_thread_is_not_copied(store: Store) -> None:
    fill(store)
    with pytest.raises(InvalidInputError, match="update_state"):
        store.copy_thread("a", "b")


@pytest.mark.parametrize("key", [b"", b"short", "k" * 32])
def test_a_wrong_key_is_refused_and_not_shown(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="16, 24 or 32 bytes") as error:
        AESGCMSerializer(key)
    assert "kkk" not in str(error.value)
    assert KEY.decode() not in repr(AESGCMSerializer(KEY))


def test_a_clone_for_strict_mode_encrypts_as_well(store: Store) -> None:
    clone = store.using(store.saver.with_allowlist([("some.module", "Class")]))
    assert isinstance(clone.saver.serde, AESGCMSerializer)
    config = fill(clone)
    assert store.found(config).checkpoint["channel_values"]["x"] == [SECRET]
    assert clone.saver.metrics.operations == store.saver.metrics.operations


def test_incremental_stores_whole_values_that_are_bound_to_their_rows(store: Store) -> None:
    changes = store.using(store.make_saver(serde=AESGCMSerializer(KEY), incremental=True))
    config = None
    for turn in range(4):
        values = {"x": [SECRET * 100, *range(turn)]}
        config = changes.save("a", values, parent=config)
        found = store.using(store.make_saver(serde=AESGCMSerializer(KEY))).found(config)
        assert found.checkpoint["channel_values"] == values
    assert store.count("checkpoint_deltas") == 0
    assert store.count("checkpoint_blobs") == 4
    for row in store.sql("SELECT * FROM checkpoint_blobs"):
        assert SECRET not in repr(tuple(row))
    assert changes.rewrite(["a"], incremental=True) == 0
    assert changes.count("checkpoint_deltas") == 0


def test_a_serializer_that_revives_no_classes_keeps_its_allowlist() -> None:
    class Plain:
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            return "text", str(obj).encode()

        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            return data[1].decode()

    serde = AESGCMSerializer(bytes(32), serde=Plain())
    assert serde.with_msgpack_allowlist([("some.module", "Class")]) is serde
    kind, sealed = serde.dumps_typed("secret")
    assert b"secret" not in sealed
    assert serde.loads_typed((kind, sealed)) == "secret"
