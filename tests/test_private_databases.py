"""The private databases behind the fixtures of the pytest plugin."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine

from checkpoint_sa import ConfigurationError
from checkpoint_sa.testing import databases

if TYPE_CHECKING:
    from pathlib import Path


def test_a_memory_on_a_private_file(tmp_path: Path) -> None:
    database = databases.open_database("sqlite://", tmp_path)
    for _ in range(2):
        database.begin()
        store = databases.open_store(database)
        assert store.get(("users",), "k") is None
        store.put(("users",), "k", {"a": 1})
        assert isinstance(store.bind, Engine)
        store.bind.dispose()
        database.end()
    database.drop()


def test_an_async_memory_on_a_private_file(tmp_path: Path) -> None:
    database = databases.open_database("sqlite://", tmp_path)
    database.begin()

    async def use() -> None:
        store = databases.open_async_store(database)
        await store.aput(("users",), "k", {"a": 1})
        found = await store.aget(("users",), "k")
        assert found is not None
        assert found.value == {"a": 1}

    asyncio.run(use())
    database.end()
    database.drop()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mssql+pyodbc://app@localhost/app", "no rule for private databases on 'mssql'"),
        ("postgresql+psycopg://app:secret@127.0.0.1:1/app", "can't be reached"),
    ],
)
def test_a_url_without_private_databases_is_explained(
    tmp_path: Path, url: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        databases.open_database(url, tmp_path)
    assert "secret" not in str(error.value)
