"""All of test_behaviour again, as a user with no more rights than docs/security.md grants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from databases import SYNC
from roles import role
from sqlalchemy.exc import DBAPIError
from stores import KINDS, Store
from test_behaviour import *  # noqa: F403

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Server


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


def test_the_tables_are_not_the_applications_to_change(store: Store) -> None:
    for statement in (
        "DROP TABLE checkpoint_writes",
        "ALTER TABLE checkpoints ADD COLUMN more integer",
        "UPDATE checkpoint_sa_version SET version_num = 'x'",
    ):
        with pytest.raises(DBAPIError, match=r"denied|owner"):
            store.sql(statement)
    store.setup()  # nothing to do, and no right is needed to see it
