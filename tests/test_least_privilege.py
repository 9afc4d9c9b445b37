"""All of test_behaviour again, as a user with no more rights than docs/security.md grants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from databases import SYNC, bare_store, rights_to_migrate
from roles import role
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from stores import KINDS, Store
from test_behaviour import *  # noqa: F403

from checkpoint_sa import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Server

__all__ = ["bare_store"]


@pytest.fixture(scope="module", params=SYNC[1:])
def migrated_store(
    request: pytest.FixtureRequest, start_server: Callable[[str], Server]
) -> Iterator[Store]:
    kind = KINDS[request.param]
    owner = Store(kind, start_server(kind.server).url(kind.driver))
    owner.setup()
    with role(owner, "application") as url:
        store = Store(kind, url)
        yield store
        store.close()
    owner.close()


@pytest.mark.parametrize("bare_store", ["mariadb-pymysql", "mysql-pymysql"], indirect=True)
def test_the_rights_that_the_page_names_are_enough_to_migrate(bare_store: Store) -> None:
    bare_store.sql("CREATE USER migrator@'127.0.0.1' IDENTIFIED BY ''")
    try:
        bare_store.sql(f"GRANT {rights_to_migrate()} ON bare.* TO migrator@'127.0.0.1'")
        url = make_url(bare_store.url).set(username="migrator")
        migrate.upgrade(url)
        migrate.downgrade(url, "base")
        migrate.upgrade(url)
        assert migrate.current(url) == migrate.HEAD
    finally:
        bare_store.sql("DROP USER migrator@'127.0.0.1'")


def test_the_tables_are_not_the_applications_to_change(store: Store) -> None:
    for statement in (
        "DROP TABLE checkpoint_writes",
        "ALTER TABLE checkpoints ADD COLUMN more integer",
        "UPDATE checkpoint_sa_version SET version_num = 'x'",
    ):
        with pytest.raises(DBAPIError, match=r"denied|owner"):
            store.sql(statement)
    store.setup()  # nothing to do, and no right is needed to see it
