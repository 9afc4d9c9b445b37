"""Reading on a hot standby of PostgreSQL, by the recipe of docs/distributed.md."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from conftest import found_or_skipped
from proxy import Proxy
from servers import Primary, Standby
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from stores import KINDS, Kind, Store, id_of, thread

from checkpoint_sa.engine.faults import ELSEWHERE, classify_error

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Primary, Standby]]:
    primary: Any = found_or_skipped("Primary", Primary.find())
    with primary:
        standby: Any = found_or_skipped("Standby", Standby.find())
        standby.upstream = primary
        with standby:
            yield primary, standby


@pytest.fixture(params=["pg-psycopg", "pg-asyncpg"])
def pair(
    request: pytest.FixtureRequest, servers: tuple[Primary, Standby]
) -> Iterator[tuple[Store, Store]]:
    """A store on the primary server whose commits wait for the standby, and one on the standby."""
    kind = KINDS[request.param]
    urls = [server.url(kind.driver) for server in servers]
    primary, replica = (Store(kind, url) for url in urls)
    primary.setup()
    primary.clear()
    yield primary, replica
    replica.close()
    primary.close()


def administer(server: Primary | Standby, statement: str) -> None:
    engine = create_engine(server.url("postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_a_replica_reads_what_was_stored(pair: tuple[Store, Store]) -> None:
    primary, replica = pair
    first = primary.save(values={"x": [1]})
    primary.put_writes(first, [("x", 2)], "task")
    second = primary.save(values={"x": [1, 2]}, parent=first)
    found = replica.found(thread())
    assert found == primary.found(thread())
    assert replica.found(first).pending_writes == [("task", "x", 2)]
    assert [id_of(item.config) for item in replica.list(None)] == [id_of(second), id_of(first)]
    assert replica.history(second, ["x"]).keys() == {"x"}


def test_a_replica_refuses_to_write_and_says_why(pair: tuple[Store, Store]) -> None:
    primary, replica = pair
    replica.saver.retry_seconds = 0.5
    config = primary.save(values={"x": [1]})
    for write in (
        lambda: replica.save(values={"x": [2]}, parent=config),
        lambda: replica.put_writes(config, [("x", 2)], "task"),
        lambda: replica.delete_thread("t"),
    ):
        with pytest.raises(DBAPIError, match=r"(?s)takes no writes.*read-only transaction"):
            write()
    assert replica.saver.metrics.retries >= 3
    assert replica.found(config).checkpoint["channel_values"] == {"x": [1]}


def test_when_an_address_leads_to_the_new_primary_no_old_connection_is_in_the_way(
    pair: tuple[Store, Store],
) -> None:
    primary, replica = pair
    with Proxy(replica.url) as proxy:
        store = Store(primary.kind, proxy.url, pool_size=5)
        saver: Any = store.saver
        first = primary.save(values={"x": [1]})
        if store.kind.is_async:

            async def reads() -> None:
                await asyncio.gather(*[saver.aget_tuple(first) for _ in range(5)])

            store.run(reads())
        else:
            with ThreadPoolExecutor(5) as pool:
                list(pool.map(saver.get_tuple, [first] * 5))
        assert store.found(first).checkpoint["channel_values"] == {"x": [1]}
        assert store.root.pool.checkedin() > 1  # type: ignore[attr-defined]
        proxy.lead_to(primary.url)
        store.put_writes(first, [("x", 2)], "task")
        assert store.saver.metrics.retries == 1
        store.close()
    assert primary.found(first).pending_writes == [("task", "x", 2)]


def test_a_replica_that_lags_shows_what_was_until_it_has_caught_up(
    pair: tuple[Store, Store], servers: tuple[Primary, Standby]
) -> None:
    primary, replica = pair
    first = primary.save(values={"x": [1]})
    administer(servers[1], "SELECT pg_wal_replay_pause()")
    try:
        local = Store(
            KINDS["pg-psycopg"],
            servers[0].url("postgresql+psycopg"),
            connect_args={"options": "-c synchronous_commit=local"},
        )
        second = local.save(values={"x": [2]}, parent=first)
        local.close()
        assert id_of(replica.found(thread()).config) == id_of(first)
        assert replica.get_tuple(second) is None
    finally:
        administer(servers[1], "SELECT pg_wal_replay_resume()")
    third = primary.save(values={"x": [3]}, parent=second)
    assert id_of(replica.found(thread()).config) == id_of(third)


def url_of(kind: Kind, *servers: Primary | Standby) -> str:
    """Return a URL of several servers, for a session that may write."""
    hosts = "&".join(f"host={server.host}:{server.port}" for server in servers)
    return f"{kind.driver}://postgres@/test?{hosts}&target_session_attrs=read-write"


@pytest.mark.parametrize("name", ["pg-psycopg", "pg-psycopg-async", "pg-asyncpg"])
def test_of_the_servers_in_a_url_the_primary_is_found(
    servers: tuple[Primary, Standby], name: str
) -> None:
    kind = KINDS[name]
    for order in (servers, servers[::-1]):
        store = Store(kind, url_of(kind, *order))
        store.setup()
        store.clear()
        config = store.save(values={"x": [1]})
        assert store.found(config).checkpoint["channel_values"] == {"x": [1]}
        store.close()


@pytest.mark.parametrize("name", ["pg-psycopg", "pg-psycopg-async", "pg-asyncpg"])
def test_if_no_server_in_a_url_is_the_primary_a_retry_may_find_one(
    servers: tuple[Primary, Standby], name: str
) -> None:
    store = Store(KINDS[name], url_of(KINDS[name], servers[1]))
    with pytest.raises(Exception, match=r"read-only|target attribute requirement") as caught:
        store.get_tuple(thread())
    store.close()
    assert isinstance(caught.value, Exception)
    assert classify_error(caught.value) in ELSEWHERE
