"""Transient faults: the errors after which a retry of the same operation may work."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any

from sqlalchemy.exc import DBAPIError, OperationalError


class Fault(Enum):
    """The kinds of transient faults: a retry of the same operation may work."""

    LOST = "the connection was lost"
    CONFLICT = "the database ended the transaction in favour of another"
    UNREACHABLE = "the server can't be reached"
    STANDBY = "the server takes no writes: it is a standby, or read-only"


_FAULTS: dict[object, Fault] = {
    # SQLSTATEs: serialization failure, deadlock, lock_timeout
    **dict.fromkeys(("40001", "40P01", "55P03"), Fault.CONFLICT),
    # MySQL's numbers: record changed since the snapshot, lock wait timeout, deadlock; and at COMMIT
    # on a cluster, if another node was first: an error there, rolled back by a plugin
    **dict.fromkeys((1020, 1205, 1213, 1180, 3101), Fault.CONFLICT),
    # backend terminated, server crashed, idle timeouts; connection exceptions
    **dict.fromkeys(("57P01", "57P02", "57P05", "25P03"), Fault.LOST),
    **dict.fromkeys(("08000", "08003", "08006", "08007", "08P01"), Fault.LOST),
    # shutdown, a packet that didn't arrive, interrupted (MySQL's answer to KILL and KILL QUERY
    # alike, not to a time limit), killed, gone away, lost, idle timeout
    **dict.fromkeys((1053, 1158, 1317, 1927, 2006, 2013, 2055, 4031), Fault.LOST),
    # starting up or shutting down, too many connections, can't connect; a node of Galera's without
    # the others, a proxy without a server, a member that leaves Group Replication during a commit
    # (a plugin's error before it), or has left (offline mode)
    **dict.fromkeys(("57P03", "53300", "08001", "08004"), Fault.UNREACHABLE),
    **dict.fromkeys((1040, 1203, 2002, 2003, 1047, 1429, 3100, 3032), Fault.UNREACHABLE),
    # read-only transaction; --read-only, --super-read-only (and other options, which don't concern
    # our statements), InnoDB is read-only
    **dict.fromkeys(("25006", 1290, 1836), Fault.STANDBY),
}

ELSEWHERE = (Fault.UNREACHABLE, Fault.STANDBY)
"""Faults of a server; the same address may lead to another server."""


_READ_ONLY_TRANSACTION = 1792
"""MySQL's number. It is no fault of the server: a retry would fail again."""

_READ_ONLY_FILE = "attempt to write a readonly database"
"""SQLite's message; Python 3.10 has no code for it."""


def refuses_writes(error: DBAPIError) -> bool:
    """Whether a statement failed since its server, transaction or SQLite file is read-only."""
    return (
        classify_error(error) is Fault.STANDBY
        or error_code(error) == _READ_ONLY_TRANSACTION
        or str(error.orig) == _READ_ONLY_FILE
    )


def error_code(error: Exception) -> object:
    """Return a SQLSTATE, or MySQL's number, or the name of the error's class."""
    original: Any = getattr(error, "orig", None) or error
    state = getattr(original, "sqlstate", None)
    number = original.args[0] if original.args else None
    return state or (number if isinstance(number, int) else type(original).__name__)


def classify_error(error: Exception) -> Fault | None:
    """Return the kind of a transient fault; None for any other error."""
    if known := _FAULTS.get(error_code(error)):
        return known
    if _found_no_primary(error):
        return Fault.STANDBY
    if not isinstance(error, DBAPIError):
        # asyncpg raises these when it connects, and the operating system does through it
        return Fault.UNREACHABLE if isinstance(error, OSError | asyncio.TimeoutError) else None
    if error.connection_invalidated:
        return Fault.LOST
    # psycopg gives no SQLSTATE when it can't connect. SQLite has waited already.
    is_bare = isinstance(error, OperationalError) and isinstance(error_code(error), str)
    if is_bare and error.statement is None and getattr(error.orig, "sqlstate", "") is None:
        return Fault.UNREACHABLE
    return None


def _found_no_primary(error: Exception) -> bool:
    """Whether asyncpg found no server with the URL's `target_session_attrs`.

    SQLAlchemy 2.1 wraps that error, 2.0 doesn't.
    """
    original = getattr(error, "orig", None) or error
    return type(original.__cause__ or original).__name__ == "TargetServerAttributeNotMatched"
