"""State of earlier revisions in the newest shape: on read, and in the database by `rewrite`.

A checkpoint names its revision in its document, and a write in its task path. So a row of a process
that knows no revisions is before the first, also beside newer rows.

A version always names the same value. A channel with another value, or with another name, gets a
version of its own: the version before, a mark, and a digest. The values of the version before stay
for other checkpoints.
"""

from __future__ import annotations

import copy
import hashlib
import re
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from checkpoint_sa import codec
from checkpoint_sa.engine import waiting
from checkpoint_sa.engine.statements import Statement, execute
from checkpoint_sa.errors import CorruptDataError, InvalidInputError, StateUpgradeError
from checkpoint_sa.paging import size_of
from checkpoint_sa.repository import reading, threads, writing
from checkpoint_sa.rows import REVISION_KEY, REVISION_MARK, loads_or_none
from checkpoint_sa.sql import upgrading as sql
from checkpoint_sa.sql import writing as writing_sql
from checkpoint_sa.state import State, StateDiff, StateWrite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol
    from sqlalchemy import Connection

    from checkpoint_sa.repository.threads import Steps
    from checkpoint_sa.rows import CheckpointKey, Stored
    from checkpoint_sa.state import Revisions, StateReport

_NAME = re.compile(r"[\w.-]{1,100}", re.ASCII)

VERSION_MARK = "~"
"""Stands in a version between the version before an upgrade, and a digest."""

_BATCH_BYTES = 4 * 2**20
_BATCH_CHECKPOINTS = 50


class Upgraded(NamedTuple):
    """A checkpoint in the newest shape."""

    loaded: CheckpointTuple
    writes: list[StateWrite]
    """The writes that replace those of earlier revisions."""
    new_versions: dict[str, str]
    """Channel -> version, of the channels with a version of their own."""
    changes: tuple[str, ...]
    """As in a `StateDiff`."""


class Upgrades:
    """Revisions of state, in their order.

    Raises:
        InvalidInputError: It isn't a mapping of names and functions, or is empty.
    """

    def __init__(self, revisions: Revisions) -> None:
        if not isinstance(revisions, Mapping) or not revisions:
            raise InvalidInputError(
                f"The revisions of state are {type(revisions).__name__}"
                f"{' without an entry' if isinstance(revisions, Mapping) else ''}. Pass a dict of"
                " names and functions: {'0001_rename': rename_channel('old', 'new')}."
            )
        for name, function in revisions.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise InvalidInputError(
                    f"{name!r} can't be the name of a revision of state. Use 1 to 100 ASCII"
                    " letters, digits, '_', '.' and '-'."
                )
            if not callable(function):
                raise InvalidInputError(
                    f"The revision of state {name!r} is {type(function).__name__}. Pass a function"
                    " that takes a State."
                )
        self._revisions = dict(revisions)
        self._names = list(revisions)

    @property
    def newest(self) -> str:
        """The name of the last revision."""
        return self._names[-1]

    def is_newest(self, stored: Stored) -> bool:
        """Whether a checkpoint and all its writes are in the newest shape."""
        newest = self.newest
        return stored.revision == newest and all(w.revision == newest for w in stored.writes)

    def upgrade(
        self, serde: SerializerProtocol, stored: Stored, loaded: CheckpointTuple
    ) -> Upgraded | None:
        """Return a checkpoint in the newest shape; None if it is stored in that shape.

        Raises:
            StateUpgradeError: It has a revision that isn't known, or versions that aren't text.
        """
        if self.is_newest(stored):
            return None
        checkpoint = _copied(loaded.checkpoint)
        metadata = copy.deepcopy(cast("dict[str, Any]", loaded.metadata))
        state = State(*stored.key[:2], checkpoint, metadata, [])
        number = self._number(stored.revision, state)
        writes: dict[int, list[StateWrite]] = defaultdict(list)
        for row, (_, _, value) in zip(stored.writes, loaded.pending_writes or (), strict=True):
            write = StateWrite(row.task_id, row.channel, value, row.task_path, row.idx)
            writes[self._number(row.revision, state)].append(write)
        newest = writes.pop(len(self._names), [])
        behind = {write.channel for same in writes.values() for write in same}
        changes = [f"~ writes: {channel}" for channel in sorted(behind)]
        new_versions: dict[str, str] = {}
        for earlier in sorted(each for each in writes if each < number):
            empty = _without_values(checkpoint)
            alone = State(*stored.key[:2], empty, copy.deepcopy(metadata), writes.pop(earlier))
            for name in self._names[earlier:number]:
                self._revisions[name](alone)
            state.writes += alone.writes
        if number < len(self._names):
            before = _contents(serde, state.checkpoint)
            for later in range(number, len(self._names)):
                # A process of this revision has read the checkpoint, and stored these.
                state.writes = sorted([*state.writes, *writes.pop(later, [])], key=_order)
                self._revisions[self._names[later]](state)
            after = _contents(serde, state.checkpoint)
            changes += _differences(loaded, state, before, after)
            new_versions = self._name_versions(serde, state, before, after)
        everything = sorted([*state.writes, *newest], key=_order)
        return Upgraded(
            loaded._replace(
                checkpoint=state.checkpoint,
                metadata=cast("CheckpointMetadata", state.metadata),
                pending_writes=[(w.task_id, w.channel, w.value) for w in everything],
            ),
            state.writes,
            new_versions,
            tuple(changes),
        )

    def _number(self, revision: str, state: State) -> int:
        """Return the number of revisions up to this revision."""
        if not revision:
            return 0
        if revision not in self._revisions:
            raise StateUpgradeError(
                f"A checkpoint has the revision of state {revision!r}, which isn't among the"
                f" {len(self._names)} given, {self._names[0]!r} to {self.newest!r}"
                f" (thread_id={state.thread_id!r}, checkpoint_ns={state.checkpoint_ns!r},"
                f" checkpoint_id={state.checkpoint['id']!r}). A later deploy has written it: use"
                " the revisions of that deploy."
            )
        return self._names.index(revision) + 1

    def _name_versions(
        self, serde: SerializerProtocol, state: State, before: _Contents, after: _Contents
    ) -> dict[str, str]:
        """Give the changed channels versions of their own.

        The digest is that of the value, so that checkpoints which share a value share its version.
        If the serializer encrypts, it is that of the checkpoint: it reveals nothing of the value.
        """
        versions = cast("dict[str, Any]", state.checkpoint["channel_versions"])
        if not all(type(version) is str for version in versions.values()):
            raise StateUpgradeError(
                "The versions of a checkpoint's channels aren't text, as this saver makes them"
                f" (thread_id={state.thread_id!r}, checkpoint_id={state.checkpoint['id']!r})."
                " Its state can't be upgraded; give the thread no revisions."
            )
        latest = max(versions.values(), default=f"{1:032}.0")
        named: dict[str, str] = {}
        for channel in after:
            if before.get(channel) != after[channel]:
                parts = [after[channel].digest or b""]
                if not codec.has_plain_output(serde):
                    parts = [state.checkpoint["id"].encode(), self.newest.encode()]
                digest = hashlib.blake2b(b" ".join(parts), digest_size=8).hexdigest()
                start = versions.get(channel, latest).partition(VERSION_MARK)[0]
                if "." not in start:  # the next version is made of the number before it
                    start += "."
                named[channel] = f"{start}{VERSION_MARK}{digest}"
        for seen in state.checkpoint["versions_seen"].values():
            for channel, version in seen.items():
                if channel in named and version == versions.get(channel):
                    seen[channel] = named[channel]
        versions.update(named)
        return named


class _Content(NamedTuple):
    """The content of a channel at a checkpoint."""

    version: Any
    digest: bytes | None
    """Of the value; None without a value."""


_Contents: TypeAlias = "dict[str, _Content]"


def _contents(serde: SerializerProtocol, checkpoint: Checkpoint) -> _Contents:
    values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
    return {
        channel: _Content(
            versions.get(channel), _digest(serde, values[channel]) if channel in values else None
        )
        for channel in sorted({*values, *versions})
    }


def _digest(serde: SerializerProtocol, value: Any) -> bytes:
    kind, data = codec.dump_plain(serde, value)
    return hashlib.blake2b(kind.encode() + b" " + data, digest_size=16).digest()


def _copied(checkpoint: Checkpoint) -> Checkpoint:
    """Copy a checkpoint, except the values, which were read for this reader."""
    copied = cast("Checkpoint", dict(checkpoint))
    copied["channel_values"] = dict(checkpoint["channel_values"])
    copied["channel_versions"] = dict(checkpoint.get("channel_versions") or {})
    seen = checkpoint.get("versions_seen") or {}
    copied["versions_seen"] = {node: dict(versions) for node, versions in seen.items()}
    return copied


def _without_values(checkpoint: Checkpoint) -> Checkpoint:
    empty: dict[str, Any] = {"channel_values": {}, "channel_versions": {}, "versions_seen": {}}
    return cast("Checkpoint", {**checkpoint, **empty, "updated_channels": None})


def _differences(
    loaded: CheckpointTuple, state: State, before: _Contents, after: _Contents
) -> Iterator[str]:
    """Yield the changes of channels and metadata, without a value."""
    missing = _Content(None, None)
    old_values, new_values = loaded.checkpoint["channel_values"], state.values
    for channel in sorted({*before, *after}):
        one, other = before.get(channel, missing), after.get(channel, missing)
        old, new = _typed(channel, old_values), _typed(channel, new_values)
        if channel not in after or (one.digest and not other.digest):
            yield f"- {old}"
        elif channel not in before or (other.digest and not one.digest):
            yield f"+ {new}"
        elif one != other:
            yield f"~ {new}"
    old_entries, new_entries = cast("dict[str, Any]", loaded.metadata), state.metadata
    for name in sorted({*old_entries, *new_entries}):
        if name not in new_entries:
            yield f"- metadata: {name}"
        elif name not in old_entries:
            yield f"+ metadata: {name}"
        elif [old_entries[name]] != [new_entries[name]]:  # a NaN equals itself inside a list
            yield f"~ metadata: {name}"


def _typed(channel: str, values: Mapping[str, Any]) -> str:
    return f"{channel}: {type(values[channel]).__name__}" if channel in values else channel


def _order(write: StateWrite) -> tuple[str, str, int]:
    return write.task_path, write.task_id, write.idx


class StoredUpgrades:
    """The versions with a mark that are stored with the latest checkpoints.

    LangGraph stores no value of a channel that a step leaves as it was. After an upgrade on read,
    it must be stored all the same, with the first checkpoint that refers to it.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._found: OrderedDict[CheckpointKey, dict[str, str]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, config: RunnableConfig, versions: Mapping[str, Any]) -> None:
        """Remember a stored checkpoint."""
        marked = _marked(versions)
        if not marked and not self._found:
            return
        with self._lock:
            # It may have been stored otherwise before: a rollback or a backup has brought it back.
            self._found.pop(_key_of(config), None)
            if marked:
                self._found[_key_of(config)] = marked
                while len(self._found) > self._limit:
                    self._found.popitem(last=False)

    def with_missing(
        self, config: RunnableConfig, checkpoint: Checkpoint, new_versions: ChannelVersions
    ) -> ChannelVersions:
        """Return the new versions of a checkpoint, and those that its parent hasn't stored."""
        marked = _marked(checkpoint["channel_versions"])
        if not marked:
            return new_versions
        with self._lock:
            there = self._found.get(_key_of(config), {})
        values = checkpoint["channel_values"]
        missing = {
            channel: version
            for channel, version in marked.items()
            if channel in values and there.get(channel) != version
        }
        return {**missing, **new_versions}


def _key_of(config: RunnableConfig) -> CheckpointKey:
    thread_id, checkpoint_ns, checkpoint_id = codec.address(config)
    return thread_id, checkpoint_ns, checkpoint_id or ""


def _marked(versions: Mapping[str, Any]) -> dict[str, str]:
    return {
        channel: version
        for channel, version in versions.items()
        if type(version) is str and VERSION_MARK in version
    }


# Rewriting


def steps(
    serde: SerializerProtocol,
    thread_ids: Sequence[str] | None,
    upgrades: Upgrades,
    *,
    dry_run: bool,
    report: StateReport,
) -> Steps[int]:
    """Yield the steps that store checkpoints in the newest shape; return their number.

    Each step is for a transaction of about 4 MB; each checkpoint is changed as a whole.
    """

    def of_thread(thread_id: str) -> Steps[int]:
        total = 0
        keys = yield partial(behind, newest=upgrades.newest, thread_id=thread_id)
        while keys:
            count, diffs = yield partial(
                _upgrade_some, serde=serde, keys=keys, upgrades=upgrades, dry_run=dry_run
            )
            keys = keys[count:]
            total += len(diffs)
            for diff in diffs:
                report(diff)
        return total

    return threads.for_each(thread_ids, of_thread, 0)


def behind(
    connection: Connection, newest: str, thread_id: str, checkpoint_ns: str | None = None
) -> list[CheckpointKey]:
    """List the checkpoints that aren't in the newest shape, or have such writes: two statements.

    Args:
        connection: The connection.
        newest: The name of the newest revision.
        thread_id: The thread.
        checkpoint_ns: The namespace; None means all.
    """
    is_one = checkpoint_ns is not None
    wanted = {"thread_id": thread_id} | ({"checkpoint_ns": checkpoint_ns} if is_one else {})
    found = connection.execute(sql.revisions(namespace=is_one), wanted)
    keys = {row[:2] for row in found if loads_or_none(row.revision) != newest}
    found = connection.execute(sql.task_paths(namespace=is_one), wanted)
    keys.update(row[:2] for row in found if row.task_path.partition(REVISION_MARK)[2] != newest)
    return [(thread_id, *key) for key in sorted(keys)]


def _upgrade_some(
    connection: Connection,
    serde: SerializerProtocol,
    keys: Sequence[CheckpointKey],
    upgrades: Upgrades,
    *,
    dry_run: bool,
) -> tuple[int, list[StateDiff]]:
    """Upgrade the first of some checkpoints, up to about 4 MB.

    Returns the number of checkpoints that were looked at, and the changes of the upgraded.
    """
    diffs: list[StateDiff] = []
    size = done = 0
    keys = keys[:_BATCH_CHECKPOINTS]
    if not dry_run:
        _lock(connection, keys)
    for key in keys:
        done += 1
        stored = reading.get(connection, *key, read_deltas=True)
        # A child of LangGraph before version 4 has its sends with its parent: `get` upgrades it.
        if stored is None or stored.sends:
            continue
        upgraded = waiting.offload(connection, _upgraded, serde, stored, upgrades)
        if upgraded is None:
            continue
        if not dry_run:
            _store(connection, serde, stored, upgraded, upgrades)
            _check_stored(connection, serde, key, upgraded, upgrades)
        diffs.append(StateDiff(*key, upgraded.changes))
        size += size_of(stored)
        if size >= _BATCH_BYTES:
            break
    return done, diffs


def _lock(connection: Connection, keys: Sequence[CheckpointKey]) -> None:
    """Lock checkpoints and their writes.

    All of a transaction are locked before its first read: in REPEATABLE READ, the default of MySQL,
    that read decides what the others see.
    """
    for key in keys:
        wanted = dict(zip(("thread_id", "checkpoint_ns", "checkpoint_id"), key, strict=True))
        connection.execute(sql.LOCK_CHECKPOINT, wanted).all()
        connection.execute(sql.LOCK_WRITES, wanted).all()


def _upgraded(serde: SerializerProtocol, stored: Stored, upgrades: Upgrades) -> Upgraded | None:
    return upgrades.upgrade(serde, stored, codec.load_checkpoint(serde, stored))


def _store(
    connection: Connection,
    serde: SerializerProtocol,
    stored: Stored,
    upgraded: Upgraded,
    upgrades: Upgrades,
) -> None:
    """Store a checkpoint in the newest shape, in place; values of other checkpoints stay."""
    key, newest = stored.key, upgrades.newest
    if stored.revision != newest:
        loaded = upgraded.loaded
        rows = codec.checkpoint_rows(
            serde,
            (*key[:2], stored.parent_id),
            cast("Checkpoint", {**loaded.checkpoint, REVISION_KEY: newest}),
            cast("dict[str, Any]", loaded.metadata),
            cast("dict[str, Any]", upgraded.new_versions),
        )
        execute(connection, writing.put(connection.dialect, rows))
    names = ("key_thread_id", "key_checkpoint_ns", "key_checkpoint_id")
    gone = [
        {**dict(zip(names, key, strict=True)), "key_task_id": row.task_id, "key_idx": row.idx}
        for row in stored.writes
        if row.revision != newest
    ]
    if gone:
        connection.execute(sql.DELETE_WRITE, gone)
    made = [
        codec.write_row(
            serde,
            codec.task_columns(key, write.task_id, write.task_path, newest),
            write.idx,
            write.channel,
            write.value,
        )
        for write in upgraded.writes
    ]
    _check_writes(serde, key, upgraded.writes)
    if made:  # a write that a task has stored meanwhile under its new id stays
        made.sort(key=lambda row: (row["task_id"], row["idx"]))
        execute(connection, [Statement(writing_sql.PUT_WRITES, made)])


def _check_writes(
    serde: SerializerProtocol, key: CheckpointKey, writes: Sequence[StateWrite]
) -> None:
    """Check that each write has a place of its own, and a value that reads back.

    Raises:
        CorruptDataError: A write has not.
    """
    reason: str | None = None
    if len({(write.task_id, write.idx) for write in writes}) < len(writes):
        reason = "two writes have one task_id and idx"
    for write in writes:
        if not _is_same(serde, write.value, codec.read_back(serde, write.value)):
            kind = type(write.value).__name__
            reason = f"the value of a write to channel {write.channel!r}, {kind}, differs"
    if reason is not None:
        raise _corrupt(key, reason)


def _corrupt(key: CheckpointKey, reason: str) -> CorruptDataError:
    return CorruptDataError(
        f"A state doesn't read back as its revisions have made it: {reason}. Does the"
        f" serializer keep its type? It stays as it was (thread_id={key[0]!r},"
        f" checkpoint_ns={key[1]!r}, checkpoint_id={key[2]!r})."
    )


def _check_stored(
    connection: Connection,
    serde: SerializerProtocol,
    key: CheckpointKey,
    upgraded: Upgraded,
    upgrades: Upgrades,
) -> None:
    """Read a checkpoint back.

    Raises:
        CorruptDataError: It differs; the transaction ends, and the checkpoint stays as it was.
    """
    stored = reading.get(connection, *key, read_deltas=True)
    difference: str | None = "the checkpoint is gone"
    if stored is not None and upgrades.is_newest(stored):
        loaded = codec.load_checkpoint(serde, stored)
        difference = waiting.offload(connection, _difference, serde, upgraded.loaded, loaded)
    if difference is not None:
        raise _corrupt(key, difference)


def _difference(
    serde: SerializerProtocol, expected: CheckpointTuple, found: CheckpointTuple
) -> str | None:
    """Name the first part of two checkpoints that differs; None if none does."""
    ours, theirs = expected.checkpoint, found.checkpoint
    pairs = [
        ("the channels", sorted(ours["channel_values"]), sorted(theirs["channel_values"])),
        ("the versions", ours["channel_versions"], theirs["channel_versions"]),
        ("the versions seen", ours["versions_seen"], theirs["versions_seen"]),
        ("the metadata", expected.metadata, found.metadata),
    ]
    for name, one, other in pairs:
        if not _is_same(serde, one, other):
            return f"{name} differ"
    for channel, value in ours["channel_values"].items():
        if not _is_same(serde, value, theirs["channel_values"][channel]):
            return f"the value of channel {channel!r}, {type(value).__name__}, differs"
    left = {write[:2] for write in expected.pending_writes or ()}
    # Their values may be those of a task that has ended meanwhile; see `_check_writes`.
    there = {write[:2] for write in found.pending_writes or ()}
    return None if left <= there else "writes are missing"


def _is_same(serde: SerializerProtocol, one: Any, other: Any) -> bool:
    """Whether two values are serialized alike, or are equal, as sets in another order are."""
    if type(one) is not type(other):
        return False
    if _digest(serde, one) == _digest(serde, other):
        return True
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - the comparison is the value's own
        return False
