"""Import threads from the databases of LangGraph's own savers.

Each row is converted into rows of this package without deserializing a value: documents are split
as bytes (`msgpack.py`), so no stored code runs. All rows of a thread are converted once before the
first is stored. Then the thread is stored as `copy` stores it (`copying.py`).
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import ormsgpack
from langgraph.checkpoint.serde.types import TASKS
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from checkpoint_sa import codec, models
from checkpoint_sa.aio import AsyncSQLAlchemySaver
from checkpoint_sa.encryption import AESGCMSerializer
from checkpoint_sa.engine import engines, transactions
from checkpoint_sa.errors import (
    ConfigurationError,
    CorruptDataError,
    InvalidInputError,
    TransferError,
)
from checkpoint_sa.moving import copying, msgpack, sources, stored
from checkpoint_sa.rows import BLOB_KEY, TASK_KEY
from checkpoint_sa.sql import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import Checkpoint
    from sqlalchemy import RowMapping, Table
    from sqlalchemy.engine import URL

    from checkpoint_sa.database import Database
    from checkpoint_sa.moving.copying import CopySummary, Rows
    from checkpoint_sa.rows import CheckpointRows
    from checkpoint_sa.saver import SQLAlchemySaver

T = TypeVar("T")

_COLUMNS = {
    table: [tables.DOCUMENTS.get(column.name, column.name) for column in table.columns]
    for table in tables.TABLES
}

_NO_SENDS = ormsgpack.packb([])

_KEY = (*TASK_KEY, "idx", "channel", "version")
"""The columns that identify a row in an error; a table has some of them."""


def import_from(  # noqa: PLR0913 - an argument for each choice
    source: Engine | URL | str,
    target: SQLAlchemySaver,
    *,
    schema: str | None = None,
    threads: Iterable[str] | None = None,
    dry_run: bool = False,
    progress: Callable[[str], object] | None = None,
) -> CopySummary:
    """Copy threads from the database of one of LangGraph's own savers into a database of ours.

    The source is a database of langgraph-checkpoint-sqlite, langgraph-checkpoint-postgres or
    langgraph-checkpoint-mysql, recognised by its tables. It is only read, and may be in use. A
    second call, after an interruption or later, copies the missing rows. Values keep their bytes,
    and no serializer reads them.

    Args:
        source: The other saver's database.
        target: A saver on the target database; `setup()` has made its tables.
        schema: The schema of the source's tables.
        threads: Ids of threads; all by default.
        dry_run: Whether to read, compare and count only.
        progress: Called with the id of each thread after it is stored.

    Raises:
        SchemaError: The source isn't a database of one of these savers, or the target's tables
            aren't those of this release.
        ThreadExistsError: A thread has other content in the target. Nothing of it was changed.
        CorruptDataError: A row has a content that the saver doesn't write; the message names the
            row. No row of its thread was stored; the threads before it were.
        InvalidInputError: A row has an id that can't be stored. No row of its thread was stored.
        TransferError: The source has no such thread, a row can't be read (SqliteSaver encrypted it)
            or can't be stored, or the target's rows differ from the source's at the end.
        ValueTooLargeError: The target's server refuses a value for its size.
        ConfigurationError: The source or the saver is async, or isn't one; or the saver would
            refuse values that aren't encrypted.
    """
    if isinstance(target, AsyncSQLAlchemySaver) or not _is_sync(source):
        raise ConfigurationError(
            "import_from() takes a sync source and saver. Use `await aimport_from(...)`."
        )
    copying.database_of(target, "import_from")
    return import_threads(
        source, target, schema=schema, threads=threads, dry_run=dry_run, progress=progress
    )


async def aimport_from(  # noqa: PLR0913
    source: AsyncEngine | Engine | URL | str,
    target: AsyncSQLAlchemySaver | SQLAlchemySaver,
    *,
    schema: str | None = None,
    threads: Iterable[str] | None = None,
    dry_run: bool = False,
    progress: Callable[[str], object] | None = None,
) -> CopySummary:
    """Import as `import_from` does; a sync source or saver blocks the event loop."""
    copying.database_of(target, "aimport_from")
    return await greenlet_spawn(
        partial(
            import_threads,
            source,
            target,
            schema=schema,
            threads=threads,
            dry_run=dry_run,
            progress=progress,
        )
    )


def _is_sync(source: AsyncEngine | Engine | URL | str) -> bool:
    if isinstance(source, AsyncEngine | Engine):
        return isinstance(source, Engine)
    return not engines.is_async(source)


def import_threads(  # noqa: PLR0913
    source: AsyncEngine | Engine | URL | str,
    target: AsyncSQLAlchemySaver | SQLAlchemySaver,
    *,
    schema: str | None,
    threads: Iterable[str] | None,
    dry_run: bool,
    progress: Callable[[str], object] | None,
) -> CopySummary:
    """Import threads; an async engine works in a greenlet of SQLAlchemy's."""
    serde = target.serde
    if isinstance(serde, AESGCMSerializer) and not serde.allow_plain:
        raise ConfigurationError(
            "The values of the source aren't encrypted by AESGCMSerializer, and this saver would"
            " refuse to read them. Import with another saver, or with allow_plain=True."
        )
    with opened(source) as engine:

        def imported(thread_id: str) -> CopySummary | None:
            with transactions.snapshot(engine) as connection:
                return _import(
                    sources.Peer(connection, schema), target.database, thread_id, dry_run=dry_run
                )

        return copying.copy_threads(imported, threads, _threads(engine, schema), progress)


@contextmanager
def opened(source: AsyncEngine | Engine | URL | str) -> Iterator[Engine]:
    """Open a source for reading; an engine stays the caller's."""
    if isinstance(source, AsyncEngine):
        yield source.sync_engine
    elif isinstance(source, Engine):
        yield source
    else:
        url = engines.read_only(engines.url_of(source))
        is_async = engines.is_async(url)
        made = engines.make_async_engine(url).sync_engine if is_async else engines.make_engine(url)
        try:
            yield made
        finally:
            made.dispose()


def _threads(engine: Engine, schema: str | None) -> Iterator[str]:
    after = None
    while True:
        with transactions.snapshot(engine) as connection:
            page, after = sources.Peer(connection, schema).threads(after)
        yield from page
        if after is None:
            return


def _import(
    peer: sources.Peer, target: Database, thread_id: str, *, dry_run: bool
) -> CopySummary | None:
    """Import a thread; return None if the source doesn't have it."""
    if next(peer.checkpoints(thread_id), None) is None:
        return None
    return copying.store_thread(
        lambda: _pages(_rows(peer, thread_id)),
        target,
        thread_id,
        name="import",
        dry_run=dry_run,
        validate_first=True,
    )


def _pages(rows: Iterable[tuple[Table, dict[str, Any]]]) -> Iterator[Rows]:
    """Group rows of a table into pages, limited in rows and bytes; a page has at least one row."""
    last: Table | None = None
    page: list[dict[str, Any]] = []
    size = 0
    for table, row in rows:
        bytes_ = stored.size_of(row)
        if (
            last is not None
            and page
            and (
                table is not last
                or len(page) == stored.PAGE_ROWS
                or size + bytes_ > stored.PAGE_BYTES
            )
        ):
            yield last, page
            page, size = [], 0
        last = table
        page.append({name: row.get(name) for name in _COLUMNS[table]})
        size += bytes_
    if last is not None and page:
        yield last, page


def _rows(peer: sources.Peer, thread_id: str) -> Iterator[tuple[Table, dict[str, Any]]]:
    """Yield the converted rows of a thread, checkpoints last."""
    values = _Values(has_documents=peer.has_documents)
    for found in peer.checkpoints(thread_id):
        for blob in _convert("checkpoints", found, values.rows_of).blobs:
            if values.is_new(blob):
                yield tables.blobs, blob
    for found in peer.blobs(thread_id):
        blob = _convert("checkpoint_blobs", found, _blob)
        if values.is_new(blob):
            yield tables.blobs, blob
    for found in peer.writes(thread_id):
        yield tables.writes, _convert("writes", found, _write)
    for found in peer.checkpoints(thread_id):
        yield tables.checkpoints, _convert("checkpoints", found, values.rows_of).checkpoint


class _UnsupportedRowError(Exception):
    """Names the part of a row that can't be imported; never leaves this module."""


def _convert(table: str, found: RowMapping, make: Callable[[RowMapping], T]) -> T:
    """Convert a row of the source.

    Raises:
        CorruptDataError: The row has a content that the saver doesn't write.
        InvalidInputError: The row has an id that can't be stored.
        TransferError: The row has a part that can't be imported.
    """
    named = ", ".join(f"{name}={found[name]!r}" for name in _KEY if name in found)
    where = f"Row of the source: {table}: {named}. Nothing of this thread was stored."
    try:
        return make(found)
    except _UnsupportedRowError as error:
        raise TransferError(f"{error} {where}") from None
    except InvalidInputError as error:
        raise InvalidInputError(f"{error} {where}") from None
    except msgpack.MalformedError as error:
        said = str(error)
    except RecursionError:
        said = "it is nested too deeply"
    except (ValueError, TypeError):  # json's and ormsgpack's may quote the value
        said = "a part isn't valid text or JSON"
    raise CorruptDataError(f"LangGraph's saver doesn't write such a row: {said}. {where}")


class _Values:
    """The values in the documents of a thread's checkpoints.

    In this package a version of a channel identifies a single value. A saver of whole documents
    stores a value again with each checkpoint, and the value may have changed under its version: a
    node changed a list in place, or a set came in another order. The first value keeps the version.
    Another value gets a version that sorts directly after it.
    """

    def __init__(self, *, has_documents: bool) -> None:
        self._has_documents = has_documents
        self._first: dict[bytes, bytes] = {}
        self._given: dict[bytes, bytes] = {}

    def is_new(self, blob: dict[str, Any]) -> bool:
        """Whether a value wasn't stored before, and so is to be stored.

        Raises:
            TransferError: Another value was given under its version.
        """
        key = stored.key_digest(tables.blobs, blob)
        digest = stored.digest([blob["type"], blob["blob"] or b""])
        given = self._given.setdefault(key, digest)
        if given != digest:
            raise TransferError(
                "The source has two values for one version of a channel:"
                f" {', '.join(f'{name}={blob[name]!r}' for name in BLOB_KEY)}. The thread"
                " can't be imported; nothing of it was stored."
            )
        return given is digest

    def rows_of(self, found: RowMapping) -> CheckpointRows:
        """Convert a checkpoint into rows."""
        checkpoint = self._checkpoint(found)
        if checkpoint["id"] != found["checkpoint_id"]:
            raise msgpack.MalformedError("its document has another id")
        parent = found["parent_checkpoint_id"] and _text(found, "parent_checkpoint_id")
        place = codec.address(_place(found, parent))
        versions = checkpoint["channel_versions"]
        for channel, value in checkpoint["channel_values"].items():
            if type(value) is not codec.Packed:
                continue
            if channel not in versions:
                raise _UnsupportedRowError(f"The value of channel {channel!r} has no version.")
            self._assign_version(place[1], channel, value, checkpoint)
        return codec.checkpoint_rows(
            codec.AS_PACKED,
            place,
            cast("Checkpoint", checkpoint),
            _dict(json.loads(found["metadata"] or b"{}"), "metadata"),
            versions,
        )

    def _checkpoint(self, found: RowMapping) -> dict[str, Any]:
        """Return a checkpoint; its values are packed unless JSON can hold them."""
        kind = found["type"] if self._has_documents else "json"
        if kind == "msgpack":
            checkpoint = _unpacked(_bytes(found["checkpoint"]))
        elif kind == "json":
            checkpoint = _from_json(found["checkpoint"], is_serialized=self._has_documents)
        elif isinstance(kind, str) and "+" in kind:
            raise _UnsupportedRowError(
                f"A checkpoint is encrypted as a whole ({kind!r}), and can't be taken apart."
            )
        else:
            raise msgpack.MalformedError(f"its type is {kind!r}, expected is msgpack or json")
        for name in ("channel_versions", "versions_seen"):
            checkpoint[name] = _dict(checkpoint.get(name) or {}, name)
        for name in checkpoint["channel_versions"]:
            if not isinstance(name, str):
                raise msgpack.MalformedError("a channel's name isn't text")
        if not isinstance(checkpoint.get("id"), str):
            raise msgpack.MalformedError("its document has no id")
        return checkpoint

    def _assign_version(
        self, namespace: str, channel: str, value: codec.Packed, checkpoint: dict[str, Any]
    ) -> None:
        """Give a value another version if another value has its version."""
        version = checkpoint["channel_versions"][channel]
        key = stored.digest([namespace, channel, str(version)])
        digest = stored.digest([value.kind, value.data])
        if self._first.setdefault(key, digest) == digest:
            return
        if not isinstance(version, str):
            raise _UnsupportedRowError(
                f"Channel {channel!r} has another value under version {version!r} in an earlier"
                " checkpoint."
            )
        other = f"{version}.{digest.hex()[:16]}"
        checkpoint["channel_versions"][channel] = other
        for seen in checkpoint["versions_seen"].values():
            if isinstance(seen, dict) and seen.get(channel) == version:
                seen[channel] = other


def _unpacked(data: bytes) -> dict[str, Any]:
    """Split a MessagePack document; values keep their bytes."""
    fields, values = msgpack.split(data, "channel_values")
    sends = (
        fields.pop("pending_sends") if fields.get("pending_sends", _NO_SENDS) != _NO_SENDS else None
    )
    checkpoint = {name: _plain(part) for name, part in fields.items()}
    checkpoint["channel_values"] = {channel: _value(part) for channel, part in values.items()}
    if sends is not None:
        _add_sends(checkpoint, codec.Packed("msgpack", sends))
    return checkpoint


def _value(part: bytes) -> Any:
    value = msgpack.read(part)
    if isinstance(value, msgpack.Extension):
        is_snapshot = value.code == msgpack.SNAPSHOT
        return codec.Packed("msgpack", part, is_snapshot=is_snapshot)
    if _is_scalar(value) and codec.inlines(value):
        return value
    return codec.Packed("msgpack", part)


def _plain(part: bytes) -> Any:
    """Return plain data.

    Raises:
        _UnsupportedRowError: The data is an object, or contains one.
    """
    try:
        return msgpack.plain(part)
    except msgpack.MalformedError as error:
        raise _UnsupportedRowError(
            "A checkpoint has an object outside of its channel_values."
        ) from error


def _from_json(text: str | bytes, *, is_serialized: bool) -> dict[str, Any]:
    """Split a JSON document.

    Args:
        text: The document.
        is_serialized: Whether LangGraph's serializer wrote it, and would make objects of some of
            its dicts. Otherwise the document has small values only.
    """
    checkpoint = _dict(json.loads(text), "its document")
    values = _dict(checkpoint.pop("channel_values", None) or {}, "channel_values")
    has_sends = is_serialized and bool(checkpoint.get("pending_sends"))
    sends = checkpoint.pop("pending_sends") if has_sends else None
    if is_serialized and '"lc":' in codec.encode_json(checkpoint):
        raise _UnsupportedRowError("A checkpoint has an object outside of its channel_values.")
    checkpoint["channel_values"] = {
        channel: value
        if codec.inlines(value) and _is_scalar(value)
        else _packed(value, is_serialized=is_serialized)
        for channel, value in values.items()
    }
    if has_sends:
        _add_sends(checkpoint, _packed(sends, is_serialized=True))
    return checkpoint


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _packed(value: Any, *, is_serialized: bool) -> codec.Packed:
    if is_serialized:
        return codec.Packed("json", codec.encode_json(value).encode())
    return codec.Packed(*codec.dump(codec.AS_PACKED, value, ()))


def _add_sends(checkpoint: dict[str, Any], sends: codec.Packed) -> None:
    """Store the pending sends as a channel's value, as LangGraph does with such a checkpoint.

    Raises:
        _UnsupportedRowError: The checkpoint's version has the sends in the channel already.
    """
    if (checkpoint.get("v") or 1) >= tables.FIRST_WITHOUT_SENDS:
        raise _UnsupportedRowError(
            "A checkpoint has pending_sends; its version has them in a channel."
        )
    versions = _dict(checkpoint.get("channel_versions") or {}, "channel_versions")
    last = max(versions.values(), default=codec.next_version(None))
    checkpoint["channel_values"][TASKS] = sends
    checkpoint["channel_versions"] = versions | {TASKS: last}


def _place(found: RowMapping, checkpoint_id: str | None) -> RunnableConfig:
    return codec.config_of(
        _text(found, "thread_id"), _text(found, "checkpoint_ns"), checkpoint_id or ""
    )


def _blob(found: RowMapping) -> dict[str, Any]:
    thread, namespace, _ = codec.address(_place(found, None))
    kind = _text(found, "type")
    data = None if kind == "empty" else _checked(kind, found["blob"])
    return codec.blob_row(
        thread, namespace, _text(found, "channel"), _text(found, "version"), (kind, data)
    )


def _write(found: RowMapping) -> dict[str, Any]:
    thread, namespace, checkpoint_id = codec.address(
        _place(found, _text(found, "checkpoint_id")), needs_checkpoint=True
    )
    task = codec.validate_id("task_id", _text(found, "task_id"), models.TASK_ID_BYTES)
    codec.check_key_size(TASK_KEY, thread, namespace, cast("str", checkpoint_id), task)
    kind = _text(found, "type")
    if not isinstance(found["idx"], int):
        raise msgpack.MalformedError("idx isn't an integer")
    return {
        "thread_id": thread,
        "checkpoint_ns": namespace,
        "checkpoint_id": checkpoint_id,
        "task_id": task,
        "idx": found["idx"],
        "channel": codec.validate_id("channel", _text(found, "channel"), models.CHANNEL_BYTES),
        "type": codec.validate_id("type", kind, models.TYPE_BYTES),
        "blob": _checked(kind, found["blob"]),
        "task_path": codec.validate_id("task_path", _text(found, "task_path"), 2**24 - 1),
    }


def _checked(kind: str, value: Any) -> bytes:
    """Return a value's bytes after a check: they match the type, and reading runs no code."""
    data = _bytes(value)
    if kind == "msgpack":
        msgpack.check(data)
    elif kind == "json":
        json.loads(data)
    elif kind.startswith("pickle"):
        raise _UnsupportedRowError("A value is a pickle, which may run any code when it is read.")
    return data


def _dict(value: Any, name: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise msgpack.MalformedError(f"{name} is no map")
    return value


def _text(found: RowMapping, name: str) -> str:
    value = found[name]
    if not isinstance(value, str):
        raise msgpack.MalformedError(f"{name} isn't text")
    return value


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes | bytearray | memoryview):
        raise msgpack.MalformedError("it has no bytes")
    return bytes(value)
