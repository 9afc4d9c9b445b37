"""LangGraph's long-term memory on the engine of the checkpoints.

sync.py, aio.py   SQLAlchemyStore and AsyncSQLAlchemyStore
base.py           their operations, each written once
plan.py           a batch of LangGraph's operations: checked, and as keys and text
repository.py     functions over a Connection
sql.py            the statements
namespaces.py     a namespace as text and back
values.py         an item's value as JSON and back
filters.py        the meaning of a filter
index.py          semantic search: texts as vectors, and their ranking
pgvector.py       the vectors of PostgresStore, ranked by the server
moving.py         items from another database, of ours or of LangGraph's stores
sweeping.py       deleting expired items at intervals
"""

from __future__ import annotations

from checkpoint_sa.store.aio import AsyncSQLAlchemyStore
from checkpoint_sa.store.namespaces import NamespaceError
from checkpoint_sa.store.sync import SQLAlchemyStore

__all__ = ["AsyncSQLAlchemyStore", "NamespaceError", "SQLAlchemyStore"]
