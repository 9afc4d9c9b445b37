"""The suite's fixture, on a cluster of three nodes, with the sync and the async driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dqlite_rules  # noqa: F401 - it registers the rules
import pytest
from cluster import Cluster
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from checkpoint_sa import AsyncSQLAlchemySaver, SQLAlchemySaver, metadata, migrate
from checkpoint_sa.testing import Store

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of three nodes."""
    with Cluster() as running:
        yield running


@pytest.fixture(scope="session")
def engine(cluster: Cluster) -> Iterator[Engine]:
    """An engine on a migrated database."""
    engine = create_engine(cluster.url())
    with engine.begin() as connection:  # its lock keeps other upgrades out
        migrate.upgrade(connection)
    yield engine
    engine.dispose()


@pytest.fixture(params=["dqlite", "dqlite+aio"])
def store(cluster: Cluster, engine: Engine, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store without checkpoints."""
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(table.delete())
    if request.param == "dqlite":
        store = Store(SQLAlchemySaver(engine))
        yield store
    else:
        async_engine = create_async_engine(cluster.url(drivername=request.param))
        store = Store(AsyncSQLAlchemySaver(async_engine))
        yield store
        store.run(async_engine.dispose())
    store.close()
