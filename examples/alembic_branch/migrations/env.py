"""Alembic's environment of the application."""

from __future__ import annotations

import os
from typing import Any

from alembic import context
from shop import Base  # type: ignore[import-not-found]  # prepend_sys_path finds it
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from checkpoint_sa import migrate

URL = os.environ["DATABASE_URL"]


def run(**target: Any) -> None:
    """Run the revisions on a connection, or write them as a script."""
    context.configure(
        target_metadata=Base.metadata,
        # The line that keeps autogenerate off the tables of checkpoint_sa.
        include_object=migrate.include_object,
        transaction_per_migration=True,
        **target,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run(url=URL, literal_binds=True)
else:
    with create_engine(URL, poolclass=NullPool).connect() as connection:
        run(connection=connection)
