"""Dialects of other packages that speak SQLite's SQL."""

from __future__ import annotations

from sqlalchemy.ext.compiler import compiles

from checkpoint_sa import types, upsert

_CONSTRUCTS = (
    upsert.Upsert,
    types.byte_length,
    types.channel_versions,
    types.in_byte_range,
    types.json_text,
    types.locked_in_order,
    types.metadata_contains,
    types.minutes_from_now,
    types.one_of,
    types.peer_run_id,
    types.to_json,
    types.typed,
    types.utc_now,
)


def follow_sqlite(dialect: str) -> None:
    """Give a dialect the rules of SQLite.

    Call it before the first statement. A rule of the dialect's own, by `@compiles`, comes after it.

    Args:
        dialect: The name of the dialect, as `engine.dialect.name` has it.
    """
    for construct in _CONSTRUCTS:
        # SQLAlchemy has no public name for the rules of a construct.
        rules = vars(construct)["_compiler_dispatcher"].specs
        if "sqlite" in rules:
            compiles(construct, dialect)(rules["sqlite"])
    types.VALUE_LOOKUP[dialect] = types.VALUE_LOOKUP["sqlite"]
    upsert.SELECTING.add(dialect)
    upsert.ROWS.add(dialect)
