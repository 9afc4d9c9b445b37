"""Databases without tables, one for each engine, and what the tests of the schema ask of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from sqlalchemy import text
from stores import KINDS, Kind, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Server
    from sqlalchemy import Connection

T = TypeVar("T")

OPERATORS = Path(__file__).parents[1] / "docs" / "operators.md"

SYNC = [name for name, kind in KINDS.items() if not kind.is_async]
"""One kind for each engine, where the driver makes no difference."""


@pytest.fixture(params=list(KINDS))
def bare_store(
    request: pytest.FixtureRequest, start_server: Callable[[str], Server], tmp_path: Path
) -> Iterator[Store]:
    """A store on a database without tables."""
    kind = KINDS[request.param]
    if not kind.server:
        store = Store(kind, f"{kind.driver}:///{tmp_path / 'bare.db'}")
        yield store
        store.close()
        return
    server = start_server(kind.server)
    admin = Store(sync_twin(kind), server.url(sync_twin(kind).driver))
    as_admin(admin, "DROP DATABASE IF EXISTS bare", "CREATE DATABASE bare")
    store = Store(kind, server.url(kind.driver).replace(f"/{server.database}", "/bare"))
    yield store
    store.close()
    as_admin(admin, "DROP DATABASE bare")
    admin.close()


def rights_to_migrate() -> str:
    """Return the rights that the operators' page names for an upgrade on MySQL and MariaDB."""
    lines = OPERATORS.read_text().splitlines()
    row = next(line for line in lines if line.startswith("| MySQL, MariaDB | CREATE"))
    return row.split("|")[2].strip()


def as_admin(admin: Store, *statements: str) -> None:
    """Run statements that can't be in a transaction."""
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement))


def sync_twin(kind: Kind) -> Kind:
    """Return the kind of the same engine with a sync driver."""
    return next(k for k in KINDS.values() if k.server == kind.server and not k.is_async)


def sync_url(store: Store) -> str:
    """Return a store's URL with a sync driver."""
    return store.url.replace(store.kind.driver, sync_twin(store.kind).driver)


def on_connection(store: Store, function: Callable[[Connection], T]) -> T:
    """Call a function with a connection of the store, sync or through run_sync."""
    if store.async_engine is None:
        with store.engine.connect() as connection:
            return function(connection)

    async def call() -> T:
        assert store.async_engine is not None
        async with store.async_engine.connect() as connection:
            return await connection.run_sync(function)

    return store.run(call())  # type: ignore[no-any-return]
