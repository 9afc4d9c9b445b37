"""The long-term memory beside LangGraph's SqliteStore and PostgresStore."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from langgraph.store.base import PutOp
from langgraph.store.postgres import PostgresStore
from langgraph.store.postgres.aio import AsyncPostgresStore
from langgraph.store.sqlite import SqliteStore
from langgraph.store.sqlite.aio import AsyncSqliteStore
from measure import Samples, shuffled
from peers import Contender
from sqlalchemy import make_url
from stores import KINDS

from checkpoint_sa import AsyncSQLAlchemyStore, SQLAlchemyStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from peers import Servers
    from stores import Kind

ITEMS = 10_000
DIMS = 128

TITLE = "Long-term memory"
ABOUT = (
    "`SQLAlchemyStore` beside LangGraph's store: `put` and `get` of an item of about 300 bytes, "
    "`search` of a namespace with a limit of 10, a `batch` of 100 puts, and `search` with a query "
    f"among {ITEMS:,} items with vectors of {DIMS} dimensions, ranked in Python, as where the "
    "database can't (the peers rank in the database only). Medians; CPU is that of the client's "
    "process."
)
ENGINES = tuple(name for name, kind in KINDS.items() if kind.server in ("", "postgresql"))
OPERATIONS = ("put", "get", "search", "batch of 100 puts")
VECTORS = "vector search"

PEERS: dict[tuple[str, bool], Any] = {
    ("", False): SqliteStore,
    ("", True): AsyncSqliteStore,
    ("postgresql", False): PostgresStore,
    ("postgresql", True): AsyncPostgresStore,
}
POOL_SIZE = 5


def embed(texts: list[str]) -> list[list[float]]:
    """Return a vector for each text, the same at each call."""
    return [[random.Random(f"{each} {i}").gauss(0, 1) for i in range(DIMS)] for each in texts]


INDEX: dict[str, Any] = {
    "dims": DIMS,
    "embed": embed,
    "fields": ["text"],
    "distance_type": "cosine",
}


async def run(servers: Servers, kind: str, *, quick: bool) -> list[dict[str, Any]]:
    """Alternate between the sides, operation by operation."""
    rounds, warm = (6, 2) if quick else (600, 60)
    async with open_stores(servers, KINDS[kind], kind) as sides:
        rows = await _plain(sides, rounds, warm)
    async with open_stores(servers, KINDS[kind], kind, index=INDEX) as sides:
        rows.append(await _vectors(sides, 200 if quick else ITEMS, *((6, 2) if quick else (60, 6))))
    return rows


async def _plain(sides: Mapping[str, Contender], rounds: int, warm: int) -> list[dict[str, Any]]:
    samples = Samples()
    for number in range(warm + rounds):
        if number == warm:
            samples = Samples()
        place, key = ("users", str(number % 10)), str(number)
        ops = [PutOp((*place, "more"), str(i), value_of(i)) for i in range(100)]
        calls = (
            ("put", "put", (place, key, value_of(number))),
            ("get", "get", (place, key)),
            ("search", "search", (place,)),
            ("batch of 100 puts", "batch", (ops,)),
        )
        for operation, method, arguments in calls:
            for name in shuffled(sides):
                await samples.time(name, operation, sides[name].do(method, *arguments))
    return [samples.row(operation) for operation in OPERATIONS]


async def _vectors(
    sides: Mapping[str, Contender], items: int, rounds: int, warm: int
) -> dict[str, Any]:
    samples = Samples()
    for first in range(0, items, 100):
        ops = [PutOp(("docs",), str(i), value_of(i)) for i in range(first, first + 100)]
        for side in sides.values():
            await side.do("batch", ops)
    for number in range(warm + rounds):
        if number == warm:
            samples = Samples()
        for name in shuffled(sides):
            found = sides[name].do("search", ("docs",), query=f"query {number}")
            await samples.time(name, VECTORS, found)
    return samples.row(VECTORS)


def value_of(number: int) -> dict[str, Any]:
    """Return an item's value."""
    return {"text": f"Memory {number}: " + "a fact. " * 30, "kind": "note", "number": number}


@asynccontextmanager
async def open_stores(
    servers: Servers, kind: Kind, name: str, **options: Any
) -> AsyncIterator[dict[str, Contender]]:
    """Open ours and LangGraph's on new databases, tables made; with an index ours alone."""
    async with AsyncExitStack() as stack:
        sides: dict[str, Contender] = {}
        for side in ("ours",) if options else ("ours", "peer"):
            url = servers.new_database(name)
            opened = _open_ours(kind, url, options) if side == "ours" else _peer(kind, url)
            store = (
                await stack.enter_async_context(opened)
                if kind.is_async
                else stack.enter_context(opened)
            )
            made = store.setup()
            if kind.is_async:
                await made
            sides[side] = Contender(side, store, kind.is_async)
        yield sides


def _open_ours(kind: Kind, url: str, options: Mapping[str, Any]) -> Any:
    make: Any = AsyncSQLAlchemyStore if kind.is_async else SQLAlchemyStore
    return make.from_conn_string(url, pool_size=POOL_SIZE, max_overflow=0, **options)


def _peer(kind: Kind, url: str) -> Any:
    make = PEERS[kind.server, kind.is_async]
    parsed = make_url(url)
    if not kind.server:
        return make.from_conn_string(parsed.database)
    conninfo = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
    pool = {"min_size": POOL_SIZE, "max_size": POOL_SIZE}
    return make.from_conn_string(conninfo, pool_config=pool)
