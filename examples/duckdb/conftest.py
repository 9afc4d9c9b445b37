"""The suite's fixture, on the engine of the dialect's author."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb_rules  # noqa: F401 - it registers the rules
import pytest
from sqlalchemy import Engine, create_engine

from checkpoint_sa import SQLAlchemySaver, metadata, migrate
from checkpoint_sa.testing import Store

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine on a migrated database."""
    folder = tmp_path_factory.mktemp("duckdb")
    engine = create_engine(f"duckdb:///{folder / 'store.db'}")
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
