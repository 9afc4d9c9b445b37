"""Times in UTC; the time of a checkpoint, from its document or its id."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from checkpoint_sa.rows import AnyRow

_GREGORIAN = datetime(1582, 10, 15, tzinfo=timezone.utc)
_UUID6 = 6


def in_utc(time: datetime) -> datetime:
    """Return a time in UTC, read as UTC if it has no zone."""
    return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)


def is_older(row: AnyRow, than: datetime) -> bool:
    """Whether a checkpoint was made before a time; False if neither `ts` nor its id has a time."""
    time = time_of(row)
    return time is not None and time < than


def time_of(row: AnyRow) -> datetime | None:
    """Return the time of a checkpoint: its `ts`, or the time in its id if it has no `ts`."""
    if row.ts is None or row.ts == "null":
        return time_of_id(row.checkpoint_id)
    return time_of_ts(json.loads(row.ts))


def time_of_ts(stamp: Any) -> datetime | None:
    """Return the time in a `ts`, read as UTC if it has no zone; None if it isn't a time."""
    try:
        return in_utc(datetime.fromisoformat(stamp.replace("Z", "+00:00")))
    except (AttributeError, ValueError, OverflowError):
        return None


def time_of_id(checkpoint_id: str) -> datetime | None:
    """Return the time in a UUID of version 6, as RFC 9562 places it; None in any other id."""
    try:
        number = UUID(checkpoint_id)
    except ValueError:
        return None
    if number.version != _UUID6:
        return None
    ticks = number.int >> 80 << 12 | number.int >> 64 & 0xFFF
    return _GREGORIAN + timedelta(microseconds=ticks // 10)
