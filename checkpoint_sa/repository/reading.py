"""Checkpoints with their values and writes.

One statement reads the checkpoint and its parts; two if the engine can't look into
`channel_versions`. The second statement confirms the first, so READ COMMITTED is enough.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from checkpoint_sa import types
from checkpoint_sa.deltas.chain import VALUE_SUFFIX, WRITE_SUFFIX, Chains, DeltaWrite
from checkpoint_sa.engine.cursors import fetch_all
from checkpoint_sa.errors import CheckpointError
from checkpoint_sa.rows import (
    BLOB,
    DELTA,
    HEAD,
    MAX_TUPLES,
    NOTHING,
    REVISION_MARK,
    SEND,
    WRITE,
    Head,
    Stored,
    WholeValue,
    Write,
    as_bytes,
    chunks,
    loads_or_none,
    versions_of,
)
from checkpoint_sa.sql import reading as sql
from checkpoint_sa.sql import tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from checkpoint_sa.deltas.chain import Base
    from checkpoint_sa.engine.cursors import Rows
    from checkpoint_sa.rows import (
        CheckpointKey,
        Criteria,
        LazyValue,
        TypedValue,
        Values,
    )


_ATTEMPTS = 10

_ATTEMPTS_AT_CHAINS = 2
"""Attempts at reading chains: a row may be deleted or rewritten between two statements.

A row that the last attempt lacks is missing for good.
"""


def get(  # noqa: PLR0913 - the checkpoint, and how to read it
    connection: Connection,
    thread_id: str,
    checkpoint_ns: str,
    checkpoint_id: str | None,
    *,
    read_deltas: bool = False,
    cached: Sequence[Base] = (),
) -> Stored | None:
    """Read a checkpoint, or the latest of its namespace: one statement, or two.

    Values in chains cost one statement more, unless `read_deltas` has them read at once. Then the
    rows of cached values aren't read.
    """
    wanted = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    if checkpoint_id is not None:
        wanted["checkpoint_id"] = checkpoint_id
    found = _read(connection, wanted, read_deltas=read_deltas, cached=cached)
    if found is not None and not complete_chains(connection, found.chains):
        # A chain was rewritten meanwhile, or the cache is outdated. A row that the second reading
        # lacks too is missing for good: reading its value raises the error.
        found = _read(connection, wanted, read_deltas=read_deltas, cached=())
        if found is not None:
            complete_chains(connection, found.chains)
    return None if found is None else found.stored()[0]


def _read(
    connection: Connection,
    wanted: Mapping[str, str],
    *,
    read_deltas: bool,
    cached: Sequence[Base],
) -> Assembly | None:
    """Read a checkpoint and its parts, with one statement if that reaches them."""
    excluded = sql.excluding(cached) if read_deltas else {}
    lookup = types.value_lookup(connection.dialect)
    if lookup is not types.ValueLookup.SECOND_STATEMENT:
        statements = sql.GET_ONE if "checkpoint_id" in wanted else sql.GET_LATEST
        found = Assembly(Chains(cached))
        found.take(fetch_all(connection, statements[lookup, read_deltas], {**wanted, **excluded}))
        if not found.heads:
            return None
        if found.has_parts(lookup):
            return found
    statement = sql.GET_HEAD if "checkpoint_id" in wanted else sql.GET_LATEST_HEAD
    for _ in range(_ATTEMPTS):
        rows = fetch_all(connection, statement, wanted)
        if not rows:
            return None
        checkpoint_id, parent_id, document, metadata, type_, exact = rows[0]
        key = (wanted["thread_id"], wanted["checkpoint_ns"], checkpoint_id)
        found = Assembly(Chains(cached))
        found.take([(*key, HEAD, document, parent_id, metadata, 0, type_, exact)])
        if _fetch_parts_of(connection, key, found, excluded, read_deltas=read_deltas):
            return found
        # It was deleted between the two statements: look again.
    raise CheckpointError(
        f"The checkpoint was deleted and stored again {_ATTEMPTS} times while it was being read:"
        f" {wanted!r}. Try again."
    )


def _fetch_parts_of(
    connection: Connection,
    key: CheckpointKey,
    found: Assembly,
    excluded: Mapping[str, Any],
    *,
    read_deltas: bool,
) -> bool:
    """Read the parts of a checkpoint, in one snapshot; return whether it is still stored."""
    thread_id, checkpoint_ns, checkpoint_id = key
    parent_id = found.heads[key].parent_id or ""
    wanted = {
        "thread_id": thread_id,
        "checkpoint_ns": checkpoint_ns,
        "checkpoint_id": checkpoint_id,
        "writes_of": checkpoint_id,
        "sends_of": parent_id if _is_old(found.documents[key]) else "",
        **excluded,
    }
    parent = (thread_id, checkpoint_ns, parent_id)
    versions = list(found.versions[key].items())
    for chunk in chunks(versions, MAX_TUPLES) or [[]]:
        # Only checkpoints that the last statement still sees count.
        found.present.clear()
        rows = _parts(connection, wanted, chunk, chains=read_deltas)
        found.take([(*(parent if row[0] == SEND else key), *row) for row in rows])
        if key not in found.present:
            return False
        wanted |= {"writes_of": "", "sends_of": ""}
    return True


def _parts(
    connection: Connection,
    wanted: Mapping[str, str],
    versions: Sequence[tuple[str, str]],
    *,
    chains: bool,
) -> Rows:
    """Read the parts of a checkpoint with these (channel, version)."""
    if len(versions) > sql.MAX_UNROLLED:
        return fetch_all(
            connection, sql.parts(None, chains=chains), {**wanted, "versions": versions}
        )
    # A statement for each power of two: the last value is looked up again.
    count = 1 << max(0, len(versions) - 1).bit_length()
    padded = [*versions, *[versions[-1] if versions else ("", "")] * (count - len(versions))]
    names = {f"wanted_channel_{i}": channel for i, (channel, _) in enumerate(padded)}
    names |= {f"wanted_version_{i}": version for i, (_, version) in enumerate(padded)}
    return fetch_all(connection, sql.parts(count, chains=chains), {**wanted, **names})


def _is_old(document: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's pending sends are kept with its parent."""
    return (document.get("v") or 1) < tables.FIRST_WITHOUT_SENDS


def page(
    connection: Connection, criteria: Criteria, size: int, last: CheckpointKey | None
) -> tuple[list[Stored], CheckpointKey | None]:
    """Read up to `size` checkpoints, newest first: one statement, or two.

    Returns the checkpoints, and the start of the next page, to be passed as `last`; None after the
    last page.
    """
    lookup = types.value_lookup(connection.dialect)
    thread_id, checkpoint_ns, checkpoint_id, before, filter_json = criteria
    statement = sql.page(
        lookup=lookup,
        thread=thread_id is not None,
        namespace=checkpoint_ns is not None,
        checkpoint=checkpoint_id is not None,
        before=before is not None,
        filtered=filter_json is not None,
        after=last is not None,
        size=size,
    )
    parameters: dict[str, Any] = {
        name: value for name, value in criteria._asdict().items() if value is not None
    }
    if last is not None:
        parameters["after_id"] = last[2]
        if thread_id is None or checkpoint_ns is None:
            parameters |= {"after_thread": last[0], "after_ns": last[1]}
    for _ in range(_ATTEMPTS_AT_CHAINS):
        found = Assembly(Chains())
        found.take(fetch_all(connection, statement, parameters))
        after = found.last if len(found.heads) == size else None
        if not found.has_parts(lookup):
            found.fetch_parts(connection)
        if complete_chains(connection, found.chains):
            break
    return found.stored(), after


def complete_chains(connection: Connection, chains: Chains) -> bool:
    """Read the missing rows of chains; return whether all chains are complete then."""
    statement = sql.GET_DELTAS[types.value_lookup(connection.dialect)]
    for chunk in chunks(chains.missing(), MAX_TUPLES):
        Assembly(chains).take(fetch_all(connection, statement, {"blob_keys": chunk}))
    return not chains.missing()


def metadata_alone(
    key: CheckpointKey, metadata: str, type_: str | None, exact: bytes | None
) -> Stored:
    """Return a checkpoint with its metadata alone."""
    exact = None if exact is None else bytes(exact)
    return Stored(key, None, {}, loads_or_none(metadata) or {}, type_, exact, {}, [], [])


class Assembly:
    """Checkpoints, assembled from their rows and the rows of their parts, in any order."""

    def __init__(self, chains: Chains) -> None:
        self.heads: dict[CheckpointKey, Head] = {}
        self.documents: dict[CheckpointKey, dict[str, Any]] = {}
        self.present: set[CheckpointKey] = set()
        """The checkpoints that the last statement still saw."""
        self.versions: dict[CheckpointKey, dict[str, str]] = {}
        self.blobs: dict[tuple[str, str], Values] = defaultdict(dict)
        """By thread and namespace."""
        self.chains = chains
        self._writes: dict[CheckpointKey, list[Write]] = defaultdict(list)
        self._sends: dict[CheckpointKey, dict[tuple[str, int], Write]] = defaultdict(dict)
        """By task and idx: a statement returns a send once for each fork of the checkpoint."""

    def take(self, rows: Rows) -> None:
        """Take wide rows, see `rows`.

        The key of a row is that of its checkpoint; for a pending send, of the parent that stores
        it. For a value or a delta, the namespace is enough.
        """
        for thread_id, checkpoint_ns, checkpoint_id, kind, *columns in rows:
            key = (thread_id, checkpoint_ns, checkpoint_id)
            if kind == BLOB:
                channel, version, chain, position, type_, data = columns
                data = as_bytes(data)
                value: LazyValue
                if chain is None or position is None:
                    value = WholeValue(data)
                else:
                    type_ = type_.removesuffix(VALUE_SUFFIX)
                    value = self.chains.value((*key[:2], channel, chain), position, version, data)
                self.blobs[key[:2]][channel, version] = type_, value
            elif kind in (WRITE, SEND):
                channel, path, task_id, idx, type_, data = columns
                path, _, revision = path.partition(REVISION_MARK)
                value = WholeValue(as_bytes(data))
                write = Write(path, task_id, idx, channel, type_, value, revision)
                if kind == WRITE:
                    self._writes[key].append(write)
                else:
                    self._sends[key][task_id, idx] = write
            elif kind == DELTA:
                channel, _, chain, position, _, data = columns
                self.chains.add((*key[:2], channel, chain), position, as_bytes(data))
            elif kind == HEAD:
                document, parent_id, metadata, rank, type_, exact = columns
                exact = None if exact is None else bytes(exact)
                self.heads[key] = Head(parent_id or None, metadata, rank, type_, exact)
                self.documents[key] = json.loads(document)
                self.versions[key] = versions_of(self.documents[key])
            else:
                self.present.add(key)

    @property
    def last(self) -> CheckpointKey:
        """The key of the last checkpoint in the order of the statement."""
        return max(self.heads, key=lambda key: self.heads[key].rank)

    def has_parts(self, lookup: types.ValueLookup) -> bool:
        """Whether the statement has read the parts too.

        False if a version is a float: engines write it with another number of digits.
        """
        return lookup is not types.ValueLookup.SECOND_STATEMENT and not any(
            isinstance(version, float)
            for document in self.documents.values()
            for version in (document.get("channel_versions") or {}).values()
        )

    def fetch_parts(self, connection: Connection) -> None:
        """Read the parts with a statement of their own; drop checkpoints deleted meanwhile."""
        keys = list(self.heads)
        blob_keys = dict.fromkeys(
            (*key[:2], *version)
            for key, versions in self.versions.items()
            for version in versions.items()
        )
        send_keys = [
            (*key[:2], head.parent_id)
            for key, head in self.heads.items()
            if head.parent_id and _is_old(self.documents[key])
        ]
        self._writes.clear()  # the first statement may have read some
        self._sends.clear()
        wanted: dict[str, Any] = {"checkpoint_keys": keys, "send_keys": send_keys}
        for chunk in chunks(list(blob_keys), MAX_TUPLES) or [[]]:
            # Only checkpoints that the last statement still sees count.
            self.present.clear()
            wanted |= {"blob_keys": chunk, "present_keys": keys}
            self.take(fetch_all(connection, sql.GET_PARTS, wanted))
            wanted |= {"checkpoint_keys": [], "send_keys": []}
        self.heads = {key: head for key, head in self.heads.items() if key in self.present}

    def _blobs_of(self, key: CheckpointKey) -> dict[str, TypedValue]:
        found = self.blobs[key[:2]]
        versions = self.versions[key].items()
        return {version[0]: found[version] for version in versions if version in found}

    def stored(self) -> list[Stored]:
        """Assemble the checkpoints, in the order of the statement."""
        return [
            Stored(
                key=key,
                parent_id=head.parent_id,
                checkpoint=self.documents[key],
                metadata=json.loads(head.metadata),
                type=head.type,
                exact=head.exact,
                blobs=(blobs := self._blobs_of(key)),
                writes=_in_order(key, self._writes[key], blobs),
                sends=sorted(self._sends[(*key[:2], head.parent_id)].values())
                if head.parent_id and _is_old(self.documents[key])
                else [],
            )
            for key, head in sorted(self.heads.items(), key=lambda item: item[1].rank)
        ]


def _in_order(
    key: CheckpointKey, writes: Iterable[Write], blobs: Mapping[str, TypedValue]
) -> list[Write]:
    """Sort the writes of a checkpoint; writes that are deltas get its values as bases."""
    return sorted(
        write._replace(
            type=write.type.removesuffix(WRITE_SUFFIX),
            blob=DeltaWrite(key, write, blobs.get(write.channel, ("", NOTHING))[1]),
        )
        if (write.type or "").endswith(WRITE_SUFFIX)
        else write
        for write in writes
    )
