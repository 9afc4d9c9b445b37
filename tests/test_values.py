"""Values come back exactly: in channels, in writes and in metadata, plain and encrypted."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import pickle
import zlib
from collections import deque
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import PosixPath
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, TASKS, _DeltaSnapshot
from langgraph.types import Interrupt, Send
from pydantic import BaseModel
from stores import Store, thread

from checkpoint_sa import CorruptDataError, ValueTooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from langchain_core.runnables import RunnableConfig


class Address(BaseModel):
    street: str
    number: int | None = None


class Person(BaseModel):
    name: str
    addresses: list[Address]


@dataclasses.dataclass
class Point:
    x: float
    y: float
    label: str = ""


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Level(str, enum.Enum):
    LOW = "low"
    HIGH = "high"


class Count(enum.IntEnum):
    ONE = 1


def same(found: Any, expected: Any) -> bool:
    """Whether two values are one: types, signs of zero and NaN included."""
    if type(found) is not type(expected):
        return False
    if isinstance(expected, float):
        return repr(found) == repr(expected)
    if isinstance(expected, dict):
        return {(type(name), name) for name in found} == {
            (type(name), name) for name in expected
        } and all(same(found[name], value) for name, value in expected.items())
    if isinstance(expected, list | tuple | deque):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


# Each name is that of a thread; a tuple comes back as the list that LangGraph makes of it.
SCALARS: dict[str, Any] = {
    "nan": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "minus zero": -0.0,
    "zero": 0.0,
    "one": 1.0,
    "tenth": 0.1,
    "ten digits": 123456789.0123456789,
    "1e15": 1e15,
    "1e16": 1e16,
    "1e22": 1e22,
    "1e308": 1e308,
    "largest": 1.7976931348623157e308,
    "smallest": 5e-324,
    "1e-5": 1e-05,
    "2**53 as float": float(2**53),
    "int zero": 0,
    "int one": 1,
    "int minus one": -1,
    "2**53+1": 2**53 + 1,
    "2**63-1": 2**63 - 1,
    "2**63": 2**63,
    "-2**63": -(2**63),
    "-2**63-1": -(2**63) - 1,
    "2**64-1": 2**64 - 1,
    "2**64": 2**64,
    "2**70": 2**70,
    "-2**70": -(2**70),
    "10**400": 10**400,
    "true": True,
    "false": False,
    "none": None,
    "empty text": "",
    "text": "text",
    "digits": "1",
    "null as text": "null",
    "blanks": "  a  ",
    "nul": "\0",
    "nul inside": "a\0b",
    "lone surrogate": "\ud800",
    "lone surrogate inside": "a\udfffb",
    "surrogates the wrong way": "\udc00\ud800",
    "question mark": "?",
    "replacement": "\ufffd",
    "control characters": "".join(map(chr, range(1, 33))) + "\x7f\x80\x9f",
    "separators": "\u2028\u2029\u200b\ufeff",
    "non-characters": "\ufffe\uffff\U0010ffff",
    "umlauts": "äöü ÄÖÜ ß é e\u0301",
    "emoji": "😀👩\u200d👩\u200d👧",
    "quotes": "'\"`\\ \\' \\\" \\u0041 \\ud800 \\0",
    "sql": "'; DROP TABLE checkpoints; -- %s %(x)s :x ? {}",
    "255 characters": "x" * 255,
    "256 characters": "x" * 256,
    "257 characters": "x" * 257,
    "256 emoji": "😀" * 256,
    "70,000 characters": "ä" * 70_000,
    "64 kB": "x" * 65_536,
    "int enum": Count.ONE,
    "text enum": Level.LOW,
}

CONTAINERS: dict[str, Any] = {
    "empty list": [],
    "empty dict": {},
    "nothing in a list": [None],
    "booleans and numbers": [True, 1, 1.0, False, 0, 0.0, -0.0],
    "floats": [math.nan, math.inf, -math.inf, -0.0, 1e308, 1e22, 5e-324],
    "floats in a dict": {"nan": math.nan, "inf": math.inf, "-0": -0.0, "1e22": 1e22},
    "integers": [2**63 - 1, 2**63, 2**64 - 1, -(2**63)],
    "text": ["", "\0", "a\0b", "\u2028", "😀", "?"],
    "names": {"": 1, "\0": 2, "a.b": 3, "$": 4, "ü": 5, "'\"": 6, "x" * 300: 7},
    "deep": {"a": [{"b": [{"c": [None, {"d": -0.0}]}]}]},
    "order": {"z": 1, "a": 2, "aa": 3, "b": 4, "B": 5},
    "what looks like a message": {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", "HumanMessage"],
        "kwargs": {"content": "a", "id": "1", "score": math.nan},
    },
    "what looks like a type": {"lc": 2, "type": "constructor", "id": ["pathlib", "Path"]},
    "lone surrogates": ["\ud800", {"x": "a\udfffb"}],
    "lone surrogate as a name": {"\ud800": 1},
    "integers beyond 64 bits": [2**64, -(2**63) - 1, {"x": 2**70}],
    "all of it": {"a": [math.nan, "\0", "\ud800", 2**63, 2**70, -0.0, 1e308, 1e22, None]},
}

OBJECTS: dict[str, Any] = {
    "bytes": b"bytes",
    "empty bytes": b"",
    "all bytes": bytes(range(256)),
    "many bytes": bytes(range(256)) * 300,
    "bytes in a list": [b"", b"\0\xff", {"b": b"x"}],
    "number as a name": {1: "a", "1": "b"},
    "human": HumanMessage("hello\n'ü'", id="1"),
    "ai": AIMessage(
        "",
        id="2",
        tool_calls=[{"name": "t", "args": {"a": [1, None]}, "id": "c", "type": "tool_call"}],
    ),
    "tool": ToolMessage("done", tool_call_id="c", id="3", artifact={"raw": b"\0"}),
    "messages": [HumanMessage("a", id="4"), AIMessage([{"type": "text", "text": "b"}], id="5")],
    "model": Address(street="ü 'x'", number=None),
    "nested models": Person(name="n", addresses=[Address(street="s", number=2**40)]),
    "models in a dict": {"a": [Address(street="s")]},
    "dataclass": Point(1.5, -0.0, "p"),
    "dataclass with infinity": Point(math.inf, 1e308),
    "enum": Colour.RED,
    "enum of a number": Colour.BLUE,
    "enums": [Colour.RED, Level.HIGH, Count.ONE, {"c": Colour.BLUE}],
    "send": Send("node", {"a": [1, "x"]}),
    "sends": [Send("node", 1), Send("other", {"b": b"\0"})],
    "interrupt": Interrupt(value={"question": "?"}, id="i"),
    "set": {1, "a"},
    "frozenset": frozenset({1, 2}),
    "deque": deque([1, "a", None]),
    "datetime": datetime(2024, 2, 29, 12, 30, 1, 999_999, tzinfo=timezone.utc),
    "datetime elsewhere": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    "date": date(9999, 12, 31),
    "timedelta": timedelta(days=-1, microseconds=1),
    "uuid": UUID(int=2**127 + 1),
    "decimal": Decimal("1.10"),
    "path": PosixPath("/a/b"),
    "address": IPv4Address("127.0.0.1"),
}

VALUES = {**SCALARS, **CONTAINERS, **OBJECTS}
PLAIN = {**SCALARS, **CONTAINERS}


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, str]:
    """Return what isn't the same, as `name: found instead of expected`."""
    assert found.keys() == expected.keys()
    return {
        name: ascii(f"{found[name]!r} instead of {value!r}")[:200]
        for name, value in expected.items()
        if not same(found[name], value)
    }


def test_the_comparison_of_these_tests_is_exact() -> None:
    pairs: list[tuple[Any, Any]] = [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ([0.0], [-0.0]),
        ({"a": 1}, {"a": 1.0}),
        ((1,), [1]),
        ({1: 1}, {1.0: 1}),
        (b"", ""),
        (None, ""),
        (Count.ONE, 1),
        (Level.LOW, "low"),
        (math.nan, math.inf),
    ]
    for one, other in pairs:
        assert not same(one, other), (one, other)
        assert same(one, one), one
        assert same(other, other), other


# Everywhere, on every engine


def as_a_channel(store: Store, name: str, value: Any) -> Any:
    config = store.save(name, {"x": value})
    return store.found(config).checkpoint["channel_values"]["x"]


def as_a_write(store: Store, name: str, value: Any) -> Any:
    config = thread(name, checkpoint_id="1")
    store.put_writes(config, [("x", value), (ERROR, value)], "task")
    store.save(name, checkpoint_id="1")
    (_, error, special), (_, channel, ordinary) = store.found(config).pending_writes or []
    assert (error, channel) == (ERROR, "x")
    assert same(special, ordinary)
    return ordinary


def as_metadata(store: Store, name: str, value: Any) -> Any:
    config = store.save(name, metadata={"k": value, "in": {"k": [value]}})
    found: Any = store.found(config).metadata
    assert same(found["in"], {"k": [found["k"]]})
    return found["k"]


PLACES = {"channel": as_a_channel, "write": as_a_write, "metadata": as_metadata}


def come_back(store: Store, place: str, values: Mapping[str, Any]) -> None:
    """Check that each value comes back exactly from a thread of its own; name all that don't."""
    found = {}
    for name, value in values.items():
        try:
            found[name] = PLACES[place](store, name, value)
        except Exception as error:  # noqa: BLE001 - one must not hide the others
            found[name] = error
    assert differences(found, values) == {}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["scalars", "containers", "objects"])
def test_values_come_back_exactly(store: Store, place: str, kind: str) -> None:
    values = {"scalars": SCALARS, "containers": CONTAINERS, "objects": OBJECTS}[kind]
    come_back(store, place, values)


def test_a_bytearray_comes_back(store: Store) -> None:
    # Inside of another value, LangGraph's serializer makes bytes of it.
    value = bytearray(b"\0\xff")
    assert same(as_a_channel(store, "t", value), value)
    assert same(as_a_write(store, "u", value), value)


def test_a_dict_keeps_its_order_in_a_channel(store: Store) -> None:
    names = ["z", "a", "aa", "b", "B", "", "ü", "0"]
    found = as_a_channel(store, "t", dict.fromkeys(names))
    assert list(found) == names


def test_tuples_come_back_as_lists(store: Store) -> None:
    for place in PLACES.values():
        assert place(store, place.__name__, (1, (2, "a"))) == [1, [2, "a"]]


def test_many_values_of_all_kinds_come_back_from_one_checkpoint(store: Store) -> None:
    values = {f"channel {name}": value for name, value in {**SCALARS, **OBJECTS}.items()}
    config = store.save("t", values)
    found = store.found(config).checkpoint["channel_values"]
    assert differences({name: found[name] for name in values}, values) == {}
    assert len(found) == len(values)


def test_many_values_of_all_kinds_come_back_from_one_batch_of_writes(store: Store) -> None:
    values = {f"channel {name}": value for name, value in {**SCALARS, **OBJECTS}.items()}
    config = store.save()
    store.put_writes(config, list(values.items()), "task")
    found = {channel: value for _, channel, value in store.found(config).pending_writes or []}
    assert differences(found, values) == {}


def test_all_of_metadata_comes_back_at_once(store: Store) -> None:
    config = store.save("t", metadata=PLAIN)
    found: Any = store.found(config).metadata
    assert differences({name: found[name] for name in PLAIN}, PLAIN) == {}


def test_metadata_of_objects_beside_what_only_python_says(store: Store) -> None:
    metadata = {
        "bytes": b"\0",
        "message": HumanMessage("m", id="1"),
        "surrogate": "\ud800",
        "big": 2**70,
        "nan": math.nan,
        "list": ["\ud800", 2**70],
    }
    config = store.save("t", metadata=metadata)
    found: Any = store.found(config).metadata
    assert differences({name: found[name] for name in metadata}, metadata) == {}


def test_values_stay_exact_when_another_checkpoint_keeps_them(store: Store) -> None:
    first = store.save("t", SCALARS, versions=dict.fromkeys(SCALARS, "1"))
    checkpoint = store.found(first).checkpoint
    second = store.put(first, {**checkpoint, "id": "f"}, {}, {})
    found = store.found(second).checkpoint["channel_values"]
    assert differences({name: found[name] for name in SCALARS}, SCALARS) == {}


def test_metadata_taken_from_the_config_is_exact(store: Store) -> None:
    extra = {"nul": "a\0b", "surrogate": "\ud800", "nan": math.nan, "big": 2**70, "on": True}
    config: RunnableConfig = {
        "configurable": {"thread_id": "t", "checkpoint_ns": "", **extra},
        "metadata": {"user": "\0"},
    }
    stored = store.put(config, empty_checkpoint(), {}, {})
    expected = {"user": "\0", **extra}
    assert differences(dict(store.found(stored).metadata), expected) == {}


def test_names_of_nodes_and_channels_in_versions_seen_are_exact(store: Store) -> None:
    checkpoint = empty_checkpoint()
    checkpoint["versions_seen"] = {name: {name: "1"} for name in ("a\0b", "\ud800", 'a"b', "ü")}
    config = store.put(thread(), checkpoint, {}, {})
    assert store.found(config).checkpoint == checkpoint


CHANNELS = [
    *("a'b", 'a"b', "a`b", "a\\b", '"', '""', "'", "\\"),
    *("a.b", ".", "$", "$.a", "$[0]", "a[0]", "[0]", "*", "**", "#"),
    *("a:b", ":", ":a", "branch:to:node", "a|b", "a/b", "a b", " ", "a ", ""),
    *("ü", "u\u0308", "Ü", "ß", "😀", "%", "%s", "%(a)s", "?", "{a}", "--", ";"),
    *("null", "true", "0", "1", "\n", "\t", "\x7f", "\u2028"),
    *("__pregel_tasks", "__start__", "channel_values"),
    "c" * 300,
    "ü" * 190,
]


def test_channels_may_have_any_name(store: Store) -> None:
    small = {f"small {name}": name for name in CHANNELS} | {name: name for name in CHANNELS}
    large = {f"large {name}": [name, "\0"] for name in CHANNELS}
    config = store.save("t", {**small, **large})
    found = store.found(config).checkpoint
    assert found["channel_values"] == {**small, **large}
    assert found["channel_versions"].keys() == small.keys() | large.keys()


def test_writes_may_go_to_channels_of_any_name(store: Store) -> None:
    config = store.save()
    writes = [(name, [name]) for name in CHANNELS]
    store.put_writes(config, writes, "task")
    assert store.found(config).pending_writes == [("task", *write) for write in writes]


@pytest.mark.parametrize("name", CHANNELS, ids=ascii)
def test_a_value_alone_in_a_channel_of_any_name(sqlite_store: Store, name: str) -> None:
    for value in (1, "text", None, ["list"], math.nan):
        config = sqlite_store.save("t", {name: value})
        assert same(sqlite_store.found(config).checkpoint["channel_values"], {name: value})


# Sizes

TWENTY_MEGABYTES = 20 * 10**6


def takes(store: Store, size: int) -> bool:
    """Whether the engine takes a statement of this size: MariaDB's default packet has 16 MB."""
    if store.kind.server not in ("mariadb", "mysql"):
        return True
    return size + 10_000 < int(store.sql("SELECT @@max_allowed_packet")[0][0])


def check_large(store: Store, size: int, save: Callable[[], Any], value: Any) -> None:
    """Check that a value comes back, or that the error names the setting and stores nothing."""
    before = store.rows()
    if store.kind.driver.endswith("+asyncmy") and len(value) >= 2**24:
        with pytest.raises(ValueTooLargeError, match=r"the driver asyncmy .* \w+\+aiomysql://"):
            save()
        assert store.rows() == before
    elif takes(store, size):
        assert save() == value
    else:
        with pytest.raises(ValueTooLargeError, match="max_allowed_packet") as error:
            save()
        limit = int(store.sql("SELECT @@max_allowed_packet")[0][0])
        assert f"{limit:,}" in str(error.value)
        assert len(str(error.value)) < 1000
        assert store.rows() == before
    works_afterwards(store)


def works_afterwards(store: Store) -> None:
    for number in range(8):  # more than a pool keeps
        config = store.save("after", {"x": [number]})
        assert store.found(config).checkpoint["channel_values"] == {"x": [number]}


def test_the_engines_that_cannot_take_20_megabytes_are_known(store: Store) -> None:
    assert takes(store, TWENTY_MEGABYTES) == (store.kind.server != "mariadb")


def test_a_string_of_20_megabytes_in_a_channel(store: Store) -> None:
    value = "x" * TWENTY_MEGABYTES

    def save() -> Any:
        return store.found(store.save("t", {"x": value})).checkpoint["channel_values"]["x"]

    check_large(store, TWENTY_MEGABYTES, save, value)


def test_a_string_of_20_megabytes_in_a_write(store: Store) -> None:
    value, config = "x" * TWENTY_MEGABYTES, store.save()

    def save() -> Any:
        store.put_writes(config, [("y", 1), ("x", value)], "task")
        return (store.found(config).pending_writes or [])[1][2]

    check_large(store, TWENTY_MEGABYTES, save, value)


def test_a_string_of_20_megabytes_in_metadata(store: Store) -> None:
    value = "x" * TWENTY_MEGABYTES

    def save() -> Any:
        return dict(store.found(store.save("t", metadata={"k": value})).metadata)["k"]

    check_large(store, TWENTY_MEGABYTES, save, value)


def test_metadata_of_20_megabytes_that_no_engine_says_in_json(store: Store) -> None:
    value = "\0" + "x" * TWENTY_MEGABYTES

    def save() -> Any:
        return dict(store.found(store.save("t", metadata={"k": value})).metadata)["k"]

    check_large(store, TWENTY_MEGABYTES, save, value)


def test_bytes_that_grow_when_they_are_sent(store: Store) -> None:
    value = b"\0" * 9_000_000  # two characters each in the statements of the MySQL family

    def save() -> Any:
        return store.found(store.save("t", {"x": value})).checkpoint["channel_values"]["x"]

    check_large(store, 2 * len(value), save, value)


def test_values_that_are_large_only_together(store: Store) -> None:
    values = {f"c{number}": chr(97 + number) * 9_000_000 for number in range(2)}
    config = store.save("t", values)
    assert store.found(config).checkpoint["channel_values"] == values


# Serializers


def secret_key(fill: bytes = b"k") -> bytes:
    return fill * 32


def encrypting(store: Store, serde: Any = None, **options: Any) -> Store:
    options.setdefault("key", secret_key())
    inner = {} if serde is None else {"serde": serde}
    return store.using(
        store.make_saver(serde=EncryptedSerializer.from_pycryptodome_aes(**inner, **options))
    )


@pytest.mark.parametrize("place", PLACES)
def test_encrypted_values_come_back_exactly(sqlite_store: Store, place: str) -> None:
    come_back(encrypting(sqlite_store), place, VALUES)


SECRETS: dict[str, Any] = {
    "short text": "SECRET-short",
    "long text": "SECRET-long" * 100,
    "text with nul": "SECRET-\0-nul",
    "text with a lone surrogate": "SECRET-\ud800-surrogate",
    "text with umlauts": "SECRET-äöü",
    "number": 7_777_777_123,
    "negative number": -7_777_777_124,
    "number beyond 64 bits": 7_777_777_125 * 10**20,
    "float": 77777.77125,
    "large float": 7.777777125e300,
    "list": ["SECRET-list", 7_777_777_126],
    "dict": {"SECRET-name": "SECRET-value"},
    "bytes": b"SECRET-bytes",
    "message": HumanMessage("SECRET-message", id="SECRET-id"),
    "model": Address(street="SECRET-model", number=7_777_777_127),
    "send": Send("node", "SECRET-send"),
    "snapshot": _DeltaSnapshot(["SECRET-snapshot"]),
    "enum text": "SECRET-boolean",
}
TRACES = (b"SECRET", b"777777", b"77777.77", b"7.777777")
"""What gives away that one of the secrets is readable."""


def stored_bytes(store: Store) -> dict[str, bytes]:
    """Return all that is in the tables, column by column, as the engine gives it back."""
    content: dict[str, bytes] = {}
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_deltas", "checkpoint_writes"):
        for row in store.sql(f"SELECT * FROM {table}"):
            for column, cell in row._asdict().items():
                content[f"{table}.{column}"] = content.get(f"{table}.{column}", b"") + raw(cell)
    return content


def raw(cell: Any) -> bytes:
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell) + b"\n"
    text = cell if isinstance(cell, str) else json.dumps(cell)
    return text.encode() + b"\n"


def readable(store: Store) -> list[str]:
    """Name the columns in which a secret can be read."""
    return sorted(
        column
        for column, content in stored_bytes(store).items()
        if any(trace in content for trace in TRACES)
    )


def store_secrets(store: Store) -> list[RunnableConfig]:
    """Store secrets wherever LangGraph stores state; return the two checkpoints with them."""
    first = store.save("t", SECRETS, metadata={"writes": {"node": SECRETS["dict"]}}, v=3)
    store.put_writes(first, list(SECRETS.items()), "task", "path")
    store.put_writes(first, [(TASKS, Send("node", "SECRET-pending"))], "other task")
    specials: list[tuple[str, Any]] = [
        (ERROR, "SECRET-error"),
        (INTERRUPT, [Interrupt(value="SECRET-question", id="i")]),
        (RESUME, ["SECRET-answer", 7_777_777_128]),
    ]
    store.put_writes(first, specials, "special task")
    checkpoint: Any = store.found(first).checkpoint
    second = store.put(
        first,
        checkpoint | {"id": "ffffffff", "pending_sends": [Send("node", "SECRET-own")]},
        {},
        {},
    )
    return [first, second]


def test_an_encrypting_serializer_leaves_no_state_in_clear_text(store: Store) -> None:
    store_secrets(encrypting(store))
    assert store.count("checkpoint_writes") > len(SECRETS)
    assert readable(store) == []


def test_without_encryption_the_same_search_finds_the_secrets(store: Store) -> None:
    store_secrets(store)
    assert readable(store) == [
        "checkpoint_blobs.blob",
        "checkpoint_writes.blob",
        "checkpoints.checkpoint",
        "checkpoints.exact",
    ]


def test_encrypted_state_comes_back_exactly(store: Store) -> None:
    first, second = store_secrets(encrypting(store))
    other = encrypting(store)
    for config in (first, second):
        found = other.found(config).checkpoint["channel_values"]
        assert differences({name: found[name] for name in SECRETS}, SECRETS) == {}
    last: Any = other.found(second).checkpoint
    assert last["channel_values"][TASKS] == [Send("node", "SECRET-pending")]
    assert last["pending_sends"] == [Send("node", "SECRET-own")]
    writes = other.found(first).pending_writes or []
    assert ("special task", RESUME, ["SECRET-answer", 7_777_777_128]) in writes
    assert ("special task", ERROR, "SECRET-error") in writes


def test_encrypted_booleans_and_nothing_come_back(store: Store) -> None:
    other = encrypting(store)
    values = {"true": True, "false": False, "none": None, "zero": 0, "empty": "", "bytes": b""}
    config = other.save("t", values)
    found = encrypting(store).found(config).checkpoint["channel_values"]
    assert differences({name: found[name] for name in values}, values) == {}
    (row,) = store.sql("SELECT checkpoint FROM checkpoints")
    document = row[0] if isinstance(row[0], dict) else json.loads(row[0])
    assert document["channel_values"] == {}


def test_a_large_encrypted_value_comes_back(store: Store) -> None:
    value = "x" * 5_000_000
    config = encrypting(store).save("t", {"x": value})
    assert encrypting(store).found(config).checkpoint["channel_values"] == {"x": value}


@pytest.mark.parametrize("reader", ["another key", "no key"])
def test_what_cannot_be_decrypted_is_an_error_that_names_the_row(store: Store, reader: str) -> None:
    config = encrypting(store).save("thread-1", {"x": "SECRET-value"})
    other = encrypting(store, key=secret_key(b"o")) if reader == "another key" else store
    with pytest.raises(CorruptDataError, match="thread_id='thread-1'") as error:
        other.found(config)
    assert "another serializer or key" in str(error.value)
    assert "SECRET" not in str(error.value)


class SealingSerializer(JsonPlusSerializer):
    """LangGraph's serializer, its output made unreadable: as people write their own encryption."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, data = super().dumps_typed(obj)
        return f"{kind}~sealed", bytes(byte ^ 0xA5 for byte in data)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        kind, sealed = data
        assert kind.endswith("~sealed"), kind
        return super().loads_typed((kind[: -len("~sealed")], bytes(byte ^ 0xA5 for byte in sealed)))


# Values that JsonPlusSerializer itself doesn't give back are no matter of one that extends it.
SEALABLE = {
    name: value
    for name, value in SECRETS.items()
    if name not in ("text with a lone surrogate", "number beyond 64 bits")
}


def sealing(store: Store) -> Store:
    return store.using(store.make_saver(serde=SealingSerializer()))


def test_a_serializer_that_extends_langgraphs_gets_all_values(store: Store) -> None:
    config = sealing(store).save("t", SEALABLE)
    sealing(store).put_writes(config, list(SEALABLE.items()), "task")
    assert readable(store) == []
    found = sealing(store).found(config)
    values = found.checkpoint["channel_values"]
    assert differences({name: values[name] for name in SEALABLE}, SEALABLE) == {}
    written = {channel: value for _, channel, value in found.pending_writes or []}
    assert differences(written, SEALABLE) == {}


@pytest.mark.parametrize("name", ["text with a lone surrogate", "number beyond 64 bits"])
def test_a_serializer_that_extends_langgraphs_is_never_gone_round(store: Store, name: str) -> None:
    config = store.save("t")
    # That it refuses what it can't say is fine: it gives nothing away.
    with contextlib.suppress(TypeError):
        sealing(store).save("t", {"x": SECRETS[name]})
    with contextlib.suppress(TypeError):
        sealing(store).put_writes(config, [("x", SECRETS[name])], "task")
    assert readable(store) == []


class PickleSerde:
    """A serializer without types, as `pickle` is one."""

    def __init__(self) -> None:
        self.dumped: list[Any] = []

    def dumps(self, obj: Any) -> bytes:
        self.dumped.append(obj)
        return b"PICKLED" + pickle.dumps(obj)

    def loads(self, data: bytes) -> Any:
        assert data.startswith(b"PICKLED")
        return pickle.loads(data[len(b"PICKLED") :])


@pytest.mark.parametrize("place", PLACES)
def test_values_come_back_through_a_serializer_without_types(
    sqlite_store: Store, place: str
) -> None:
    custom = sqlite_store.using(sqlite_store.make_saver(serde=PickleSerde()))
    come_back(custom, place, {**VALUES, "complex": 1j, "bytearray": bytearray(b"\0")})


def test_a_serializer_of_ones_own_decides_what_comes_back(sqlite_store: Store) -> None:
    custom = sqlite_store.using(sqlite_store.make_saver(serde=PickleSerde()))
    assert as_a_channel(custom, "t", (1, (2,))) == (1, (2,))
    assert as_a_write(custom, "u", (1, (2,))) == (1, (2,))


def test_a_serializer_of_ones_own_gets_every_value(store: Store) -> None:
    serde = PickleSerde()
    custom = store.using(store.make_saver(serde=serde))
    values: dict[str, Any] = {
        "text": "a",
        "int": 1,
        "float": 0.5,
        "true": True,
        "none": None,
        "list": [1],
        "surrogate": "\ud800",
        "big": 2**70,
    }
    config = custom.save("t", values)
    assert [same(one, other) for one, other in zip(serde.dumped, values.values(), strict=True)]
    serde.dumped.clear()
    custom.put_writes(config, list(values.items()), "task")
    assert len(serde.dumped) == len(values)
    content = stored_bytes(store)
    assert content["checkpoint_blobs.blob"].count(b"PICKLED") == len(values)
    assert content["checkpoint_writes.blob"].count(b"PICKLED") == len(values)


class BufferSerializer(JsonPlusSerializer):
    """LangGraph's serializer, with buffers for bytes, as an encryption in place returns them."""

    buffer: type[bytearray | memoryview]

    def dumps_typed(self, obj: Any) -> tuple[str, Any]:
        kind, data = super().dumps_typed(obj)
        return kind, self.buffer(data)


@pytest.mark.parametrize("buffer", [bytearray, memoryview])
@pytest.mark.parametrize("place", PLACES)
def test_values_come_back_through_a_serializer_with_buffers(
    store: Store, place: str, buffer: type[bytearray | memoryview]
) -> None:
    serde = BufferSerializer()
    serde.buffer = buffer
    custom = store.using(store.make_saver(serde=serde))
    come_back(custom, place, {"text": "a", "list": [1], "date": date(2026, 1, 1)})


class CompressingSerde:
    """A serializer with types that calls everything `json`, in a form of its own."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return "json", zlib.compress(pickle.dumps(obj))

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        assert data[0] == "json"
        return pickle.loads(zlib.decompress(data[1]))


@pytest.mark.parametrize("place", PLACES)
def test_values_come_back_through_a_serializer_whose_types_are_like_ours(
    sqlite_store: Store, place: str
) -> None:
    come_back(sqlite_store.using(sqlite_store.make_saver(serde=CompressingSerde())), place, VALUES)


# Allow-lists


def strict() -> JsonPlusSerializer:
    """Make a serializer that revives only what LangGraph knows to be safe."""
    return JsonPlusSerializer(allowed_msgpack_modules=None)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_with_allowlist_gives_a_saver_that_revives_more(store: Store, *, encrypted: bool) -> None:
    narrow = (
        encrypting(store, strict()) if encrypted else store.using(store.make_saver(serde=strict()))
    )
    config = narrow.save("t", {"point": Point(1.0, 2.0), "n": 1})
    wide = store.using(narrow.saver.with_allowlist([(Point.__module__, "Point")]))
    assert wide.saver is not narrow.saver
    assert type(wide.saver) is type(narrow.saver)
    assert wide.found(config).checkpoint["channel_values"] == {"point": Point(1.0, 2.0), "n": 1}
    assert narrow.found(config).checkpoint["channel_values"]["point"] != Point(1.0, 2.0)


def test_with_allowlist_shares_the_engine(store: Store) -> None:
    narrow = store.using(store.make_saver(serde=strict()))
    wide = store.using(narrow.saver.with_allowlist([(Point.__module__, "Point")]))
    assert wide.saver.bind is narrow.saver.bind
    with store.statements() as sent:
        config = wide.save("t", {"point": Point(0.0, 1.0)})
    assert len(sent) > 0
    assert narrow.found(config).config == config
    wide.delete_thread("t")
    assert narrow.list(None) == []


def test_a_permissive_saver_needs_no_clone(store: Store) -> None:
    assert store.saver.with_allowlist([("some.module", "Name")]) is store.saver
