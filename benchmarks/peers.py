"""How each saver and its peer are opened: equal pools, equal serializers, a database each."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pymysql
from langgraph.checkpoint.mysql.aio import AIOMySQLSaver
from langgraph.checkpoint.mysql.pymysql import PyMySQLSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from servers import MariaDB, MySQL, PostgreSQL, Server
from sqlalchemy import create_engine, make_url, text
from stores import KINDS, Kind

from checkpoint_sa import AsyncSQLAlchemySaver, SQLAlchemySaver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

SERVERS: dict[str, type[Server]] = {
    "postgresql": PostgreSQL,
    "mariadb": MariaDB,
    "mysql": MySQL,
}
SYNC_DRIVERS = {k.server: k.driver for k in KINDS.values() if k.server and not k.is_async}
PEERS: dict[tuple[str, bool], Any] = {
    ("", False): SqliteSaver,
    ("", True): AsyncSqliteSaver,
    ("postgresql", False): PostgresSaver,
    ("postgresql", True): AsyncPostgresSaver,
    ("mariadb", False): PyMySQLSaver,
    ("mariadb", True): AIOMySQLSaver,
    ("mysql", False): PyMySQLSaver,
    ("mysql", True): AIOMySQLSaver,
}
PEER_URLS = {"postgresql": "postgresql", "mariadb": "mysql", "mysql": "mysql"}
# What PostgresSaver.from_conn_string gives its own connection.
PEER_CONNECTION = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}

MD5_DISALLOWED = 3763  # MySQL 9.7: langgraph-checkpoint-mysql 3.0 generates a column by MD5

_numbers = itertools.count(1)


@dataclass
class Contender:
    """A saver, sync or async, called in one way; a sync one blocks the event loop meanwhile."""

    name: str
    saver: Any
    is_async: bool

    async def do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.is_async:
            return await getattr(self.saver, f"a{method}")(*args, **kwargs)
        return getattr(self.saver, method)(*args, **kwargs)

    async def list(self, *args: Any, **kwargs: Any) -> list[Any]:
        if self.is_async:
            return [found async for found in self.saver.alist(*args, **kwargs)]
        return list(self.saver.list(*args, **kwargs))


class Pair(NamedTuple):
    """The contenders by the names `ours` and `peer`; no peer where its tables can't be made."""

    kind: Kind
    sides: dict[str, Contender]


class Servers:
    """Servers with the durability they have by default, started when first asked for."""

    def __init__(self, folder: Path, servers: Mapping[str, type[Server]] = SERVERS) -> None:
        self.folder = folder
        self.servers = servers
        self.stack = ExitStack()
        self.running: dict[str, Server | str] = {}

    def get(self, name: str) -> Server | str:
        """Return a running server, or why there is none."""
        if name not in self.running:
            found = self.servers[name].find(durable=True)
            self.running[name] = found if isinstance(found, str) else found.start()
            if isinstance(found, Server):
                self.stack.callback(found.stop)
        return self.running[name]

    def missing(self, kind: str) -> str | None:
        """Return why an engine cannot be measured here."""
        server = KINDS[kind].server
        found = self.get(server) if server else None
        return found if isinstance(found, str) else None

    def version(self, kind: str) -> str:
        """Return the version an engine gives itself."""
        driver = SYNC_DRIVERS.get(KINDS[kind].server, "sqlite")
        url = self.address(kind).url(driver) if KINDS[kind].server else "sqlite://"
        engine = create_engine(url)
        with engine.connect() as connection:
            question = "version()" if KINDS[kind].server else "sqlite_version()"
            version = str(connection.scalar(text(f"SELECT {question}")))
        engine.dispose()
        return version.split(" on ", maxsplit=1)[0]

    def new_database(self, kind: str) -> str:
        """Return the URL of a new, empty database, with the engine's driver."""
        name = f"checkpoint_sa_bench_{next(_numbers)}"
        if not KINDS[kind].server:
            return f"{KINDS[kind].driver}:///{self.folder / name}.db"
        server = self.address(kind)
        admin = create_engine(
            server.url(SYNC_DRIVERS[KINDS[kind].server]), isolation_level="AUTOCOMMIT"
        )
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
            connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        url = make_url(server.url(KINDS[kind].driver)).set(database=name)
        return url.render_as_string(hide_password=False)

    def address(self, kind: str) -> Server:
        """Return the running server of an engine."""
        found = self.get(KINDS[kind].server)
        if isinstance(found, str):
            raise TypeError(found)
        return found


@asynccontextmanager
async def open_pair(
    servers: Servers, kind: str, *, pool_size: int | None = 5, port: int | None = None
) -> AsyncIterator[Pair]:
    """Open ours and the peer on new databases, tables made, by way of another port if given.

    With `pool_size=None` both are as their `from_conn_string` makes them.
    """
    async with AsyncExitStack() as stack:
        sides: dict[str, Contender] = {}
        for name, open_side in (("ours", _open_ours), ("peer", _open_peer)):
            url = make_url(servers.new_database(kind))
            if port is not None:
                url = url.set(port=port)
            saver = await open_side(stack, KINDS[kind], url, pool_size)
            contender = Contender(name, saver, KINDS[kind].is_async)
            try:
                made = saver.setup()
                if contender.is_async:
                    await made
            except pymysql.err.OperationalError as error:
                if name == "ours" or error.args[0] != MD5_DISALLOWED:
                    raise
            else:
                sides[name] = contender
        if len({type(side.saver.serde) for side in sides.values()}) != 1:
            raise AssertionError("the serializers differ")
        yield Pair(KINDS[kind], sides)


async def _open_ours(stack: AsyncExitStack, kind: Kind, url: Any, pool_size: int | None) -> Any:
    options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0} if pool_size else {}
    if kind.is_async:
        opened = AsyncSQLAlchemySaver.from_conn_string(url, **options)
        return await stack.enter_async_context(opened)
    return stack.enter_context(SQLAlchemySaver.from_conn_string(url, **options))


async def _open_peer(stack: AsyncExitStack, kind: Kind, url: Any, pool_size: int | None) -> Any:
    peer = PEERS[kind.server, kind.is_async]
    if kind.server == "postgresql" and pool_size:
        conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        pool_options: dict[str, Any] = {
            "min_size": pool_size,
            "max_size": pool_size,
            "kwargs": PEER_CONNECTION,
        }
        if kind.is_async:
            return peer(
                await stack.enter_async_context(AsyncConnectionPool(conninfo, **pool_options))
            )
        return peer(stack.enter_context(ConnectionPool(conninfo, **pool_options)))
    target = (
        url.set(drivername=PEER_URLS[kind.server]).render_as_string(hide_password=False)
        if kind.server
        else url.database
    )
    opened = peer.from_conn_string(target)
    return await stack.enter_async_context(opened) if kind.is_async else stack.enter_context(opened)
