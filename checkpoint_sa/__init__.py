"""LangGraph checkpoints in any SQL database, through SQLAlchemy.

from checkpoint_sa import SQLAlchemySaver

with SQLAlchemySaver.from_conn_string("postgresql://app@localhost/app") as saver:
    saver.setup()
    graph = builder.compile(checkpointer=saver)

Names but the errors are imported at their first use. A probe starts `checkpoint-sa verify` every
few seconds and needs no saver; LangGraph takes longest to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from checkpoint_sa.errors import (
    CheckpointError,
    ConfigurationError,
    CorruptDataError,
    InvalidInputError,
    MissingDriverError,
    ParentConflictError,
    SchemaError,
    StateUpgradeError,
    ThreadExistsError,
    TransferError,
    ValueTooLargeError,
)

if TYPE_CHECKING:
    __version__: str

    from checkpoint_sa.aio import AsyncShallowSQLAlchemySaver, AsyncSQLAlchemySaver
    from checkpoint_sa.encryption import AESGCMSerializer
    from checkpoint_sa.models import (
        Checkpoint,
        CheckpointBlob,
        CheckpointDelta,
        CheckpointWrite,
        StoreEmbedding,
        StoreItem,
        metadata,
    )
    from checkpoint_sa.moving.copying import CopySummary, acopy, copy
    from checkpoint_sa.moving.importing import aimport_from, import_from
    from checkpoint_sa.repository.deleting import Deleted
    from checkpoint_sa.repository.statistics import ThreadSummary
    from checkpoint_sa.saver import ShallowSQLAlchemySaver, SQLAlchemySaver
    from checkpoint_sa.store import AsyncSQLAlchemyStore, SQLAlchemyStore

__all__ = [
    "AESGCMSerializer",
    "AsyncSQLAlchemySaver",
    "AsyncSQLAlchemyStore",
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
    "SQLAlchemyStore",
    "SchemaError",
    "ShallowSQLAlchemySaver",
    "StateUpgradeError",
    "StoreEmbedding",
    "StoreItem",
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

_MODULES = {
    "aio": ("AsyncSQLAlchemySaver", "AsyncShallowSQLAlchemySaver"),
    "encryption": ("AESGCMSerializer",),
    "moving.importing": ("aimport_from", "import_from"),
    "models": (
        "Checkpoint",
        "CheckpointBlob",
        "CheckpointDelta",
        "CheckpointWrite",
        "StoreEmbedding",
        "StoreItem",
        "metadata",
    ),
    "repository.statistics": ("ThreadSummary",),
    "repository.deleting": ("Deleted",),
    "saver": ("SQLAlchemySaver", "ShallowSQLAlchemySaver"),
    "store": ("AsyncSQLAlchemyStore", "SQLAlchemyStore"),
    "moving.copying": ("CopySummary", "acopy", "copy"),
}
"""Module -> the public names that are imported from it at their first use."""

_HOME = {name: module for module, names in _MODULES.items() for name in names}
_SUBMODULES = {"encryption", "inspection", "migrate", "models", "state", "types", "upsert"}
"""`checkpoint_sa.migrate` works after `import checkpoint_sa`."""


if not TYPE_CHECKING:  # a type checker sees the imports above, and no name that isn't there

    def __getattr__(name: str) -> object:
        """Import a public name, or a submodule, at its first use."""
        if name in _HOME:
            value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
            globals()[name] = value
            return value
        if name == "__version__":
            return _version()
        if name in _SUBMODULES:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    """Return the version of the installed package."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - takes 20 ms

    try:
        return version("langgraph-checkpoint-sa")
    except PackageNotFoundError:  # a folder on PYTHONPATH
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
