"""Users of a server with the grants of docs/security.md."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from databases import sync_url
from sqlalchemy import create_engine, make_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection
    from stores import Store

TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_deltas", "checkpoint_writes")
RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
PASSWORD = "first-Password1"


@contextmanager
def admin_of(store: Store) -> Iterator[Connection]:
    """Open a sync connection of the super-user."""
    engine = create_engine(sync_url(store), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def quoted(store: Store, role: str) -> str:
    """Return how the server's statements name a role."""
    return role if store.kind.server == "postgresql" else f"'{role}'@'127.0.0.1'"


@contextmanager
def role(store: Store, name: str) -> Iterator[str]:
    """Make a role that may do what an application needs; give its URL."""
    who = quoted(store, name)
    with admin_of(store) as admin:
        if store.kind.server == "postgresql":
            admin.exec_driver_sql(f"CREATE ROLE {who} LOGIN PASSWORD '{PASSWORD}'")
        else:
            admin.exec_driver_sql(f"CREATE USER {who} IDENTIFIED BY '{PASSWORD}'")
        for table in TABLES:
            admin.exec_driver_sql(f"GRANT {RIGHTS} ON {table} TO {who}")
        admin.exec_driver_sql(f"GRANT SELECT ON checkpoint_sa_version TO {who}")
        try:
            url = make_url(store.url).set(username=name, password=PASSWORD)
            yield url.render_as_string(hide_password=False)
        finally:
            if store.kind.server == "postgresql":
                admin.exec_driver_sql(f"DROP OWNED BY {who}")
            admin.exec_driver_sql(
                f"DROP {'ROLE' if store.kind.server == 'postgresql' else 'USER'} {who}"
            )
