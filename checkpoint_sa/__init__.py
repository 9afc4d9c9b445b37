"""LangGraph checkpoints in any SQL database, through SQLAlchemy.

from checkpoint_sa import SQLAlchemySaver

with SQLAlchemySaver.from_conn_string("postgresql://app@localhost/app") as saver:
    saver.setup()
    graph = builder.compile(checkpointer=saver)
"""

from checkpoint_sa.aio import AsyncShallowSQLAlchemySaver, AsyncSQLAlchemySaver
from checkpoint_sa.errors import (
    CheckpointError,
    ConfigurationError,
    CorruptDataError,
    InvalidInputError,
    MissingDriverError,
    SchemaError,
    ThreadExistsError,
    ValueTooLargeError,
)
from checkpoint_sa.models import Checkpoint, CheckpointBlob, CheckpointWrite, metadata
from checkpoint_sa.saver import ShallowSQLAlchemySaver, SQLAlchemySaver

__all__ = [
    "AsyncSQLAlchemySaver",
    "AsyncShallowSQLAlchemySaver",
    "Checkpoint",
    "CheckpointBlob",
    "CheckpointError",
    "CheckpointWrite",
    "ConfigurationError",
    "CorruptDataError",
    "InvalidInputError",
    "MissingDriverError",
    "SQLAlchemySaver",
    "SchemaError",
    "ShallowSQLAlchemySaver",
    "ThreadExistsError",
    "ValueTooLargeError",
    "metadata",
]
