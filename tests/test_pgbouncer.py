"""Behaviour behind a real PgBouncer in transaction mode, by the recipes of docs/operators.md.

All of test_behaviour runs here again, on another `migrated_store`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import pytest
from conftest import found_or_skipped
from langgraph.checkpoint.base import empty_checkpoint
from servers import PgBouncer, PostgreSQL
from stores import KINDS, Store, thread
from test_behaviour import *  # noqa: F403

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Server

PSYCOPG: dict[str, Any] = {"connect_args": {"prepare_threshold": None}}
ASYNCPG: dict[str, Any] = {
    "isolation_level": "READ COMMITTED",
    "connect_args": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
    },
}
RECIPES = {"pg-psycopg": PSYCOPG, "pg-asyncpg": ASYNCPG}


@pytest.fixture(scope="module")
def bouncer(start_server: Callable[[str], Server]) -> Iterator[PgBouncer]:
    found = cast("PgBouncer", found_or_skipped("PgBouncer", PgBouncer.find()))
    found.upstream = cast("PostgreSQL", start_server("postgresql"))
    with found:
        yield found


@pytest.fixture(scope="module", params=list(RECIPES))
def migrated_store(
    request: pytest.FixtureRequest, start_server: Callable[[str], Server], bouncer: PgBouncer
) -> Iterator[Store]:
    kind = KINDS[request.param]
    direct = Store(KINDS["pg-psycopg"], start_server("postgresql").url("postgresql+psycopg"))
    direct.setup()
    direct.close()
    store = Store(kind, bouncer.url(kind.driver), **RECIPES[request.param])
    yield store
    store.close()


def test_more_clients_than_connections_work_at_once(store: Store) -> None:
    def one(i: int) -> Any:
        arguments: Any = (thread(f"t{i % 7}"), empty_checkpoint(), {}, {})
        return store.saver.aput(*arguments) if store.kind.is_async else store.saver.put(*arguments)

    store.saver.retry_seconds = 0
    if store.kind.is_async:

        async def all_at_once() -> None:
            await asyncio.gather(*map(one, range(200)))

        store.run(all_at_once())
    else:
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(one, range(200)))
    assert store.count("checkpoints") == 200
