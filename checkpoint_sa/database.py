"""A database, and how an operation runs on it: queued, in a transaction, retried after a fault.

The savers, copies, imports and the command line share it, sync and async alike: an async engine's
operations run in a greenlet of SQLAlchemy's, as in `AsyncConnection.run_sync`.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from checkpoint_sa import migrate
from checkpoint_sa.engine import engines, queues, retry, transactions, waiting
from checkpoint_sa.engine.cursors import CursorEngine
from checkpoint_sa.engine.faults import refuses_writes
from checkpoint_sa.engine.statements import execute
from checkpoint_sa.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from checkpoint_sa.engine.statements import Statement

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """An engine or a connection, and how operations of several statements run on it.

    With an engine, each operation takes a connection from its pool, is a transaction of its own,
    and is retried after a transient fault. With a connection, each operation is a savepoint in the
    caller's transaction, and is never retried.

    Args:
        bind: An `Engine` or a `Connection`; for an async engine, its `sync_engine`.
        schema: Schema of the tables; by default the connection's own.
        retry_seconds: Seconds during which an operation is retried after its first failure.
        check: Called with a connection and the schema before the first operation, after the
            revision was checked; raises an error where the tables can't be worked with.

    Raises:
        ConfigurationError: The engine or connection can't be used; the message says which kind can.
    """

    def __init__(
        self,
        bind: Engine | Connection,
        *,
        schema: str | None = None,
        retry_seconds: float = retry.RETRY_SECONDS,
        check: Callable[[Connection, str | None], None] | None = None,
    ) -> None:
        if isinstance(retry_seconds, bool) or not isinstance(retry_seconds, int | float):
            raise ConfigurationError(
                f"retry_seconds is of type {type(retry_seconds).__name__}. Expected seconds: a"
                " number, or 0 to disable retries."
            )
        self.schema = schema
        self._check = check
        self.retry_seconds = retry_seconds
        self.counts = retry.Counts()
        self.dialect = bind.dialect
        self.loop = _running_loop() if bind.dialect.is_async else None
        """The event loop that uses an async engine."""
        self.lock: AbstractContextManager[object] = (
            queues.shared_connection_lock(bind) or nullcontext()
        )
        """Held while an operation uses a single connection that many share."""
        self._queue = queues.sqlite_writer_lock(bind) or nullcontext()
        self.is_in_memory = isinstance(bind, Engine) and engines.is_memory(bind.url)
        """Whether the database lives in a single connection of the engine, and ends with it."""
        self._turns: AbstractContextManager[object] = nullcontext()
        self._owner = bind
        self._verified = False
        self._connection: Connection | None = None
        self._autocommit = False
        """Whether the driver's flag has it commit a single statement."""
        self._commits_at_once = False
        """Whether a single statement commits itself, by that flag or as the engine was made."""
        if isinstance(bind, Engine):
            engines.check_engine(bind)
            self._turns = queues.pool_queue(bind)
            engine = engines.in_schema(bind, schema)
            level = transactions.writing_level(engine)
            is_autocommit = transactions.is_autocommit(engine)
            self._autocommit = transactions.has_free_autocommit(engine)
            self._commits_at_once = self._autocommit or is_autocommit
            reading = transactions.reading_engine(engine)
            self._reading = CursorEngine(reading, bind, begins=not self._commits_at_once)
            self._writing = CursorEngine(
                engine, bind, level=level, begins=not is_autocommit or level is not None
            )
        else:
            transactions.check_connection(bind)
            self._connection = bind

    @property
    def metrics(self) -> retry.Metrics:
        """Counts since the database was opened, and the state of its pool."""
        pool = self._owner.engine.pool
        checked_out = getattr(pool, "checkedout", None)
        return self.counts.metrics(checked_out() if checked_out else None, pool.status())

    @property
    def is_joined(self) -> bool:
        """Whether operations are part of a caller's transaction."""
        return self._connection is not None

    def read(
        self,
        name: str,
        function: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run an operation that reads; `name` is the saver's method, for logs."""
        with self.lock:
            result: T = self._run(name, self._read_once, function, *args, **kwargs)
            return result

    def write(
        self,
        name: str,
        function: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run an operation that writes, as one transaction."""
        with self.lock, self._queue:
            result: T = self._run(name, self._write_once, function, *args, **kwargs)
            return result

    def write_unless_read_only(
        self,
        name: str,
        function: Callable[Concatenate[Connection, P], object],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Run an operation as `write` does; where nothing can be written, do nothing."""
        with self.lock, self._queue:
            self._run(name, self._write_unless_read_only, function, *args, **kwargs)

    def execute(
        self,
        name: str,
        statements: Sequence[Statement],
        *,
        then: Callable[[Connection], None] | None = None,
    ) -> None:
        """Execute statements that write, as one transaction.

        A single statement runs in AUTOCOMMIT mode, without BEGIN and COMMIT, where that is free.

        Args:
            name: The saver's method.
            statements: The statements, in their order.
            then: Called in the same transaction afterwards.

        Raises:
            ValueTooLargeError: A value is larger than the server takes; nothing was stored.
        """
        is_one = len(statements) == 1 and then is None and statements[0].is_one(self.dialect)
        commits = self._commits_at_once and not transactions.has_begin_listener(self._owner)
        once = self._read_once if is_one and commits else self._write_once
        with self.lock, self._queue:
            self._run(name, once, execute, statements, then=then)

    def _run(
        self,
        name: str,
        once: Callable[..., Any],
        function: Callable[..., Any],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Run an operation, and retry transient faults.

        Operations are idempotent: the answer to a commit may have been lost.
        """
        if self.dialect.is_async:
            self.enter_loop()
        seconds = self.retry_seconds if self._connection is None else 0.0
        with retry.Operation(name, self.counts, seconds) as operation:
            while True:
                try:
                    with self._turns:
                        return once(function, *args, **kwargs)
                except Exception as error:
                    pause = operation.pause(error, has_worked=self._verified)
                    if pause is None:
                        raise
                waiting.pause(self._owner, pause)

    def _read_once(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        if not self._verified:
            self._verify()
        if self._connection is not None:
            with transactions.using_schema(self._connection, schema=self.schema):
                return function(self._connection, *args, **kwargs)
        commits = self._autocommit and not transactions.has_begin_listener(self._owner)
        if commits:
            return transactions.connected(
                self._reading, transactions.committing_each, function, *args, **kwargs
            )
        return transactions.connected(self._reading, function, *args, **kwargs)

    def _write_once(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        if not self._verified:
            self._verify()
        if self._connection is not None:
            with transactions.using_schema(self._connection, schema=self.schema):
                transactions.begin_write(self._connection)
                with self._connection.begin_nested():
                    return function(self._connection, *args, **kwargs)
        return transactions.connected(
            self._writing, transactions.in_transaction, function, *args, **kwargs
        )

    def _write_unless_read_only(
        self, function: Callable[..., object], /, *args: Any, **kwargs: Any
    ) -> None:
        try:
            self._write_once(function, *args, **kwargs)
        except DBAPIError as error:
            if not refuses_writes(error):
                raise

    def _verify(self) -> None:
        """Check the schema's revision, before the first operation."""
        if self._connection is not None:
            self._verify_on(self._connection)
        else:
            with self._writing.through_sqlalchemy.connect() as connection:
                self._verify_on(connection)
        self._verified = True

    def _verify_on(self, connection: Connection) -> None:
        migrate.check_revision(connection, schema=self.schema)
        if self._check is not None:
            self._check(connection, self.schema)

    def enter_loop(self) -> None:
        """Bind an async engine to the running event loop.

        Raises:
            ConfigurationError: Another event loop has used the engine and its pool.
        """
        loop = _running_loop()
        if self.loop is not None and self.loop is not loop and not self._is_free():
            raise ConfigurationError(
                "This engine belongs to another event loop: connections of its pool can't be used"
                " in two. Make an engine and a saver for each loop, or give create_async_engine"
                " poolclass=sqlalchemy.pool.NullPool."
            )
        self.loop = loop

    def _is_free(self) -> bool:
        """Whether each operation has a connection of its own, so that any loop may run it."""
        return isinstance(self._owner, Engine) and isinstance(self._owner.pool, NullPool)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
