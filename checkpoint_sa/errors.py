"""The errors, as one small tree.

CheckpointError
 +-- InvalidInputError (ValueError)        an id, a config or an argument that can't be stored
 |    +-- ValueTooLargeError               a value larger than the server takes in one packet
 |    +-- store.NamespaceError             a namespace of the long-term memory that can't be one
 +-- ConfigurationError (ValueError)       a URL, an engine or a connection that can't work
 |    +-- MissingDriverError (ImportError) the driver that a URL asks for isn't installed
 +-- SchemaError (RuntimeError)            the tables are missing, behind, ahead or unstamped
 +-- ThreadExistsError                     copy_thread, copy or import would mix two histories
 +-- TransferError                         a thread can't be brought to the target as it is
 +-- ParentConflictError                   another writer has gone on from the same checkpoint
 +-- CorruptDataError                      a stored row that can't be read
 +-- StateUpgradeError                     a state that can't be brought to the newest revision

Errors of SQLAlchemy and the serializer pass through, unless there is something to add.
No message holds a channel value or a password.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "CorruptDataError",
    "InvalidInputError",
    "MissingDriverError",
    "ParentConflictError",
    "SchemaError",
    "StateUpgradeError",
    "ThreadExistsError",
    "TransferError",
    "ValueTooLargeError",
]


class CheckpointError(Exception):
    """Base of every error that this package defines."""


class InvalidInputError(CheckpointError, ValueError):
    """An id, a config or an argument can't be stored; nothing was sent to the database."""


class ValueTooLargeError(InvalidInputError):
    """A value is larger than the server or the driver takes; nothing was stored."""


class ConfigurationError(CheckpointError, ValueError):
    """A URL, an engine or a connection can't work with the saver it was given to."""


class MissingDriverError(ConfigurationError, ImportError):
    """The database driver that a URL asks for isn't installed."""


class SchemaError(CheckpointError, RuntimeError):
    """The database doesn't have the tables of this release."""


class ThreadExistsError(CheckpointError):
    """The target of a copy or an import has other checkpoints; nothing of it was changed."""


class TransferError(CheckpointError):
    """The source lacks a thread or value that was to be copied, or the target can't keep it."""


class ParentConflictError(CheckpointError):
    """The parent of a checkpoint isn't the latest one any more; nothing was stored."""


class CorruptDataError(CheckpointError):
    """A stored row can't be read back; the message names the row, never its content."""


class StateUpgradeError(CheckpointError):
    """A state can't be brought to the newest revision of state; nothing of it was changed."""
