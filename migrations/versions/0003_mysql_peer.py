"""Convert the tables of langgraph-checkpoint-mysql.

Why: on MySQL and MariaDB our tables have the same names as those of langgraph-checkpoint-mysql, and
other keys. Its ids are compared without case and accents, and its keys have a hash instead of the
namespace. Our ids are compared by their bytes, and our keys have the namespace itself. Tables of
any of its schema versions are converted; its ledger then has all of its versions. Other tables stay
as they are.

Locks: none on other engines, and none on tables that checkpoint_sa made. The server copies each
table of langgraph-checkpoint-mysql once: writers to the table wait until the copy ends, readers
continue. Stop the package's writers before: they can't write to the converted tables, which have no
`checkpoint_ns_hash`.

Downgrade: changes nothing; the tables are not converted back.

Revision ID: checkpoint_sa_0003
Revises: checkpoint_sa_0002
Create Date: 2026-11-21
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "checkpoint_sa_0003"
down_revision = "checkpoint_sa_0002"
branch_labels = None
depends_on = None

PEER_VERSION = 21
"""The last schema version of langgraph-checkpoint-mysql, from 0."""

RUN_ID_BYTES = 255
BATCH = 1000


class _Key(NamedTuple):
    """A column: its size in bytes (0 for MEDIUMBLOB), and the SQL after its type."""

    size: int
    more: str = "NOT NULL"

    @property
    def type(self) -> str:
        return f"VARBINARY({self.size})" if self.size else "MEDIUMBLOB"


_NAMESPACE = _Key(2000, "NOT NULL DEFAULT ''")

KEYS = {
    "checkpoints": {
        "thread_id": _Key(512),
        "checkpoint_ns": _NAMESPACE,
        "checkpoint_id": _Key(128),
        "parent_checkpoint_id": _Key(128, "NULL"),
        "type": _Key(255, "NULL"),
    },
    "checkpoint_blobs": {
        "thread_id": _Key(512),
        "checkpoint_ns": _NAMESPACE,
        "channel": _Key(400),
        "version": _Key(128),
        "type": _Key(255),
    },
    "checkpoint_writes": {
        "thread_id": _Key(512),
        "checkpoint_ns": _NAMESPACE,
        "checkpoint_id": _Key(128),
        "task_id": _Key(255),
        "channel": _Key(400),
        "type": _Key(255, "NULL"),
        "task_path": _Key(0),
    },
}
PRIMARY_KEYS = {
    "checkpoints": "thread_id, checkpoint_ns, checkpoint_id",
    "checkpoint_blobs": "thread_id, checkpoint_ns, channel, version",
    "checkpoint_writes": "thread_id, checkpoint_ns, checkpoint_id, task_id, idx",
}
UNUSED_INDEXES = {
    "checkpoints_thread_id_idx",
    "checkpoints_checkpoint_id_idx",
    "checkpoint_blobs_thread_id_idx",
    "checkpoint_writes_thread_id_idx",
}


def upgrade() -> None:
    """Convert each table that still has text keys, completely or not at all."""
    migration = op.get_context()
    if migration.dialect.name not in ("mysql", "mariadb") or migration.as_sql:
        return
    schema = migration.opts.get("checkpoint_sa_schema")
    texts = {table: _text_columns(table, schema) for table in KEYS}
    for table, columns in texts.items():
        _refuse_long(table, columns, schema)
    for table, columns in texts.items():
        if columns:
            _convert(table, columns, schema)
    _fill_runs(schema)
    _complete_ledger(schema)


class _Text(NamedTuple):
    """A text column that is to become binary."""

    characters: int
    charset: str


def _text_columns(table: str, schema: str | None) -> dict[str, _Text]:
    """Return the key columns that are text; a table that we made or converted has none."""
    found = op.get_bind().execute(
        sa.text(
            "SELECT column_name, character_maximum_length, character_set_name"
            " FROM information_schema.columns WHERE table_name = :table"
            " AND table_schema = coalesce(:schema, database()) AND character_set_name IS NOT NULL"
        ),
        {"table": table, "schema": schema},
    )
    return {name: _Text(size, charset) for name, size, charset in found if name in KEYS[table]}


def _place(table: str, schema: str | None) -> str:
    preparer = op.get_context().dialect.identifier_preparer
    return preparer.format_table(sa.table(table, schema=schema))


def _refuse_long(table: str, columns: dict[str, _Text], schema: str | None) -> None:
    limits = {name: key.size for name, key in KEYS[table].items() if name in columns and key.size}
    if not limits:
        return
    sizes = ", ".join(f"max(length(convert(`{name}` USING utf8mb4)))" for name in limits)
    found = op.get_bind().execute(sa.text(f"SELECT {sizes} FROM {_place(table, schema)}")).one()  # noqa: S608
    for size, (name, limit) in zip(found, limits.items(), strict=True):
        if (size or 0) > limit:
            raise CommandError(
                f"{table} has a {name} of {size} bytes of UTF-8, of which checkpoint_sa takes at"
                f" most {limit}. Delete those rows (they are no ids of LangGraph's own), and try"
                " again."
            )


def _convert(table: str, columns: dict[str, _Text], schema: str | None) -> None:
    # VARBINARY keeps the bytes as they are: the text must be UTF-8 before the change.
    foreign = {n: c for n, c in columns.items() if not c.charset.startswith(("utf8", "ascii"))}
    if foreign:
        _alter(
            table,
            [
                f"MODIFY `{name}` VARCHAR({text.characters}) CHARACTER SET utf8mb4"
                f" {KEYS[table][name].more}"
                for name, text in foreign.items()
            ],
            schema,
        )
    inspector = sa.inspect(op.get_bind())
    changes = [f"MODIFY `{name}` {key.type} {key.more}" for name, key in KEYS[table].items()]
    if table == "checkpoints":
        changes.append("MODIFY metadata JSON NOT NULL")
    changes += ["DROP PRIMARY KEY", f"ADD PRIMARY KEY ({PRIMARY_KEYS[table]})"]
    names = {column["name"] for column in inspector.get_columns(table, schema=schema)}
    if "checkpoint_ns_hash" in names:
        changes.append("DROP COLUMN checkpoint_ns_hash")
    changes += [
        f"DROP INDEX {index['name']}"
        for index in inspector.get_indexes(table, schema=schema)
        if index["name"] in UNUSED_INDEXES
    ]
    _alter(table, changes, schema)


def _alter(table: str, changes: list[str], schema: str | None) -> None:
    op.execute(f"ALTER TABLE {_place(table, schema)} {', '.join(changes)}")


def _fill_runs(schema: str | None) -> None:
    """Fill `run_id` in the rows of langgraph-checkpoint-mysql; '' for rows without a run."""
    bind = op.get_bind()
    rows = sa.table(
        "checkpoints",
        *map(sa.column, ("thread_id", "checkpoint_ns", "checkpoint_id", "run_id")),
        schema=schema,
    )
    key = (rows.c.thread_id, rows.c.checkpoint_ns, rows.c.checkpoint_id)
    run: sa.ColumnElement[Any] = sa.literal_column("json_extract(metadata, '$.run_id')")
    kind = sa.func.json_type(run)
    value = sa.case((kind.in_(["STRING", "INTEGER"]), sa.func.json_unquote(run)))
    unfilled = sa.select(*key, value.label("run")).where(rows.c.run_id.is_(None)).limit(BATCH)
    fill = (
        sa.update(rows)
        .where(*(column == sa.bindparam(f"key_{n}") for n, column in enumerate(key)))
        .values(run_id=sa.bindparam("run"))
    )
    while batch := bind.execute(unfilled).all():
        bind.execute(
            fill,
            [
                {"key_0": row[0], "key_1": row[1], "key_2": row[2], "run": _indexed(row.run)}
                for row in batch
            ],
        )


def _indexed(run: Any) -> bytes:
    if run is None:
        return b""
    text = run.decode() if isinstance(run, bytes) else str(run)
    raw = text.encode()
    if 0 < len(raw) <= RUN_ID_BYTES and text.isprintable():
        return raw
    return f"sha256:{hashlib.sha256(raw).hexdigest()}".encode()


def _complete_ledger(schema: str | None) -> None:
    """Complete the ledger, so that setup() of langgraph-checkpoint-mysql changes nothing back."""
    bind = op.get_bind()
    if not sa.inspect(bind).has_table("checkpoint_migrations", schema=schema):
        return
    ledger = sa.table("checkpoint_migrations", sa.column("v", sa.Integer), schema=schema)
    found = bind.scalar(sa.select(sa.func.max(ledger.c.v)))
    for version in range(-1 if found is None else found, PEER_VERSION):
        bind.execute(ledger.insert().values(v=version + 1))


def downgrade() -> None:
    """Leave everything as it is."""
