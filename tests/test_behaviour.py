"""Storing one checkpoint and reading it back: keys, parents, writes, old formats, errors."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from sqlalchemy import create_engine, event, make_url, text
from stores import KINDS, Store, thread

from checkpoint_sa import InvalidInputError
from checkpoint_sa.testing.suite import ALIKE, checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from langchain_core.runnables import RunnableConfig
    from servers import Server


@contextmanager
def second_connection(store: Store) -> Iterator[Store]:
    """Open the same database by an engine of its own, which sees only what was committed."""
    other = Store(store.kind, store.url)
    try:
        yield other
    finally:
        other.close()


@contextmanager
def failing_at(store: Store, number: int) -> Iterator[None]:
    """Fail at one of the statements, counted from 0."""
    seen = itertools.count()

    def fail(*_: Any) -> None:
        if next(seen) == number:
            raise ZeroDivisionError

    event.listen(store.root, "before_cursor_execute", fail)
    try:
        yield
    finally:
        event.remove(store.root, "before_cursor_execute", fail)


def fails_at_each_of_its_statements(
    store: Store, act: Callable[[str], object], unchanged: Callable[[], object]
) -> None:
    """Let an operation fail at every statement in turn; each time nothing may have changed."""
    act("dry run")
    with store.statements() as sent:
        act("dry run again")
    before = unchanged()
    for number in range(len(sent)):
        with failing_at(store, number), pytest.raises(ZeroDivisionError):
            act("t")
        assert unchanged() == before, sent.texts[number]


def rewrite(store: Store, column: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON document in the only row there is, as an older release may have written it."""
    ((stored,),) = store.sql(f"SELECT {column} FROM checkpoints")
    document = stored if isinstance(stored, dict) else json.loads(stored)
    change(document)
    new = "CAST(:new AS JSONB)" if store.kind.server == "postgresql" else ":new"
    store.sql(f"UPDATE checkpoints SET {column} = {new}", new=json.dumps(document))


# What is there afterwards, for everyone


def test_a_checkpoint_is_committed_when_put_returns(store: Store) -> None:
    config = store.save("t", {"small": 1, "large": [1, 2]}, metadata={"step": 7})
    with second_connection(store) as other:
        found = other.found(config)
        assert found.checkpoint["channel_values"] == {"small": 1, "large": [1, 2]}
        assert found.metadata == {"source": "loop", "step": 7, "parents": {}}


def test_writes_are_committed_when_put_writes_returns(store: Store) -> None:
    config = store.save()
    store.put_writes(config, [("x", 1), (ERROR, "boom")], "task")
    with second_connection(store) as other:
        assert other.found(config).pending_writes == [("task", ERROR, "boom"), ("task", "x", 1)]


def test_deletions_are_committed_when_delete_thread_returns(store: Store) -> None:
    store.put_writes(store.save("t", {"x": [1]}), [("x", 1)], "task")
    store.delete_thread("t")
    with second_connection(store) as other:
        assert other.rows() == (0, 0, 0)


def test_put_stores_all_or_nothing(store: Store) -> None:
    def put(thread_id: str) -> None:
        store.save(thread_id, {"small": 1, "x": [2], "y": [3]}, metadata={"inexact": -0.0})

    fails_at_each_of_its_statements(store, put, store.rows)


def test_put_again_changes_all_or_nothing(store: Store) -> None:
    config = store.save("t", {"x": [1]}, checkpoint_id="1", metadata={"step": 1})
    before = store.found(config)

    def put(thread_id: str) -> None:
        store.save(thread_id, {"x": [2], "y": [3]}, checkpoint_id="1", metadata={"step": 2})

    fails_at_each_of_its_statements(store, put, store.rows)
    assert store.found(config) == before


def test_put_writes_stores_all_or_nothing(store: Store) -> None:
    def put_writes(thread_id: str) -> None:
        writes = [("x", 1), (ERROR, "boom"), ("y", 2), (RESUME, 3)]
        store.put_writes(thread(thread_id, checkpoint_id="1"), writes, "task")

    fails_at_each_of_its_statements(store, put_writes, store.rows)


def test_a_value_that_cannot_be_serialized_stores_nothing(store: Store) -> None:
    with pytest.raises(TypeError):
        store.save("t", {"good": [1], "bad": [object()]})
    assert store.rows() == (0, 0, 0)


# What comes back


def test_get_returns_the_checkpoint_alone(store: Store) -> None:
    config = store.save("t", {"x": [1]})
    get = store.saver.aget if store.kind.is_async else store.saver.get
    result: Any = get(config)
    found = store.run(result) if store.kind.is_async else result
    assert found == store.found(config).checkpoint
    nothing: Any = get(thread("no such thread"))
    assert (store.run(nothing) if store.kind.is_async else nothing) is None


@pytest.fixture
def linguistic_store(
    start_server: Callable[[str], Server],
) -> Iterator[Store]:
    """A store in a PostgreSQL database whose collation sorts as people do: a, A, b, B."""
    server = make_url(start_server("postgresql").url("postgresql+psycopg"))
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        if not connection.scalar(text("SELECT 1 FROM pg_collation WHERE collprovider = 'i'")):
            pytest.skip("this PostgreSQL was built without ICU")
        connection.execute(
            text(
                "CREATE DATABASE linguistic"
                " TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
            )
        )
        url = server.set(database="linguistic").render_as_string(hide_password=False)
        store = Store(KINDS["pg-psycopg"], url)
        store.setup()
        yield store
        store.close()
        connection.execute(text("DROP DATABASE linguistic"))
    admin.dispose()


def test_prune_keeps_what_is_read_as_the_latest_under_any_collation(
    linguistic_store: Store,
) -> None:
    store = linguistic_store
    for checkpoint_id in ("a", "B"):
        store.save("t", checkpoint_id=checkpoint_id)
    latest = store.found(thread()).config
    store.prune(["t"])
    assert [item.config for item in store.list(None)] == [latest]


# Keys


def test_thread_ids_are_exact(store: Store) -> None:
    for name in ALIKE:
        store.put_writes(store.save(name, {"x": [name]}), [("x", name)], "task")
    for name in ALIKE:
        found = store.found(thread(name))
        assert found.config["configurable"]["thread_id"] == name
        assert found.checkpoint["channel_values"] == {"x": [name]}
        assert found.pending_writes == [("task", "x", name)]
    store.delete_thread("abc")
    assert store.get_tuple(thread("abc")) is None
    assert store.rows() == (len(ALIKE) - 1,) * 3


def test_a_thread_id_that_is_no_text_becomes_text(store: Store) -> None:
    config = store.save(thread_id=42, values={"x": [1]})  # type: ignore[arg-type]
    assert config["configurable"]["thread_id"] == "42"
    assert store.found(thread(42)) == store.found(thread("42"))
    assert len(store.list(thread(42))) == 1
    store.delete_thread(42)  # type: ignore[arg-type]
    assert store.rows() == (0, 0, 0)


def test_equal_ids_in_two_namespaces_are_two_checkpoints(store: Store) -> None:
    for ns in ("", "a", "b"):
        config = store.save("t", {"x": [ns]}, ns=ns, checkpoint_id="1", versions={"x": "1"})
        store.put_writes(config, [("x", ns)], "task")
    for ns in ("", "a", "b"):
        found = store.found(thread("t", ns))
        assert found.checkpoint["channel_values"] == {"x": [ns]}
        assert found.pending_writes == [("task", "x", ns)]
    assert store.rows() == (3, 3, 3)


# Ids and configs that are refused, before the database is asked


def refused(store: Store, message: str, act: Callable[[], object]) -> None:
    with store.statements() as sent, pytest.raises(InvalidInputError, match=message) as error:
        act()
    assert len(sent) == 0
    assert isinstance(error.value, ValueError)
    assert len(str(error.value)) < 1000  # an id is shown in part


LONG = {"thread_id": 512, "checkpoint_ns": 2000, "checkpoint_id": 128}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("letter", ["x", "ü", "😀"], ids=["one-byte", "two-byte", "four-byte"])
def test_an_id_that_is_too_long_is_refused(sqlite_store: Store, name: str, letter: str) -> None:
    store, limit, width = sqlite_store, LONG[name], len(letter.encode())
    fits = {**thread("t", "", checkpoint_id="1")["configurable"], name: letter * (limit // width)}
    store.put_writes({"configurable": fits}, [("x", 1)], "task")
    config: RunnableConfig = {"configurable": {**fits, name: letter * (limit // width + 1)}}
    message = f"{name} has {limit + width} bytes, {limit} fit"
    refused(store, message, lambda: store.put_writes(config, [("x", 1)], "task"))
    refused(store, message, lambda: store.put(config, checkpoint("1"), {}, {}))
    refused(store, message, lambda: store.get_tuple(config))
    refused(store, message, lambda: store.list(config))


def test_over_long_ids_are_refused_on_every_engine(store: Store) -> None:
    refused(store, "thread_id has 513 bytes, 512 fit", lambda: store.save("x" * 513))
    refused(store, "checkpoint_ns has 2001 bytes", lambda: store.save("t", ns="x" * 2001))
    refused(store, "checkpoint id has 129 bytes", lambda: store.save("t", checkpoint_id="x" * 129))
    refused(store, "channel has 401 bytes", lambda: store.save("t", {"x" * 401: [1]}))
    refused(store, "channel has 401 bytes", lambda: store.save("t", {"x" * 401: 1}))
    config = thread("t", checkpoint_id="1")
    refused(store, "task_id has 256 bytes", lambda: store.put_writes(config, [("x", 1)], "x" * 256))
    refused(
        store, "channel has 401 bytes", lambda: store.put_writes(config, [("x" * 401, 1)], "task")
    )
    refused(store, "thread_id has 513 bytes", lambda: store.delete_thread("x" * 513))
    assert store.rows() == (0, 0, 0)


def test_ids_that_are_too_long_together_are_refused(store: Store) -> None:
    thread_id, ns, checkpoint_id = "t" * 512, "n" * 2000, "c" * 89
    refused(
        store,
        "2601 bytes together, 2600 fit: thread_id 512, checkpoint_ns 2000, checkpoint_id 89",
        lambda: store.save(thread_id, ns=ns, checkpoint_id=checkpoint_id),
    )
    config = thread(thread_id, ns, checkpoint_id="1")
    refused(store, "together", lambda: store.put_writes(config, [("x", 1)], "t" * 88))
    refused(store, "together", lambda: store.save(thread_id, {"c" * 100: [1]}, ns=ns))


@pytest.mark.parametrize(
    ("bad", "message"), [("a\0b", "NUL character"), ("a\ud800b", "lone surrogate")]
)
def test_ids_that_no_engine_stores_exactly_are_refused(
    store: Store, bad: str, message: str
) -> None:
    config = thread("t", checkpoint_id="1")
    refused(store, f"thread_id has a {message}", lambda: store.save(bad))
    refused(store, f"checkpoint_ns has a {message}", lambda: store.save("t", ns=bad))
    refused(store, f"checkpoint id has a {message}", lambda: store.save("t", checkpoint_id=bad))
    refused(store, message, lambda: store.save("t", {bad: [1]}))
    refused(store, message, lambda: store.save("t", {bad: 1}))
    refused(store, message, lambda: store.save("t", {"x": [1]}, versions={"x": bad}))
    refused(store, message, lambda: store.put_writes(config, [(bad, 1)], "task"))
    refused(store, f"task_id has a {message}", lambda: store.put_writes(config, [("x", 1)], bad))
    refused(
        store, f"task_path has a {message}", lambda: store.put_writes(config, [("x", 1)], "t", bad)
    )
    refused(store, message, lambda: store.get_tuple(thread(bad)))
    refused(store, message, lambda: store.get_tuple(thread("t", checkpoint_id=bad)))
    refused(store, message, lambda: store.list(thread(bad)))
    refused(store, message, lambda: store.list(None, before=thread("t", checkpoint_id=bad)))
    refused(store, message, lambda: store.delete_thread(bad))
    refused(store, message, lambda: store.copy_thread("t", bad))
    assert store.rows() == (0, 0, 0)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"configurable": {}},
        {"configurable": {"checkpoint_ns": ""}},
        {"configurable": {"thread_id": None}},
        {"configurable": {"checkpoint_id": "1"}},
    ],
    ids=str,
)
def test_a_config_without_a_thread_id_is_refused(store: Store, config: RunnableConfig) -> None:
    message = r"no thread_id.*'thread_id': 'some-id'"
    refused(store, message, lambda: store.get_tuple(config))
    refused(store, message, lambda: store.put(config, checkpoint("1"), {}, {}))
    refused(store, message, lambda: store.put_writes(config, [("x", 1)], "task"))


def test_writes_without_a_checkpoint_id_are_refused(store: Store) -> None:
    refused(
        store,
        r"no checkpoint_id.*put\(\) returned",
        lambda: store.put_writes(thread("t"), [("x", 1)], "task"),
    )


# Putting again


def test_putting_the_same_again_changes_nothing(store: Store) -> None:
    parent = store.save("t", {"x": [0]})
    made = checkpoint(
        "f", {"small": 1, "large": [1], "text": "x" * 999}, dict.fromkeys(("small", "large"), "1")
    )
    made["channel_versions"]["text"] = "1"
    for _ in range(3):
        config = store.put(parent, made, {"step": 1}, made["channel_versions"])
        store.put_writes(config, [("x", 1), (INTERRUPT, "?")], "task", "path")
    found = store.found(config)
    assert found.checkpoint == made
    assert found.metadata == {"step": 1}
    assert found.parent_config == parent
    assert found.pending_writes == [("task", INTERRUPT, "?"), ("task", "x", 1)]
    assert store.rows() == (2, 3, 2)


def test_put_again_keeps_the_value_of_a_version(store: Store) -> None:
    config = store.save("t", {"x": ["first"]}, checkpoint_id="1", versions={"x": "1"})
    store.save("t", {"x": ["second"]}, checkpoint_id="1", versions={"x": "1"})
    assert store.found(config).checkpoint["channel_values"] == {"x": ["first"]}
    assert store.rows() == (1, 1, 0)


# Values by version


@pytest.mark.parametrize(
    "version",
    [1e22, 2**63, 2**70, float("nan"), -0.0, "x" * 129],
    ids=lambda version: repr(version)[:9],
)
def test_a_version_that_cannot_be_stored_exactly_is_refused(store: Store, version: Any) -> None:
    refused(store, "version", lambda: store.save("t", {"x": [1]}, versions={"x": version}))
    assert store.rows() == (0, 0, 0)


def test_the_next_version_is_greater_than_the_current_one(sqlite_store: Store) -> None:
    next_version = sqlite_store.saver.get_next_version
    current = None
    versions = []
    for _ in range(120):
        current = next_version(current, None)
        versions.append(current)
    assert all(isinstance(version, str) for version in versions)
    assert versions == sorted(set(versions))
    assert [int(version.split(".")[0]) for version in versions] == list(range(1, 121))


@pytest.mark.parametrize(("current", "number"), [(None, 1), (7, 8), (7.0, 8), ("00041.5", 42)])
def test_the_next_version_counts_on_from_any_form(
    sqlite_store: Store, current: Any, number: int
) -> None:
    version = sqlite_store.saver.get_next_version(current, None)
    assert version.split(".")[0] == f"{number:032}"


def test_two_next_versions_of_one_version_differ(sqlite_store: Store) -> None:
    next_version = sqlite_store.saver.get_next_version
    assert len({next_version("1", None) for _ in range(100)}) == 100


def test_there_are_no_config_specs(sqlite_store: Store) -> None:
    assert sqlite_store.saver.config_specs == []


# Metadata of the config


# Pending writes


def test_no_writes_are_no_rows(store: Store) -> None:
    config = store.save()
    store.put_writes(config, [], "task")
    assert store.found(config).pending_writes == []
    assert store.rows() == (1, 0, 0)


# Old formats


@pytest.mark.parametrize("how", ["missing", "null"])
def test_an_old_checkpoint_without_channel_values_loads(store: Store, how: str) -> None:
    config = store.save("t", {"small": 1, "large": [2]}, versions={"small": "1", "large": "1"})

    def change(document: dict[str, Any]) -> None:
        if how == "missing":
            del document["channel_values"]
        else:
            document["channel_values"] = None

    rewrite(store, "checkpoint", change)
    for found in (store.found(config), *store.list(thread())):
        assert found.checkpoint["channel_values"] == {"large": [2]}
        assert found.checkpoint["channel_versions"] == {"small": "1", "large": "1"}


def test_an_old_checkpoint_without_channel_versions_loads(store: Store) -> None:
    config = store.save("t", {"small": 1, "large": [2]})
    rewrite(store, "checkpoint", lambda document: document.pop("channel_versions"))
    assert store.found(config).checkpoint["channel_values"] == {"small": 1}


def test_an_old_checkpoint_keeps_its_legacy_writes_in_metadata(store: Store) -> None:
    config = store.save("t", {"x": 1}, metadata={"source": "loop"})
    rewrite(store, "metadata", lambda document: document.update(writes={"node": {"x": [1]}}))
    found = store.found(config)
    assert found.metadata["writes"] == {"node": {"x": [1]}}  # type: ignore[typeddict-item]
    assert store.list(None, filter={"writes": {"node": {}}}) == [found]
