"""LangGraph checkpoints in any SQL database, through SQLAlchemy.

from checkpoint_sa import SQLAlchemySaver

with SQLAlchemySaver.from_conn_string("postgresql://app@localhost/app") as saver:
    saver.setup()
    graph = builder.compile(checkpointer=saver)
"""

from checkpoint_sa.aio import AsyncShallowSQLAlchemySaver, AsyncSQLAlchemySaver
from checkpoint_sa.encryption import AESGCMSerializer
from checkpoint_sa.errors import (
    CheckpointError,
    ConfigurationError,
    CorruptDataError,
    InvalidInputError,
    MissingDriverError,
    ParentConflictError,
    SchemaError,
    ThreadExistsError,
    TransferError,
    ValueTooLargeError,
)
from checkpoint_sa.importing import aimport_from, import_from
from checkpoint_sa.models import (
    Checkpoint,
    CheckpointBlob,
    CheckpointDelta,
    CheckpointWrite,
    metadata,
)
from checkpoint_sa.overview import ThreadSummary
from checkpoint_sa.retention import Deleted
from checkpoint_sa.saver import ShallowSQLAlchemySaver, SQLAlchemySaver
from checkpoint_sa.transfer import CopySummary, acopy, copy

__all__ = [
    "AESGCMSerializer",
    "AsyncSQLAlchemySaver",
    "AsyncShallowSQLAlchemySaver",
    "Checkpoint",
    "CheckpointBlob",
    "CheckpointDelta",
    "CheckpointError",
    "CheckpointWrite",
    "ConfigurationError",
    "CopySummary",
    "CorruptDataError",
    "Deleted",
    "InvalidInputError",
    "MissingDriverError",
    "ParentConflictError",
    "SQLAlchemySaver",
    "SchemaError",
    "ShallowSQLAlchemySaver",
    "ThreadExistsError",
    "ThreadSummary",
    "TransferError",
    "ValueTooLargeError",
    "acopy",
    "aimport_from",
    "copy",
    "import_from",
    "metadata",
]
