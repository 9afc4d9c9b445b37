"""Alembic's environment of the application."""

from __future__ import annotations

import os

from alembic import context
from bookmarks import Base
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

import checkpoint_sa
from checkpoint_sa import migrate

url = os.environ["DATABASE_URL"]
options = {
    "target_metadata": [Base.metadata, checkpoint_sa.metadata],
    # The line that keeps autogenerate off the tables of checkpoint_sa.
    "include_object": migrate.include_object,
    "transaction_per_migration": True,
}

if context.is_offline_mode():
    context.configure(url=url, literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
