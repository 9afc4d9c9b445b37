"""pytest's plugin: the fixtures `checkpointer` and `store`, sync and async, on any database.

A module beside the package: pytest loads it in every project that has checkpoint_sa installed, and
importing the package would import SQLAlchemy and LangGraph there. See docs/testing.md.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checkpoint_sa import (
        AsyncSQLAlchemySaver,
        AsyncSQLAlchemyStore,
        SQLAlchemySaver,
        SQLAlchemyStore,
    )
    from checkpoint_sa.testing.databases import Database

_DEFAULT = "sqlite://"

pytest.register_assert_rewrite("checkpoint_sa.testing.memory", "checkpoint_sa.testing.suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting that name databases."""
    parser.getgroup("checkpoint_sa").addoption(
        "--checkpoint-url",
        action="append",
        metavar="URL",
        help="database for the fixtures checkpointer, store and their async twins; may be repeated",
    )
    parser.addini(
        "checkpoint_urls",
        "databases for the fixtures checkpointer, store and their async twins",
        type="linelist",
    )


def _urls(config: pytest.Config) -> list[str]:
    return config.getoption("checkpoint_url") or config.getini("checkpoint_urls") or [_DEFAULT]


def _id(url: str) -> str:
    return url.partition(":")[0]  # the rest may hold a password


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each database, where there are several."""
    urls = _urls(metafunc.config)
    if "_checkpoint_database" in metafunc.fixturenames and len(urls) > 1:
        metafunc.parametrize(
            "_checkpoint_database",
            range(len(urls)),  # a failing test shows its parameters
            ids=map(_id, urls),
            indirect=True,
            scope="session",
        )


@contextmanager
def _url_explained() -> Iterator[None]:
    """Let a test fail with the option's name if its URL can't be used."""
    from checkpoint_sa.errors import CheckpointError  # noqa: PLC0415 - pytest loads this always

    try:
        yield
    except CheckpointError as error:
        pytest.fail(f"--checkpoint-url: {error}", pytrace=False)


@pytest.fixture(scope="session")
def _checkpoint_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A migrated database of this process alone."""
    from checkpoint_sa.testing.databases import open_database  # noqa: PLC0415

    url = _urls(request.config)[getattr(request, "param", 0)]
    with _url_explained():
        database = open_database(url, tmp_path_factory.mktemp("checkpoints"))
    yield database
    database.drop()


@pytest.fixture
def _empty_checkpoint_database(_checkpoint_database: Database) -> Iterator[Database]:
    """The same, without checkpoints and items."""
    _checkpoint_database.begin()
    yield _checkpoint_database
    _checkpoint_database.end()


@pytest.fixture
def checkpointer(_empty_checkpoint_database: Database) -> Iterator[SQLAlchemySaver]:
    """A saver on a database without checkpoints; SQLite unless --checkpoint-url says otherwise."""
    from checkpoint_sa.testing.databases import open_saver  # noqa: PLC0415

    with _url_explained():
        saver = open_saver(_empty_checkpoint_database)
    yield saver
    saver.bind.engine.dispose()


@pytest.fixture
def async_checkpointer(_empty_checkpoint_database: Database) -> AsyncSQLAlchemySaver:
    """An async saver on the same database as `checkpointer`, for whichever loop a test has."""
    from checkpoint_sa.testing.databases import open_async_saver  # noqa: PLC0415

    with _url_explained():
        return open_async_saver(_empty_checkpoint_database)


@pytest.fixture
def store(_empty_checkpoint_database: Database) -> Iterator[SQLAlchemyStore]:
    """A long-term memory without items, on the same database as `checkpointer`."""
    from checkpoint_sa.testing.databases import open_store  # noqa: PLC0415

    with _url_explained():
        memory = open_store(_empty_checkpoint_database)
    yield memory
    memory.bind.engine.dispose()


@pytest.fixture
def async_store(_empty_checkpoint_database: Database) -> AsyncSQLAlchemyStore:
    """An async long-term memory on the same database, for whichever loop a test has."""
    from checkpoint_sa.testing.databases import open_async_store  # noqa: PLC0415

    with _url_explained():
        return open_async_store(_empty_checkpoint_database)
