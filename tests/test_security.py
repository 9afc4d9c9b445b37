"""Hostile rows, hostile input, planted secrets, and who may do what."""

from __future__ import annotations

import logging
import pickle
from contextlib import ExitStack, closing, suppress
from pprint import pformat
from typing import TYPE_CHECKING, Any

import ormsgpack
import pytest
from conftest import url_of
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from proxy import Proxy
from roles import TABLES, admin_of, role
from sqlalchemy.exc import DBAPIError
from stores import KINDS, Store, thread
from test_faults import put

from checkpoint_sa import CheckpointError, CorruptDataError, cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers import Server

RAN: list[str] = []


def run_by_attacker(*words: object) -> str:
    RAN.append(repr(words))
    return "ran"


class Bomb:
    def __reduce__(self) -> Any:
        return run_by_attacker, ("pickle",)


def called(code: int) -> bytes:
    """Return msgpack that asks LangGraph's serializer to call a function of this module."""
    what = (__name__, "run_by_attacker", ["msgpack"], "method")
    return ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(what)))


CONSTRUCTOR = b'{"lc": 2, "type": "constructor", "id": ["%s", "run_by_attacker"], "args": ["json"]}'
HOSTILE: dict[str, tuple[str, bytes]] = {
    "an unknown type": ("no such type", b""),
    "a value cut short": ("msgpack", b"\x93\x01"),
    "a wrong type": ("json", b"\x93\x01\x02\x03"),
    "a pickle": ("pickle", pickle.dumps(Bomb())),
    "an unknown extension": ("msgpack", ormsgpack.packb(ormsgpack.Ext(99, b"x"))),
    "a constructor in json": ("json", CONSTRUCTOR % __name__.encode()),
    **{f"extension {code}": ("msgpack", called(code)) for code in range(8)},
}
"""What somebody who can write to the database could put into a row."""

UNREADABLE = {"an unknown type", "a value cut short", "a wrong type", "a pickle"}
"""What the serializer refuses; of the rest it makes plain data."""


@pytest.mark.parametrize("what", list(HOSTILE))
def test_a_hostile_row_is_named_or_harmless_and_runs_nothing(store: Store, what: str) -> None:
    strict = JsonPlusSerializer(allowed_msgpack_modules=None)
    own = store.using(store.make_saver(serde=strict))
    own.save("a", {"x": [1]})
    kind, data = HOSTILE[what]
    blob = "`blob`" if store.kind.server in ("mariadb", "mysql") else "blob"
    store.sql(f"UPDATE checkpoint_blobs SET type = :kind, {blob} = :data", kind=kind, data=data)
    RAN.clear()
    if what in UNREADABLE:
        with pytest.raises(CorruptDataError, match=r"thread_id='a'.*channel='x'"):
            own.found(thread("a"))
    else:
        own.found(thread("a"))
    assert RAN == []


# Hostile input

texts = st.text(max_size=40) | st.sampled_from(
    [
        "'; DROP TABLE checkpoints; --",
        "x') OR 1=1 --",
        '"a".b[0]',
        "$.x') OR '1'='1",
        "%s %(x)s :name {0} ?",
        "\\",
        "a\0b",
        "\ud800",
        "é" * 600,
    ]
)
ids_or_not = texts | st.integers() | st.none()
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
documents = st.dictionaries(
    texts,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


configs = st.fixed_dictionaries(
    {"thread_id": ids_or_not, "checkpoint_ns": ids_or_not, "checkpoint_id": ids_or_not}
).map(lambda configurable: {"configurable": configurable})


def checkpoint_of(checkpoint_id: str, channel: str, version: Any, value: Any) -> Any:
    return {
        "v": 4,
        "id": checkpoint_id,
        "ts": "",
        "channel_values": {channel: value},
        "channel_versions": {channel: version},
        "versions_seen": {},
    }


versions = texts | st.integers() | st.floats()
calls = st.one_of(
    st.tuples(st.just("put"), configs, st.tuples(texts, texts, versions, documents), documents),
    st.tuples(st.just("put_writes"), configs, st.tuples(texts, documents), texts, texts),
    st.tuples(st.just("get_tuple"), configs),
    st.tuples(st.just("list"), configs, documents, texts),
    st.tuples(st.just("history"), configs, texts),
    st.tuples(st.just("copy_thread"), ids_or_not, ids_or_not),
    st.tuples(st.sampled_from(["prune", "delete_for_runs"]), st.lists(ids_or_not, max_size=2)),
    st.tuples(st.just("delete_thread"), ids_or_not),
)
"""Calls of a saver, with all that may come from a stranger."""


def done(store: Store, name: str, *given: Any) -> Any:
    """Return what a call gave, or the class of one of our own errors."""
    try:
        if name == "put":
            config, (checkpoint_id, channel, version, value), metadata = given
            checkpoint = checkpoint_of(checkpoint_id, channel, version, value)
            return store.put(config, checkpoint, metadata, {channel: version})
        if name == "put_writes":
            config, write, task_id, task_path = given
            return store.put_writes(config, [write], task_id, task_path)
        if name == "list":
            config, wanted, before = given
            earlier = thread(checkpoint_id=before)
            return store.list(config, filter=wanted, before=earlier, limit=3)
        if name == "history":
            config, channel = given
            return store.history(config, [channel])
        return getattr(store, name)(*given)
    except CheckpointError as error:
        return type(error)


def shown(result: Any) -> str:
    """Return a result as text, with the entries of each dict in one order: JSONB has its own."""
    if isinstance(result, CheckpointTuple):
        return pformat(tuple(result))
    return pformat([tuple(item) for item in result] if isinstance(result, list) else result)


FAMILIES = ["sqlite", "pg-asyncpg", "mariadb-pymysql", "mysql-pymysql"]


@pytest.fixture
def families(start_server: Callable[[str], Server], tmp_path: Path) -> Iterator[list[Store]]:
    # All URLs before the first store: one that skips the test leaves no event loop open.
    urls = {name: url_of(KINDS[name], start_server, tmp_path) for name in FAMILIES}
    with ExitStack() as opened:
        stores = [opened.enter_context(closing(Store(KINDS[name], urls[name]))) for name in urls]
        for store in stores:
            store.setup()
        yield stores


def test_strange_input_is_the_same_everywhere_and_no_error_but_ours(families: list[Store]) -> None:
    @settings(max_examples=40, deadline=None, database=None, derandomize=True)
    @given(st.lists(calls, min_size=5, max_size=15))
    def check(sequence: list[Any]) -> None:
        for store in families:
            store.clear()
        for call in sequence:
            results = [shown(done(store, *call)) for store in families]
            assert results == results[:1] * len(FAMILIES), call[0]
        assert len({store.rows() for store in families}) == 1

    check()


@pytest.mark.parametrize(
    "name",
    [
        "source') OR 1=1 --",  # CVE-2025-67644: keys of a filter in SQL
        "x' || (SELECT version()) || '",
        'source" : 1} OR 1=1 --',
        "a.b",
        "$.source",
        "source') UNION SELECT 1,2,3,4,5,6,7 --",  # CVE-2026-27022, of another store
        "@source:{x} | *",
    ],
)
def test_a_filter_whose_key_is_an_injection_finds_only_that_key(store: Store, name: str) -> None:
    store.save("a", {"x": [1]}, metadata={"source": "x"})
    store.save("b", {"x": [1]}, metadata={name: "x"})
    found = store.list(None, filter={name: "x"})
    assert [item.config["configurable"]["thread_id"] for item in found] == ["b"]
    assert store.list(None, filter={name: "y"}) == []
    with store.statements() as sent:
        store.list(None, filter={name: "x"})
    assert not [text for text in sent.texts if name in text]


# Planted secrets

SECRET = "planted-s3cret"


def test_no_error_no_log_and_no_repr_says_a_secret(
    store: Store, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    said: list[str] = []

    def note(call: Callable[[], object]) -> None:
        with pytest.raises(Exception) as error:  # noqa: PT011 - any
            call()
        said.extend([str(error.value), repr(error.value)])
        said.extend(map(str, (error.value.__cause__, error.value.__context__)))

    values = {"x": [SECRET], "small": SECRET}
    config = store.save("a", values)
    store.put_writes(config, [("x", SECRET)], "task")
    store.sql("UPDATE checkpoint_blobs SET type = 'wrong'")
    note(lambda: store.found(config))
    store.sql("UPDATE checkpoint_writes SET type = 'wrong'")
    note(lambda: store.list(config))
    note(lambda: store.save("a" * 600, values))
    note(lambda: store.save("a", {"x": {SECRET: object()}}))
    if store.kind.server:
        url = store.url.replace("://postgres@", f"://postgres:{SECRET}@").replace(
            "://root@", f"://root:{SECRET}@"
        )
        with Proxy(url) as proxy:
            far = Store(store.kind, proxy.url)
            far.saver.retry_seconds = 0.1
            with suppress(DBAPIError):
                far.get_tuple(thread())
        note(lambda: far.save("a", values))
        said.append(repr(far.saver) + str(far.saver.metrics) + repr(far.engine))
        far.close()
        assert cli.main(["verify", "--url", proxy.url]) == 3
    hidden = ("checkpoint_writes", "checkpoint_blobs")
    for table in hidden:
        store.sql(f"ALTER TABLE {table} RENAME TO hidden_{table}")
    try:
        note(lambda: store.save("c", values))
        note(lambda: store.put_writes(config, [("x", SECRET)], "task"))
    finally:
        for table in hidden:
            store.sql(f"ALTER TABLE hidden_{table} RENAME TO {table}")
    output = capsys.readouterr()
    for text in (*said, caplog.text, output.out, output.err):
        assert SECRET not in text
    assert len(said) >= 6 * 4


# Row-level security

POLICY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {table} USING (starts_with(thread_id, current_setting('app.tenant') || ':'))
"""


@pytest.mark.parametrize(
    "migrated_store", ["pg-psycopg", "pg-psycopg-async", "pg-asyncpg"], indirect=True
)
def test_with_row_level_security_a_tenant_sees_and_makes_only_its_own(store: Store) -> None:
    with role(store, "tenants") as url, admin_of(store) as admin:
        for table in TABLES:
            for statement in POLICY.format(table=table).split(";"):
                admin.exec_driver_sql(statement)
        try:
            savers = {}
            for name in ("one", "two"):
                setting = {"app.tenant": name}
                arguments: dict[str, Any] = {"options": f"-c app.tenant={name}"}
                if store.kind.driver.endswith("asyncpg"):
                    arguments = {"server_settings": setting}
                savers[name] = Store(store.kind, url, connect_args=arguments)
                put(savers[name], "1", of=f"{name}:a")
            one, two = savers.values()
            assert [item.config["configurable"]["thread_id"] for item in one.list(None)] == [
                "one:a"
            ]
            assert one.get_tuple(thread("two:a")) is None
            one.delete_thread("two:a")
            one.delete_for_runs(["run-1"])
            assert one.list(None) == []
            with pytest.raises(DBAPIError, match="row-level security"):
                put(one, "1", of="two:b")
            with pytest.raises(DBAPIError, match="row-level security"):
                two.copy_thread("two:a", "one:a")
            assert [item.config["configurable"]["thread_id"] for item in two.list(None)] == [
                "two:a"
            ]
            one.close()
            two.close()
        finally:
            for table in TABLES:
                admin.exec_driver_sql(f"DROP POLICY tenant ON {table}")
                admin.exec_driver_sql(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
