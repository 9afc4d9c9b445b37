"""The saver of LangGraph's server: langgraph.json names `make`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from checkpoint_sa import AsyncSQLAlchemySaver


@asynccontextmanager
async def make() -> AsyncIterator[AsyncSQLAlchemySaver]:
    """Open a saver; the server closes it when it stops."""
    async with AsyncSQLAlchemySaver.from_conn_string(os.environ["CHECKPOINT_SA_URL"]) as saver:
        yield saver
