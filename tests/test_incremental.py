"""`incremental=True`: values are stored as what changed, and read back exactly."""

from __future__ import annotations

import copy
import random
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from stores import ONE_PER_PROTOCOL, Store, id_of, thread
from typing_extensions import TypedDict

from checkpoint_sa import CorruptDataError, ParentConflictError, migrate
from checkpoint_sa.cli import DONE, main
from checkpoint_sa.deltas import chain, encoding
from checkpoint_sa.deltas.cache import MAX_EXCLUDED, BaseCache
from checkpoint_sa.deltas.diff import InconsistentError, apply, difference
from checkpoint_sa.deltas.encoding import MAX_ROWS, encode_value
from checkpoint_sa.deltas.fingerprint import fingerprint
from checkpoint_sa.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from langchain_core.runnables import RunnableConfig
    from stores import Saver


pytestmark = pytest.mark.kinds(ONE_PER_PROTOCOL)

# Differences


def changed(old: bytes, new: bytes) -> bytes:
    """Apply the difference of two values, and return what came out."""
    value = bytearray(old)
    apply(value, difference(old, new))
    return bytes(value)


ALPHABETS = [b"a", b"ab", b"\x00\x80\xff", bytes(range(256)), b"abc \n,.\x91\x92\xdc\x00\x10"]


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A value of up to some KB, and the same with parts put in, removed, moved and replaced."""
    source = random.Random(draw(st.integers(0, 2**32)))
    alphabet = draw(st.sampled_from(ALPHABETS))
    old = bytes(source.choices(alphabet, k=draw(st.integers(0, 6000))))
    new = bytearray(old)
    for _ in range(draw(st.integers(0, 8))):
        at, end = sorted(draw(st.integers(0, len(new))) for _ in range(2))
        moved = bytes(new[at:end]) if draw(st.booleans()) else b""
        new[at:end] = bytes(source.choices(alphabet, k=draw(st.integers(0, 200))))
        to = draw(st.integers(0, len(new)))
        new[to:to] = moved
    return old, bytes(new)


@given(edited())
def test_a_difference_makes_the_new_value_out_of_the_old_one(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    assert changed(old, new) == new
    assert changed(new, old) == old


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_difference_of_any_two_values_is_exact(old: bytes, new: bytes) -> None:
    assert changed(old, new) == new


@given(
    st.lists(edited(), max_size=4), st.sampled_from([b"", b"\x93", b"\xdc\0\x10", b"\xdf\0\0\1\0"])
)
def test_the_digest_of_what_has_grown_is_that_of_the_whole(pairs: Any, header: bytes) -> None:
    base, body = None, b""
    for old, new in pairs:
        for value in (body + old, header + body + old, old, header + old + new):
            row = {"version": "1", "type": "msgpack", "blob": value}
            encoded, base = encode_value(row, base)
            assert encoded["blob"] == fingerprint(value)
        body += old


@given(st.binary(max_size=100))
def test_two_values_have_two_digests(value: bytes) -> None:
    for header in (b"\x91", b"\xdc\0\1", b"\xdf\0\0\0\1"):
        one, other = header + value, value + header
        assert (fingerprint(one) == fingerprint(other)) is (one == other)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_a_damaged_change_ends_in_a_value_or_an_error_of_its_own(old: bytes, change: bytes) -> None:
    value = bytearray(old)
    try:
        apply(value, change)
    except InconsistentError:
        pass
    else:
        assert len(value) <= len(old) + len(change)


def text(number: int, size: int = 360) -> str:
    return "".join(random.Random(number).choices("abcdefghij klmno pqrstu", k=size))


def packed(value: Any) -> bytes:
    return JsonPlusSerializer().dumps_typed(value)[1]


ITEMS = [text(number) for number in range(800)]
MIDDLE = [*ITEMS[:400], "another", *ITEMS[401:]]
DICT = {f"key {number}": text(number) for number in range(500)}
DOCUMENT = text(1, 200_000)
RANDOM = random.Random(1).randbytes(100_000)

ALIKE: dict[str, tuple[Any, Any, int]] = {
    "an item more": (ITEMS[:-1], ITEMS, 400),
    "an item more, in a dict": ({"items": ITEMS[:-1]}, {"items": ITEMS}, 400),
    "an item replaced": (ITEMS, MIDDLE, 450),
    "items removed": (ITEMS, ITEMS[:100] + ITEMS[103:], 100),
    "trimmed, and an item more": (ITEMS[:-1], ITEMS[20:], 1000),
    "the last item first": (ITEMS, [ITEMS[-1], *ITEMS[:-1]], 1000),
    "every tenth item replaced": (
        ITEMS,
        [f"item {i}" if i % 10 == 0 else item for i, item in enumerate(ITEMS)],
        20_000,
    ),
    "a key more": (DICT, {**DICT, "new": "x"}, 100),
    "a key more, first": (DICT, {"new": "x", **DICT}, 100),
    "a sentence replaced": (DOCUMENT, DOCUMENT[:99_000] + "new" + DOCUMENT[99_080:], 100),
    "two sentences replaced": (
        DOCUMENT,
        DOCUMENT[:9_000] + "new" + DOCUMENT[9_080:150_000] + "other" + DOCUMENT[150_000:],
        1000,
    ),
    "random bytes moved": (RANDOM, b"x" + RANDOM[999:] + b"y", 1000),
}


@pytest.mark.parametrize("case", list(ALIKE))
def test_what_is_alike_costs_what_differs(case: str) -> None:
    old, new, most = ALIKE[case]
    old, new = packed(old), packed(new)
    assert changed(old, new) == new
    assert len(difference(old, new)) <= most


def test_a_splice_is_three_numbers_and_the_bytes_to_put_in() -> None:
    change = difference(b"\x93" + b"a" * 200, b"\x94" + b"a" * 200 + b"new")
    assert change == (b"\0\0\0\0\0\0\0\1\0\0\0\1\x94\0\0\0\xc8\0\0\0\0\0\0\0\3new")


# What is stored


@pytest.fixture
def changes(store: Store) -> Store:
    """An empty store on each engine, whose saver is incremental."""
    return store.using(store.make_saver(incremental=True))


def again(store: Store, **options: Any) -> Store:
    """The same store, with a saver that has read nothing yet."""
    return store.using(store.make_saver(**{"incremental": True, **options}))


def values(store: Store, config: RunnableConfig) -> dict[str, Any]:
    """Return a checkpoint's values, which a saver that remembers nothing reads as well."""
    found = store.found(config).checkpoint["channel_values"]
    assert again(store, serde=store.saver.serde).found(config).checkpoint["channel_values"] == found
    return found


def line(
    store: Store,
    states: Sequence[dict[str, Any]],
    parent: RunnableConfig | None = None,
    **options: Any,
) -> list[RunnableConfig]:
    """Put a line of checkpoints with these values, of ascending versions; return their configs."""
    made = []
    for state in states:
        version = store.saver.get_next_version(f"{next(VERSIONS)}", None)
        versions = dict.fromkeys(state, version)
        parent = store.save(values=state, parent=parent, versions=versions, **options)
        made.append(parent)
    return made


def growing(turns: int, first: int = 8) -> list[dict[str, Any]]:
    return [{"items": ITEMS[: first + turn]} for turn in range(turns)]


VERSIONS = count(1)


def whole_values(store: Store) -> int:
    """Count the rows that hold a whole value."""
    return int(store.sql("SELECT count(*) FROM checkpoint_deltas WHERE position = 0")[0][0])


def stored_bytes(store: Store) -> int:
    blobs = store.sql("SELECT coalesce(sum(length(b.blob)), 0) FROM checkpoint_blobs AS b")
    deltas = store.sql("SELECT coalesce(sum(length(data)), 0) FROM checkpoint_deltas")
    return int(blobs[0][0]) + int(deltas[0][0])


STATES: dict[str, list[dict[str, Any]]] = {
    "a list that grows": growing(30),
    "messages replaced": [{"items": [*ITEMS[:i], "new", *ITEMS[i + 1 : 40]]} for i in range(30)],
    "messages removed": [{"items": ITEMS[:10] + ITEMS[10 + i : 60]} for i in range(30)],
    "a trimmed history": [{"items": ITEMS[i : i + 40]} for i in range(30)],
    "a dict that gains keys": [
        {"dict": dict(list(DICT.items())[: 20 + i]), "same": "x"} for i in range(30)
    ],
    "a document": [
        {"document": DOCUMENT[: 700 * i] + "new" + DOCUMENT[700 * i + 9 : 30_000]}
        for i in range(1, 31)
    ],
    "nested lists": [{"a": {"b": [ITEMS[:20], ITEMS[: 20 + i]]}} for i in range(30)],
    "many channels": [
        {f"channel {n}": ITEMS[n : n + 10 + i] for n in range(5)} | {"small": [i]}
        for i in range(10)
    ],
}


@pytest.mark.parametrize("case", list(STATES))
def test_values_come_back_as_they_were_for_less(changes: Store, case: str) -> None:
    states = STATES[case]
    configs = line(changes, states)
    plain = sum(len(packed(value)) for state in states for value in state.values())
    assert stored_bytes(changes) < plain / 4
    for reader in (changes, again(changes), again(changes, incremental=False)):
        for config, state in zip(configs, states, strict=True):
            assert reader.found(config).checkpoint["channel_values"] == state
        found = [item.checkpoint["channel_values"] for item in reader.list(thread())]
        assert found == states[::-1]


def test_small_values_are_stored_as_without_it(store: Store, changes: Store) -> None:
    state = {"list": ["a"], "text": "b" * 300, "number": 1}
    changes.save("one", state)
    store.save("other", state)
    columns = "channel, type, chain, position"
    one, other = (
        store.sql(f"SELECT {columns} FROM checkpoint_blobs WHERE thread_id = '{name}'")
        for name in ("one", "other")
    )
    assert sorted(one) == sorted(other)
    assert store.count("checkpoint_deltas") == 0


def test_a_chain_ends_where_reading_it_would_take_twice_the_bytes(changes: Store) -> None:
    noise = random.Random(2)
    states = [{"bytes": noise.randbytes(900) + RANDOM[:3000]} for _ in range(20)]
    line(changes, states)
    assert 4 <= whole_values(changes) <= 8
    for row in changes.sql("SELECT chain, sum(length(data)) FROM checkpoint_deltas GROUP BY chain"):
        assert row[1] <= 2 * len(packed(states[0]["bytes"]))


def test_a_chain_has_a_bounded_number_of_rows(sqlite_store: Store) -> None:
    store = again(sqlite_store)
    line(store, [{"text": f"{number:06}" + DOCUMENT[:100_000]} for number in range(MAX_ROWS + 2)])
    assert whole_values(store) == 2
    assert store.sql("SELECT max(position) FROM checkpoint_deltas")[0][0] == MAX_ROWS - 1


def test_values_that_share_nothing_are_stored_whole(changes: Store) -> None:
    noise = random.Random(3)
    states = [{"bytes": noise.randbytes(5000)} for _ in range(5)]
    configs = line(changes, states)
    assert whole_values(changes) == 5
    assert [values(changes, config) for config in configs] == states


def test_a_fork_from_an_old_checkpoint(changes: Store) -> None:
    configs = line(changes, growing(5))
    for reader in (changes, again(changes)):
        reader.found(configs[2])
        forks = line(
            reader, [{"items": [*ITEMS[:11], "fork", *ITEMS[:n]]} for n in (1, 2, 3)], configs[2]
        )
        for n, fork in zip((1, 2, 3), forks, strict=True):
            assert values(again(changes), fork) == {"items": [*ITEMS[:11], "fork", *ITEMS[:n]]}
    assert [values(changes, config) for config in configs] == growing(5)
    assert whole_values(changes) == 3  # one for each fork


def test_processes_that_take_turns(changes: Store) -> None:
    savers = [changes, again(changes), again(changes)]
    parent = None
    for turn, state in enumerate(growing(30)):
        store = savers[turn % 3]
        if parent is not None:
            assert store.found(thread()).config == parent
        parent = store.save(values=state, parent=parent)
    assert values(changes, thread()) == growing(30)[-1]
    assert whole_values(changes) == 1


def test_processes_that_take_turns_without_reading_first(changes: Store) -> None:
    savers = [changes, again(changes)]
    parent = None
    for turn, state in enumerate(growing(30)):
        parent = savers[turn // 3 % 2].save(values=state, parent=parent)
    assert values(changes, thread()) == growing(30)[-1]
    assert whole_values(changes) == 1


def test_two_writers_of_one_checkpoint_both_keep_their_values(changes: Store) -> None:
    first = line(changes, growing(3))[-1]
    one, other = again(changes), again(changes)
    for store in (one, other):
        store.found(thread())
    configs = [
        store.save(values={"items": [*ITEMS[:10], name]}, parent=first)
        for store, name in ((one, "one"), (other, "other"))
    ]
    assert [values(changes, config)["items"][-1] for config in configs] == ["one", "other"]
    last = [
        line(store, growing(3, 11), config)[-1]
        for store, config in zip((one, other), configs, strict=True)
    ]
    assert [values(changes, config) for config in last] == [growing(3, 11)[-1]] * 2


def test_a_put_that_is_repeated_stores_nothing_twice(changes: Store) -> None:
    first = line(changes, growing(3))[-1]
    versions = {"items": changes.saver.get_next_version(None, None)}
    put: dict[str, Any] = {"values": {"items": ITEMS[:11]}, "versions": versions, "parent": first}
    for store in (changes, changes, again(changes)):
        config = store.save(checkpoint_id="f" * 8, **put)
        assert values(changes, config) == {"items": ITEMS[:11]}
    assert changes.rows() == (4, 4, 0)
    assert changes.count("checkpoint_deltas") == 4
    line(changes, growing(3, 12), config)
    assert whole_values(changes) == 1


def test_a_put_that_is_stored_at_the_second_attempt_is_no_failure(changes: Store) -> None:
    first = line(changes, growing(3))[-1]
    one, other = again(changes), again(changes)
    for store in (one, other):
        store.found(thread())
    one.save(values={"items": [*ITEMS[:10], "one"]}, parent=first)
    before = other.saver.metrics
    other.save(values={"items": [*ITEMS[:10], "other"]}, parent=first)
    after = other.saver.metrics
    assert after.operations == before.operations + 1
    assert after.retries == before.retries + 1
    assert after.failures == before.failures == 0


def test_with_check_parent_the_second_of_two_writers_stores_nothing(changes: Store) -> None:
    first = line(changes, growing(3))[-1]
    one, other = again(changes, check_parent=True), again(changes, check_parent=True)
    for store in (one, other):
        store.found(thread())
    second = one.save(values={"items": [*ITEMS[:10], "one"]}, parent=first)
    stored = changes.rows(), changes.count("checkpoint_deltas")
    with pytest.raises(ParentConflictError):
        other.save(values={"items": [*ITEMS[:10], "other"]}, parent=first)
    assert (changes.rows(), changes.count("checkpoint_deltas")) == stored
    assert other.saver.metrics.failures == 1
    last = line(other, growing(3, 11), second)[-1]
    assert values(changes, last) == growing(3, 11)[-1]
    assert whole_values(changes) == 1


def test_a_version_keeps_its_first_value(changes: Store, store: Store) -> None:
    versions = {"items": changes.saver.get_next_version(None, None)}
    for saver in (store, changes, again(changes)):
        config = saver.save(values={"items": ITEMS[:20]}, versions=versions)
        saver.save(values={"items": ITEMS[:30]}, versions=versions, checkpoint_id=id_of(config))
        assert values(saver, config) == {"items": ITEMS[:20]}
    assert changes.count("checkpoint_deltas") == 0  # the first saver was a plain one


def test_a_long_text_that_stays_is_not_stored_again(changes: Store) -> None:
    document = {"document": DOCUMENT[:5000]}
    first = changes.save(values=document)
    versions = changes.found(first).checkpoint["channel_versions"]
    for store in (changes, again(changes)):
        config = store.save(
            values={**document, "other": [1]},
            versions=versions | {"other": store.saver.get_next_version(None, None)},
            new=["other"],
            parent=first,
        )
        assert values(store, config) == {**document, "other": [1]}
    assert changes.count("checkpoint_deltas") == 1


def caching(store: Store, size: int) -> BaseCache:
    """Let a store's saver cache so many bytes."""
    store.saver.cache = BaseCache(size)
    return store.saver.cache


def test_what_is_remembered_is_bounded(sqlite_store: Store) -> None:
    store = again(sqlite_store)
    cache = caching(store, 100_000)
    for number in range(30):
        line(store, growing(3), thread_id=f"thread {number}")
        bases = [base for entry in cache.entries.values() for base in entry.bases.values()]
        assert 1 <= sum(len(base.value) for base in bases) < cache.bytes <= 100_000
    assert 1 < len(cache.entries) < 30


def test_values_beyond_what_is_remembered_are_still_stored_as_changes(changes: Store) -> None:
    caching(changes, 0)
    configs = line(changes, growing(10))
    assert values(changes, configs[-1]) == growing(10)[-1]
    assert whole_values(changes) == 1


def test_clones_share_what_is_remembered(sqlite_store: Store) -> None:
    store = again(sqlite_store)
    parent = line(store, growing(3))[-1]
    clone = store.using(copy.copy(store.saver))
    with clone.statements() as sent:
        clone.save(values=growing(4)[-1], parent=parent)
    assert not any("SELECT checkpoints" in statement for statement in sent.texts)


# Serializers


class Compressing(JsonPlusSerializer):
    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, data = super().dumps_typed(obj)
        return f"z:{kind}", zlib.compress(data)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        kind, blob = data
        return super().loads_typed((kind.removeprefix("z:"), zlib.decompress(blob)))


def test_a_value_that_is_changed_in_place_was_stored_as_it_was(changes: Store) -> None:
    array = bytearray(range(256)) * 20
    before = bytes(array)
    first = line(changes, [{"array": array}])[0]
    changes.put_writes(first, [("array", array)], "task")
    array[100] ^= 255
    second = line(changes, [{"array": array}], first)[0]
    assert values(changes, first) == {"array": bytearray(before)}
    assert values(changes, second) == {"array": array} != {"array": bytearray(before)}
    assert again(changes).found(first).pending_writes == [("task", "array", bytearray(before))]


def test_a_serializer_that_compresses(store: Store) -> None:
    changes = again(store, serde=Compressing())
    configs = line(changes, growing(12, 40))
    for reader in (changes, again(store, serde=Compressing())):
        assert [values(reader, config) for config in configs] == growing(12, 40)


def test_an_encrypting_serializer_stores_as_without_it(store: Store) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16)
    changes = again(store, serde=serde)
    configs = line(changes, growing(5))
    assert [values(changes, config) for config in configs] == growing(5)
    assert store.count("checkpoint_deltas") == 0
    kinds = store.sql("SELECT DISTINCT type FROM checkpoint_blobs")
    assert [kind if isinstance(kind, str) else kind.decode() for (kind,) in kinds] == [
        "msgpack+aes"
    ]


def test_a_thread_that_is_encrypted_from_now_on_shows_nothing_new(store: Store) -> None:
    line(again(store), growing(5))
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16)
    changes = again(store, serde=serde)
    last = store.found(thread()).config
    before = store.count("checkpoint_deltas")
    config = changes.save(values=growing(6)[-1], parent=last)
    assert values(changes, config) == growing(6)[-1]
    assert store.count("checkpoint_deltas") == before


# Never wrong


DAMAGE = {
    "a missing row": "DELETE FROM checkpoint_deltas WHERE position = 4",
    "no first row": "DELETE FROM checkpoint_deltas WHERE position = 0",
    "another change": (
        "UPDATE checkpoint_deltas SET data = (SELECT data FROM"
        " (SELECT * FROM checkpoint_deltas) AS d WHERE d.position = 3) WHERE position = 4"
    ),
    "rows of another chain": "UPDATE checkpoint_deltas SET chain = 'other'",
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_broken_chain_is_an_error_that_names_the_rows(changes: Store, damage: str) -> None:
    configs = line(changes, growing(8))
    changes.sql(DAMAGE[damage])
    for reader in (again(changes), again(changes, incremental=False)):
        with pytest.raises(CorruptDataError) as found:
            reader.found(thread())
        for part in ("checkpoint_deltas", "thread_id='t'", "channel='items'", "chain='"):
            assert part in str(found.value)
        assert ITEMS[0] not in str(found.value)
        with pytest.raises(CorruptDataError):
            reader.list(thread())
        if "first" not in damage and "chain" not in damage:
            assert values(reader, configs[3]) == growing(4)[-1]


def test_a_put_on_a_broken_chain_stores_a_whole_value(changes: Store) -> None:
    last = line(changes, growing(8))[-1]
    changes.sql("DELETE FROM checkpoint_deltas WHERE position = 4")
    config = again(changes).save(values=growing(9)[-1], parent=last)
    assert values(changes, config) == growing(9)[-1]


def test_a_saver_without_it_reads_and_continues(changes: Store, store: Store) -> None:
    parent = line(changes, growing(5))[-1]
    middle = line(store, growing(3, 13), parent)
    last = line(changes, growing(3, 16), middle[-1])[-1]
    for reader in (changes, store):
        assert values(reader, last) == growing(3, 16)[-1]
        assert values(reader, middle[0]) == growing(3, 13)[0]


def test_a_history_starts_from_a_value_in_a_chain(changes: Store, store: Store) -> None:
    first = line(changes, growing(5))[-1]
    config = changes.save(parent=first)
    for reader in (changes, store):
        assert reader.history(config, ["items"])["items"]["seed"] == growing(5)[-1]["items"]


# Statements


def sent_by(store: Store, operation: Callable[[], object]) -> int:
    with store.statements() as sent:
        operation()
    return len([text for text in sent.texts if not text.startswith("BEGIN")])


PUT = {"": 3, "postgresql": 1, "mariadb": 4, "mysql": 4}
"""The changes, their names, the checkpoint; where it can't be part of the first, the lock."""


@pytest.mark.parametrize(("length", "width"), [(2, 1), (20, 6)])
def test_statements(changes: Store, store: Store, length: int, width: int) -> None:
    states = [
        {f"channel {n}": ITEMS[n : n + 10 + turn] for n in range(width)} for turn in range(length)
    ]
    configs = line(changes, states)
    store.found(thread())  # verifies the schema
    server = store.kind.server
    save: dict[str, Any] = {"values": {name: [*items, "x"] for name, items in states[-1].items()}}
    assert sent_by(changes, lambda: changes.save(parent=configs[-1], **save)) == PUT[server]
    reading = 1 if server in ("", "postgresql") else 2
    for read in (thread(), configs[0]):
        assert sent_by(store, lambda read=read: store.found(read)) == reading + 1  # type: ignore[misc]
        assert sent_by(changes, lambda read=read: changes.found(read)) == reading  # type: ignore[misc]
    assert sent_by(changes, lambda: changes.list(thread(), limit=10)) == reading + 1
    assert sent_by(store, lambda: store.list(thread(), limit=10)) == reading + 1


def test_a_saver_that_has_not_read_reads_once(changes: Store) -> None:
    configs = line(changes, growing(3))
    other = again(changes)
    other.list(thread(), limit=1)  # verifies the schema
    reading = 1 if changes.kind.server in ("", "postgresql") else 2
    server = changes.kind.server
    save: dict[str, Any] = {"values": growing(4)[-1], "parent": configs[-1]}
    assert sent_by(other, lambda: other.save(**save)) == reading + PUT[server]


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions of the rows of chains that are read from now on."""
    rows: list[int] = []
    add = chain.Chains.add

    def counted(chains: chain.Chains, key: Any, position: int, data: bytes) -> None:
        rows.append(position)
        add(chains, key, position, data)

    monkeypatch.setattr(chain.Chains, "add", counted)
    return rows


def test_a_page_reads_each_row_of_a_chain_once(changes: Store, rows_read: list[int]) -> None:
    line(changes, growing(30))
    before = changes.list(thread(), limit=10)[9].config
    rows_read.clear()
    changes.list(thread(), limit=10)
    assert sorted(rows_read) == list(range(30))
    rows_read.clear()
    changes.list(thread(), limit=5, before=before)
    assert sorted(rows_read) == list(range(20))


def test_what_is_remembered_is_not_read(changes: Store, rows_read: list[int]) -> None:
    configs = line(changes, growing(30))
    assert changes.found(thread()).checkpoint["channel_values"] == growing(30)[-1]
    assert not rows_read
    assert changes.found(configs[9]).checkpoint["channel_values"] == growing(10)[-1]
    assert sorted(rows_read) == list(range(10))
    rows_read.clear()
    other = again(changes)
    other.found(thread())
    assert sorted(rows_read) == list(range(30))


def test_the_largest_values_are_those_not_read(changes: Store, rows_read: list[int]) -> None:
    for turn in range(2):
        state = {f"channel {n}": ITEMS[: 8 + n + turn] for n in range(MAX_EXCLUDED + 1)}
        last = line(changes, [state])[0]
    assert changes.found(last).checkpoint["channel_values"] == state
    assert rows_read == [0]


def test_what_was_stored_again_under_the_same_names_is_read(changes: Store) -> None:
    options: dict[str, Any] = {"checkpoint_id": "1", "versions": {"items": 1}}
    one, other = {"items": ITEMS[:20]}, {"items": [*ITEMS[1:20], "other"]}
    config = changes.save(values=one, **options)
    someone = again(changes)
    someone.delete_thread("t")
    someone.save(values=other, **options)
    assert values(changes, config) == other
    changes.put_writes(config, [("items", [*other["items"], "more"])], "task")
    found = [("task", "items", [*other["items"], "more"])]
    assert again(changes).found(config).pending_writes == found


def test_a_value_that_a_later_checkpoint_has_lost_is_no_less_known(changes: Store) -> None:
    first = line(changes, growing(1))[0]
    line(changes, [{}], first)
    lost = changes.save(parent=first, versions={"items": changes.saver.get_next_version("9", None)})
    assert values(changes, lost) == {}
    assert values(changes, first) == growing(1)[0]
    changes.put_writes(first, [("items", growing(2)[-1]["items"])], "task")
    kinds = changes.sql("SELECT type FROM checkpoint_writes")
    assert [kind if isinstance(kind, str) else kind.decode() for (kind,) in kinds] == [
        "msgpack:since"
    ]


@pytest.mark.parametrize("elsewhere", ["a new version", "the same value", "other chains"])
def test_what_another_process_did_is_read(
    changes: Store, rows_read: list[int], elsewhere: str
) -> None:
    last = line(changes, growing(5))[-1]
    state = growing(5)[-1]
    if elsewhere == "other chains":
        for to_chains in (False, True):
            again(changes).rewrite(["t"], incremental=to_chains)
    else:
        state = growing(6)[-1] if elsewhere == "a new version" else state
        line(again(changes), [state], last)
    rows_read.clear()
    assert changes.found(thread()).checkpoint["channel_values"] == state
    assert rows_read
    rows_read.clear()
    assert changes.found(thread()).checkpoint["channel_values"] == state
    assert not rows_read
    line(changes, growing(3, 13), changes.found(thread()).config)
    assert values(changes, thread()) == growing(3, 13)[-1]


# Deleting and copying


def test_deleting_a_thread(changes: Store) -> None:
    line(changes, growing(5))
    line(changes, growing(5), thread_id="other")
    changes.delete_thread("t")
    assert changes.rows() == (5, 5, 0)
    assert changes.count("checkpoint_deltas") == 5
    assert values(changes, thread("other")) == growing(5)[-1]


def test_a_writer_after_deleting_brings_back_only_what_is_whole(changes: Store) -> None:
    last = line(changes, growing(5))[-1]
    again(changes).delete_thread("t")
    config = changes.save(values=growing(6)[-1], parent=last)
    assert values(changes, config) == growing(6)[-1]
    assert changes.rows() == (1, 1, 0)
    assert changes.count("checkpoint_deltas") == 1


def test_copying_a_thread(changes: Store) -> None:
    line(changes, growing(5))
    changes.copy_thread("t", "copy")
    changes.delete_thread("t")
    found = [item.checkpoint["channel_values"] for item in changes.list(thread("copy"))]
    assert found == growing(5)[::-1]
    parent = changes.found(thread("copy")).config
    assert values(changes, changes.save(values=growing(6)[-1], parent=parent)) == growing(6)[-1]
    assert whole_values(changes) == 1


def test_pruning_keeps_what_the_latest_is_made_of(changes: Store) -> None:
    line(changes, growing(8))
    again(changes).prune(["t"])
    assert changes.rows() == (1, 1, 0)
    assert changes.count("checkpoint_deltas") == 8
    parent = changes.found(thread()).config
    line(changes, growing(3, 16), parent)
    assert values(again(changes), thread()) == growing(3, 16)[-1]
    assert whole_values(changes) == 1


def test_pruning_frees_chains_that_nothing_names(changes: Store) -> None:
    noise = random.Random(4)
    states = [{"bytes": noise.randbytes(5000)} for _ in range(5)]
    line(changes, states)
    changes.prune(["t"])
    assert changes.count("checkpoint_deltas") == 1
    assert values(changes, thread()) == states[-1]


def test_pruning_frees_the_end_of_a_chain(changes: Store) -> None:
    configs = line(changes, growing(8))
    fork = changes.save(
        parent=configs[2], versions=changes.found(configs[2]).checkpoint["channel_versions"]
    )
    changes.prune(["t"])
    assert changes.count("checkpoint_deltas") == 3
    assert changes.found(fork).checkpoint["channel_versions"].keys() == {"items"}
    line(changes, growing(3, 11), changes.found(thread()).config)
    assert values(again(changes), thread()) == growing(3, 11)[-1]


def test_deleting_runs_frees_what_only_they_used(changes: Store) -> None:
    kept = line(changes, growing(4))
    line(changes, growing(4, 12), kept[-1], metadata={"run_id": "run"})
    changes.delete_for_runs(["run"])
    assert changes.count("checkpoint_deltas") == 4
    assert [values(changes, config) for config in kept] == growing(4)
    line(changes, growing(4, 12), kept[-1])
    assert values(again(changes), thread()) == growing(4, 12)[-1]


def test_deleting_runs_keeps_what_later_values_are_made_of(changes: Store) -> None:
    first = line(changes, growing(4), metadata={"run_id": "run"})
    last = line(changes, growing(4, 12), first[-1])
    changes.delete_for_runs(["run"])
    assert changes.count("checkpoint_deltas") == 8
    assert [values(again(changes), config) for config in last] == growing(4, 12)


def test_a_shallow_saver(store: Store) -> None:
    shallow = again(store, shallow=True)
    parent = None
    for state in [*growing(12), *[{"items": ITEMS[i : i + 9]} for i in range(100, 400, 100)]]:
        parent = shallow.save(values=state, parent=parent)
        assert values(again(store), thread()) == state
        assert shallow.rows() == (1, 1, 0)
    assert whole_values(shallow) == 1


# At the same time


def together(store: Store, *operations: Callable[[], object]) -> None:
    """Run operations in threads of their own; async ones share a loop, and run in turns."""
    if store.kind.is_async:
        for operation in operations:
            operation()
        return
    with ThreadPoolExecutor(len(operations)) as pool:
        for future in [pool.submit(operation) for operation in operations]:
            future.result()


@pytest.mark.parametrize("shallow", [False, True], ids=["deep", "shallow"])
def test_putting_while_others_delete(store: Store, shallow: bool) -> None:
    noise = random.Random(5)
    done: list[int] = []

    def put(name: str) -> None:
        saver = again(store, shallow=shallow)
        parent = None
        for turn in range(25):
            items = [*ITEMS[: 8 + turn], *([noise.randbytes(20_000)] if turn % 7 == 6 else [])]
            parent = saver.save(name, {"items": items}, parent=parent)
            assert values(saver, parent) == {"items": items}
        done.append(1)

    def prune() -> None:
        saver = again(store)
        while len(done) < 2 and not store.kind.is_async:
            saver.prune(["a", "b"])

    together(store, lambda: put("a"), lambda: put("b"), prune, prune)
    prune()
    again(store).prune(["a", "b"])
    for name in "ab":
        assert len(values(again(store), thread(name))["items"]) == 32
    if not shallow:
        assert store.count("checkpoint_blobs") == 2


def test_putting_while_a_thread_is_deleted_never_leaves_a_broken_chain(store: Store) -> None:
    done: list[int] = []

    def put() -> None:
        saver = again(store)
        parent = None
        for turn in range(40):
            parent = saver.save("a", {"items": ITEMS[: 8 + turn]}, parent=parent)
        done.append(1)

    def delete() -> None:
        saver = again(store)
        while not done and not store.kind.is_async:
            saver.delete_thread("a")

    together(store, put, delete)
    for item in again(store).list(thread("a")):
        found = item.checkpoint["channel_values"].get("items")
        assert found is None or found == ITEMS[: len(found)]


# Rewriting


def edits(store: Store) -> RunnableConfig:
    """A document at a checkpoint, and a task that wrote it again with an edit."""
    config = line(store, [{"text": DOCUMENT, "n": 1}])[-1]
    store.put_writes(config, [("text", EDITED), ("n", 2), ("other", EDITED)], "task")
    return config


EDITED = DOCUMENT[:90_000] + "edited" + DOCUMENT[90_006:]


def kinds(store: Store) -> list[str]:
    rows = store.sql("SELECT type FROM checkpoint_writes ORDER BY idx")
    return [row[0].decode() if isinstance(row[0], bytes) else row[0] for row in rows]


def pending(store: Store, config: RunnableConfig) -> list[tuple[str, Any]]:
    return [(channel, value) for _, channel, value in store.found(config).pending_writes or []]


def test_a_write_is_stored_as_what_changed_since_its_checkpoint(
    changes: Store, store: Store
) -> None:
    config = edits(changes)
    assert kinds(changes) == ["msgpack:since", "msgpack", "msgpack"]
    expected = [("text", EDITED), ("n", 2), ("other", EDITED)]
    assert pending(changes, config) == pending(store, config) == expected
    listed = [write for found in store.list(None) for write in found.pending_writes or []]
    assert [(channel, value) for _, channel, value in listed] == expected
    last = changes.save(parent=config, values={"text": EDITED})
    assert pending(store, last) == []
    history = store.history(last, ["text"])["text"]
    assert [value for *_, value in history["writes"]] == [EDITED]
    store.copy_thread("t", "copy")
    copied = thread("copy", checkpoint_id=id_of(config))
    assert pending(store, copied) == expected


def test_a_write_of_a_checkpoint_that_is_not_known_is_stored_whole(
    changes: Store, store: Store
) -> None:
    config = line(changes, [{"text": DOCUMENT}])[-1]
    again(store, incremental=True).put_writes(config, [("text", EDITED)], "task")
    assert kinds(store) == ["msgpack"]


def test_a_write_whose_value_is_gone_is_an_error_that_names_the_row(
    changes: Store, store: Store
) -> None:
    config = edits(changes)
    store.sql("DELETE FROM checkpoint_blobs")
    with pytest.raises(CorruptDataError, match="task_id='task', idx=0"):
        store.found(config)


def test_writes_are_rewritten_as_whole_ones(changes: Store, store: Store) -> None:
    config = edits(changes)
    expected = pending(store, config)
    assert store.rewrite(incremental=False) == 2  # a value and a write
    assert kinds(store) == ["msgpack"] * 3
    assert pending(store, config) == expected


def test_an_input_that_comes_again_costs_what_changed(sqlite_store: Store) -> None:
    store = again(sqlite_store, incremental=True)
    config: RunnableConfig | None = None
    for turn in range(6):
        given = DOCUMENT[:-10] + f"{turn:10}"
        config = line(store, [{"__start__": given}], parent=config)[-1]
        versions = {"__start__": store.saver.get_next_version(f"{next(VERSIONS)}", None)}
        config = store.save(parent=config, versions=versions, new=["__start__"])
    assert whole_values(store) == 1
    assert stored_bytes(store) < 1.1 * len(DOCUMENT)


def test_rewriting_both_ways(store: Store) -> None:
    states = [*growing(12), {"items": ITEMS[:3]}, *STATES["a trimmed history"]]
    configs = line(store, states)
    line(store, growing(3), thread_id="other")
    plain = stored_bytes(store)
    blobs = "SELECT b.thread_id, b.version, b.type, b.blob, b.chain FROM checkpoint_blobs AS b"
    before = sorted(map(str, store.sql(blobs)))
    assert store.rewrite(["t"], incremental=True) == len(states) - 1  # one is small
    assert stored_bytes(store) < plain / 4
    for reader in (store, again(store)):
        assert [values(reader, config) for config in configs] == states
    assert store.rewrite(incremental=True) == 3
    assert store.rewrite(incremental=True) == 0
    line(again(store), growing(2, 50), configs[-1])
    assert store.rewrite(incremental=False) == len(states) - 1 + 3 + 2
    assert store.rewrite(incremental=False) == 0
    assert store.count("checkpoint_deltas") == 0
    after = sorted(map(str, store.sql(blobs)))
    assert set(before) <= set(after)
    assert len(after) == len(before) + 2


def test_rewriting_in_several_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoint_sa.repository.rewriting._BATCH_VALUES", 4)
    monkeypatch.setattr("checkpoint_sa.repository.threads._PAGE", 1)
    for name in ("a", "b"):
        line(store, growing(10), thread_id=name)
    assert store.rewrite(incremental=True) == 20
    assert whole_values(store) == 2
    assert [item.checkpoint["channel_values"] for item in store.list(thread("b"))] == growing(10)[
        ::-1
    ]
    assert store.rewrite(incremental=False) == 20
    assert store.count("checkpoint_deltas") == 0
    assert [item.checkpoint["channel_values"] for item in store.list(thread("a"))] == growing(10)[
        ::-1
    ]


def test_rewriting_compares_beside_the_event_loop(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            threads.add(threading.get_ident())
            return function(*args)

        return call

    monkeypatch.setattr(encoding, "difference", noted(difference))
    monkeypatch.setattr(chain, "apply", noted(apply))
    line(store, growing(5))
    for to_chains in (True, False):
        threads.clear()
        assert store.rewrite(incremental=to_chains) == 5
        assert threads
        assert (threading.get_ident() in threads) is not store.kind.is_async


def test_rewriting_stops_at_a_broken_chain(changes: Store) -> None:
    line(changes, growing(6))
    changes.sql("DELETE FROM checkpoint_deltas WHERE position = 2")
    with pytest.raises(CorruptDataError):
        changes.rewrite(incremental=False)
    assert changes.count("checkpoint_deltas") == 5


def test_rewriting_leaves_encrypted_values(store: Store) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16)
    line(store.using(store.make_saver(serde=serde)), growing(3))
    assert store.rewrite(incremental=True) == 0


def test_rewriting_while_a_graph_runs(store: Store) -> None:
    def put() -> None:
        saver = again(store)
        parent = None
        for state in growing(25):
            parent = saver.save(values=state, parent=parent)
            assert values(saver, parent) == state

    def turn() -> None:
        saver = again(store)
        for number in range(10):
            saver.rewrite(incremental=number % 2 == 0)

    together(store, put, turn)
    assert [item.checkpoint["channel_values"] for item in store.list(thread())] == growing(25)[::-1]


def test_the_command_rewrites(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    line(store, growing(4))
    line(store, growing(4), thread_id="other")
    assert main(["rewrite", "--incremental", "--url", store.url, "t"]) == DONE
    assert main(["rewrite", "--incremental", "--url", store.url]) == DONE
    assert main(["rewrite", "--plain", "--url", store.url]) == DONE
    said = capsys.readouterr().out.splitlines()
    assert said == [f"{number} values rewritten" for number in (4, 4, 8)]


def test_a_downgrade_refuses_to_lose_values(sqlite_store: Store) -> None:
    store = again(sqlite_store)
    line(store, growing(4))
    with pytest.raises(SchemaError, match="rewrite --plain"):
        migrate.downgrade(store.engine, "checkpoint_sa_0003")
    store.rewrite(incremental=False)
    migrate.downgrade(store.engine, "checkpoint_sa_0003")
    migrate.upgrade(store.engine)
    assert values(again(store), thread()) == growing(4)[-1]
    store.rewrite(incremental=True)
    migrate.downgrade(store.engine, "base")


# With LangGraph


class State(TypedDict):
    messages: Annotated[list[Any], add_messages]
    notes: dict[str, str]


def conversation(saver: Saver, **options: Any) -> Any:
    def answer(state: State) -> dict[str, Any]:
        number = len(state["messages"])
        removed = [RemoveMessage(id="message 7")] if number == 21 else []
        replaced = [AIMessage(text(7), id="message 3")] if number == 11 else []
        return {
            "messages": [AIMessage(text(number), id=f"message {number}"), *removed, *replaced],
            "notes": {**state.get("notes", {}), f"note {number}": text(number, 150)},
        }

    builder = StateGraph(State)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    return builder.compile(checkpointer=saver, **options)


def talk(store: Store, saver: Saver, turns: int, **options: Any) -> list[Any]:
    graph = conversation(saver)
    for turn in range(turns):
        state = {"messages": [HumanMessage(text(1000 + turn), id=f"question {turn}")]}
        if store.kind.is_async:
            store.run(graph.ainvoke(state, thread(), **options))
        else:
            graph.invoke(state, thread(), **options)
    return [item.checkpoint["channel_values"] for item in store.list(thread())]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_graph_ends_in_the_same_state(store: Store, durability: str) -> None:
    plain = talk(store, store.saver, 14, durability=durability)
    size = stored_bytes(store)
    store.clear()
    assert talk(store, store.make_saver(incremental=True), 14, durability=durability) == plain
    assert stored_bytes(store) < size / 2
    assert store.sql("SELECT count(DISTINCT chain) FROM checkpoint_deltas")[0][0] <= 4


def test_time_travel_in_a_graph(changes: Store) -> None:
    talk(changes, changes.saver, 10)
    history = changes.list(thread())
    old = next(
        item for item in history if len(item.checkpoint["channel_values"].get("messages", ())) == 12
    )
    graph = conversation(changes.saver)
    state = {"messages": [HumanMessage("again", id="again")]}
    config = {"configurable": old.config["configurable"]}
    result = (
        changes.run(graph.ainvoke(state, config))
        if changes.kind.is_async
        else graph.invoke(state, config)
    )
    assert len(result["messages"]) == 14
    latest = changes.found(thread()).checkpoint["channel_values"]["messages"]
    assert latest == result["messages"]
    assert changes.list(thread())[-len(history) :] == history
