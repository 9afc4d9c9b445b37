"""Operations of a saver: retried after transient faults, counted, timed, logged, traced.

Logs name the operation and the kind of error, never a driver's message: it may quote a row.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy.exc import StatementError

from checkpoint_sa.engine.faults import Fault, classify_error, error_code

try:
    from opentelemetry import trace
except ImportError:
    _tracer = None
else:
    _tracer = trace.get_tracer("checkpoint_sa")

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from opentelemetry.trace import Span
    from typing_extensions import Self

RETRY_SECONDS = 10.0
"""Seconds during which a saver retries by default, from the first failure on."""

SLOW_SECONDS = 1.0
"""A longer operation is logged. The time includes the waits for the pool and for retries."""

_retry_log = logging.getLogger("checkpoint_sa.retry")
_slow_log = logging.getLogger("checkpoint_sa.slow")

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0

_AT_FIRST = (Fault.UNREACHABLE, Fault.STANDBY)
"""Faults that aren't retried before the saver has worked once."""


class Metrics(NamedTuple):
    """Counts of a saver's operations since it was made, its clones included; see `metrics`."""

    operations: int
    """Each page of `list` and each thread of `prune` counts."""
    retries: int
    failures: int
    """Operations that raised an error."""
    slow: int
    """Operations that took more than a second."""
    connections: int | None
    """Connections in use at the moment, by any code; None if the engine's pool doesn't count."""
    pool: str
    """The pool, in SQLAlchemy's words."""


class Counts:
    """The numbers behind `Metrics`."""

    def __init__(self) -> None:
        self.operations = self.retries = self.failures = self.slow = 0
        self.lock = threading.Lock()

    def failed_first(self) -> None:
        """Count a failed operation as the first attempt of the operation that follows."""
        with self.lock:
            self.operations -= 1
            self.failures -= 1
            self.retries += 1

    def metrics(self, connections: int | None, pool: str) -> Metrics:
        """Return the numbers as they are now."""
        with self.lock:
            return Metrics(
                self.operations, self.retries, self.failures, self.slow, connections, pool
            )


class Operation:
    """An operation, from its first attempt to its last: a context around all attempts.

    Args:
        name: The saver's method.
        counts: The counts to add to.
        seconds: Seconds during which it is retried after its first failure.
    """

    __slots__ = ("_begin", "_counts", "_deadline", "_name", "_retries", "_seconds", "_span")

    def __init__(self, name: str, counts: Counts, seconds: float) -> None:
        self._name = name
        self._counts = counts
        self._seconds = seconds
        self._retries = 0
        self._deadline = 0.0
        self._span: AbstractContextManager[Span] | None = None

    def __enter__(self) -> Self:
        # A span without a collector would cost a sixth of a read on SQLite.
        if _tracer is not None and not isinstance(
            trace.get_tracer_provider(), trace.ProxyTracerProvider
        ):
            self._span = _tracer.start_as_current_span(f"checkpoint_sa.{self._name}")
            self._span.__enter__()
        self._begin = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = time.monotonic() - self._begin
        with self._counts.lock:
            self._counts.operations += 1
            self._counts.failures += error is not None
            self._counts.slow += seconds > SLOW_SECONDS
        if seconds > SLOW_SECONDS:
            _slow_log.warning("%s took %.1f s, %d retries", self._name, seconds, self._retries)
        if self._span is not None:
            self._span.__exit__(kind, error, traceback)

    def pause(self, error: Exception, *, has_worked: bool) -> float | None:
        """Return the seconds to wait before the next attempt; None if there is to be none.

        Args:
            error: The error that ended the attempt.
            has_worked: Whether the saver has reached its database before. If not, a server that
                can't be reached or takes no writes is more likely a wrong address.
        """
        fault = classify_error(error)
        if fault is None or self._seconds <= 0:
            return None
        if fault in _AT_FIRST and not has_worked:
            return None
        now = time.monotonic()
        self._deadline = self._deadline or now + self._seconds
        ceiling = min(_FIRST_PAUSE * 2.0 ** min(self._retries, 10), _LONGEST_PAUSE)
        pause = random.uniform(ceiling / 2, ceiling)  # noqa: S311 - no secret
        what = (self._name, fault.value, error_code(error))
        if now + pause > self._deadline:
            tried = f"{self._retries + 1} attempts in {now - self._begin:.1f} s"
            _explain(error, f"{self._name}: {fault.value}; {tried}. See retry_seconds.")
            _retry_log.error("%s: %s (%s), given up after %s", *what, tried)
            return None
        self._retries += 1
        with self._counts.lock:
            self._counts.retries += 1
        _retry_log.warning("%s: %s (%s), retry %d in %.2f s", *what, self._retries, pause)
        return pause


def _explain(error: Exception, text: str) -> None:
    """Add text to an error's message; a driver's bare OSError takes notes from Python 3.11 on."""
    if isinstance(error, StatementError):
        error.add_detail(text)
    elif hasattr(error, "add_note"):
        error.add_note(text)
