"""The sizes that servers and drivers take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from checkpoint_sa.errors import ValueTooLargeError
from checkpoint_sa.types import MYSQL_FAMILY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection


_LARGE = 4 * 2**20
"""Smaller values fit the defaults of every server and driver."""

_ASYNCMY_BYTES = 2**24 - 1024
"""asyncmy 0.2.18 loses a row of 16 MiB, and then the connection: it reads packets of one part."""

_STATEMENT_BYTES = 8192
"""The bytes of an INSERT besides its values."""


def check_size(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a value that the server would answer by closing the connection.

    Raises:
        ValueTooLargeError: The value doesn't fit into max_allowed_packet (MySQL, MariaDB), or the
            driver asyncmy couldn't read it back.
    """
    if connection.dialect.name not in MYSQL_FAMILY:
        return
    limit = None
    for row in rows:
        parts = [value for value in row.values() if isinstance(value, str | bytes)]
        size = sum(map(len, parts))
        if size < _LARGE:
            continue
        if "channel" in row:
            what = f"The value of channel {row['channel']!r} has {size:,} bytes"
        elif "key_0" in row:
            what = f"Item {row['key_0']!r} has {size:,} bytes"
        else:
            what = f"Checkpoint {row['checkpoint_id']!r} and its metadata have {size:,} bytes"
        if connection.dialect.driver == "asyncmy" and size >= _ASYNCMY_BYTES:
            raise ValueTooLargeError(
                f"{what}; the driver asyncmy reads at most {_ASYNCMY_BYTES:,} back."
                f" Use {connection.dialect.name}+aiomysql:// instead."
            )
        if limit is None:
            limit = connection.scalar(text("SELECT @@max_allowed_packet"))
        # These drivers send a byte as one or two characters of text: ask them for the size.
        driver: Any = connection.connection.driver_connection
        sent = sum(len(driver.escape(part)) for part in parts) + _STATEMENT_BYTES
        if sent > (limit or sent):
            raise ValueTooLargeError(
                f"{what}, {sent:,} as a statement; the server takes {limit:,}."
                f" Raise max_allowed_packet on the server to {sent:,} or more."
            )
