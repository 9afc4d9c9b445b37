"""Statements with their parameters, ready to be executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from checkpoint_sa.engine import cursors
from checkpoint_sa.engine.limits import check_size
from checkpoint_sa.upsert import driver_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Dialect, Executable

    from checkpoint_sa.engine.cursors import Rows


class Statement(NamedTuple):
    """An SQL statement with the parameters of one row, or of several."""

    clause: Executable
    parameters: dict[str, Any] | Sequence[dict[str, Any]]
    check: Callable[[Rows], None] | None = None
    """Gets the rows, and raises an error to end the transaction."""

    @property
    def rows(self) -> Sequence[dict[str, Any]]:
        """The parameters, row by row."""
        return [self.parameters] if isinstance(self.parameters, dict) else self.parameters

    def is_one(self, dialect: Dialect) -> bool:
        """Whether the server gets one statement: a driver may send one for each row."""
        rows = self.rows
        return len(rows) == 1 or driver_batches(dialect, rows)


def execute(
    connection: Connection,
    statements: Sequence[Statement],
    *,
    then: Callable[[Connection], None] | None = None,
) -> None:
    """Execute statements in their order, on a connection.

    Args:
        connection: The connection.
        statements: The statements.
        then: Called afterwards, in the same transaction.

    Raises:
        ValueTooLargeError: A value is larger than the server takes; nothing was sent.
    """
    for statement in statements:
        check_size(connection, statement.rows)
    if (
        len(statements) > 1
        and cursors.has_pipeline(connection.dialect)
        and not any(statement.check for statement in statements)
    ):
        cursors.execute_together(connection, [(each.clause, each.rows) for each in statements])
    else:
        for statement in statements:
            if statement.check is None:
                cursors.execute(connection, statement.clause, statement.rows)
            else:
                (row,) = statement.rows
                statement.check(cursors.fetch_all(connection, statement.clause, row))
    if then is not None:
        then(connection)
