"""Waiting and working without holding up an event loop."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from sqlalchemy.util import await_only

from checkpoint_sa.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

P = ParamSpec("P")
T = TypeVar("T")


def pause(owner: Engine | Connection, seconds: float) -> None:
    """Sleep, and let the event loop of an async driver go on meanwhile."""
    if owner.dialect.is_async:
        await_only(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def offload(
    connection: Connection, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run long CPU work; with an async driver in a thread, beside the event loop."""
    if connection.dialect.is_async:
        return await_only(asyncio.to_thread(function, *args, **kwargs))
    return function(*args, **kwargs)


def lock_timeout(seconds: float, holder: str) -> SchemaError:
    """Return the error of a session that waited in vain for the right to migrate."""
    return SchemaError(
        f"Another session has held the right to migrate this database for {seconds:g} seconds:"
        f" {holder or 'it has just ended'}. Wait until it is done, or end it, and try again."
    )
