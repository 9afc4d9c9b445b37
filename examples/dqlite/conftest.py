"""The suite's fixture, on a cluster of three nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dqlite_rules  # noqa: F401 - it registers the rules
import pytest
from cluster import Cluster
from sqlalchemy import Engine, create_engine

from checkpoint_sa import SQLAlchemySaver, metadata, migrate
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
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> Iterator[Store]:
    """A store without checkpoints."""
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(table.delete())
    store = Store(SQLAlchemySaver(engine))
    yield store
    store.close()
