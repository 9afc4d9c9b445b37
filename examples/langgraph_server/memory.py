"""The long-term memory of LangGraph's server: langgraph.json names `make`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from checkpoint_sa import AsyncSQLAlchemyStore


@asynccontextmanager
async def make() -> AsyncIterator[AsyncSQLAlchemyStore]:
    """Open a store whose items live for a day; the server closes it when it stops."""
    url = os.environ["CHECKPOINT_SA_URL"]
    async with AsyncSQLAlchemyStore.from_conn_string(url, ttl={"default_ttl": 1440}) as store:
        await store.start_ttl_sweeper()
        yield store
