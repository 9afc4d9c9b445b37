"""What the database refuses is an error that says so; the saver works once the cause is gone."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from roles import PASSWORD, TABLES, admin_of, quoted, role
from sqlalchemy import event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from stores import KINDS, Store, thread
from test_faults import fill, ids, on_servers, put

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def opened(store: Store, url: str = "", **engine_options: Any) -> Iterator[Store]:
    other = Store(store.kind, url or store.url, **engine_options)
    other.saver.retry_seconds = 1
    try:
        yield other
    finally:
        other.close()


def test_an_exhausted_pool_is_an_error_and_works_again(store: Store) -> None:
    with opened(store, pool_size=1, max_overflow=0, pool_timeout=0.05) as own:
        own.get_tuple(thread())
        if own.async_engine is None:
            taken: Any = own.engine.connect()
            give_back = taken.close
        else:
            taken = own.run(own.async_engine.connect().start())
            give_back = lambda: own.run(taken.close())  # noqa: E731
        with pytest.raises(PoolTimeoutError, match="QueuePool limit of size 1"):
            put(own, "1")
        give_back()
        put(own, "1")
        assert own.saver.metrics.retries == 0
        assert own.saver.metrics.connections == 0


@on_servers
def test_a_right_that_is_taken_away_is_an_error_until_it_is_given_back(store: Store) -> None:
    with role(store, "restricted") as url, opened(store, url) as own, admin_of(store) as admin:
        put(own, "1")
        who = quoted(store, "restricted")
        for table in TABLES:
            admin.exec_driver_sql(f"REVOKE INSERT ON {table} FROM {who}")
        with pytest.raises(DBAPIError, match=r"denied"):
            put(own, "2", parent="1")
        assert ids(own) == ["1"]
        for table in TABLES:
            admin.exec_driver_sql(f"GRANT INSERT ON {table} TO {who}")
        put(own, "2", parent="1")
        assert ids(store) == ["2", "1"]


READ_ONLY = {
    "postgresql": ("ALTER ROLE restricted SET default_transaction_read_only = {}", "on", "off"),
    "mariadb": ("SET GLOBAL read_only = {}", "1", "0"),
    "mysql": ("SET GLOBAL read_only = {}", "1", "0"),
}


@on_servers
def test_a_database_made_read_only_is_read_and_written_once_it_is_not(store: Store) -> None:
    statement, on, off = READ_ONLY[store.kind.server]
    put(store, "1")
    with role(store, "restricted") as url, admin_of(store) as admin:
        admin.exec_driver_sql(statement.format(on))
        try:
            with opened(store, url) as own:
                assert ids(own) == ["1"]
                refused = r"(?s)put: the server takes no writes.* attempts in.*read.only"
                with pytest.raises(DBAPIError, match=refused):
                    put(own, "2", parent="1")
                assert own.saver.metrics.retries > 0
        finally:
            admin.exec_driver_sql(statement.format(off))
        with opened(store, url) as own:
            put(own, "2", parent="1")
    assert ids(store) == ["2", "1"]


@on_servers
def test_what_waits_for_a_database_to_take_writes_is_stored_on_another_connection(
    store: Store,
) -> None:
    statement, on, off = READ_ONLY[store.kind.server]
    with role(store, "restricted") as url, admin_of(store) as admin:
        admin.exec_driver_sql(statement.format(on))
        with opened(store, url) as own:
            own.saver.retry_seconds = 60
            own.get_tuple(thread())
            session = "pg_backend_pid" if store.kind.server == "postgresql" else "connection_id"
            before = own.sql(f"SELECT {session}()")
            again = threading.Timer(0.3, lambda: admin.exec_driver_sql(statement.format(off)))
            again.start()
            try:
                put(own, "1")
            finally:
                again.join()
            assert own.saver.metrics.retries > 0
            assert own.sql(f"SELECT {session}()") != before
    assert ids(store) == ["1"]


@pytest.mark.parametrize(
    "migrated_store",
    [name for name, kind in KINDS.items() if kind.server == "mysql"],
    indirect=True,
)
def test_a_server_in_offline_mode_is_waited_for(store: Store) -> None:
    """A member that has left Group Replication is in that mode."""
    with role(store, "restricted") as url, admin_of(store) as admin, opened(store, url) as own:
        own.saver.retry_seconds = 60
        own.get_tuple(thread())
        admin.exec_driver_sql("SET GLOBAL offline_mode = ON")
        again = threading.Timer(0.5, lambda: admin.exec_driver_sql("SET GLOBAL offline_mode = OFF"))
        again.start()
        try:
            put(own, "1")
        finally:
            again.join()
        assert own.saver.metrics.retries > 1
    assert ids(store) == ["1"]


TIMEOUT: dict[str, dict[str, Any]] = {
    "psycopg": {"options": "-c statement_timeout=100"},
    "asyncpg": {"server_settings": {"statement_timeout": "100"}},
    "pymysql": {"init_command": "SET max_statement_time = 0.1"},
    "aiomysql": {"init_command": "SET max_statement_time = 0.1"},
}


@pytest.mark.parametrize(
    "migrated_store",
    [name for name, kind in KINDS.items() if kind.server in ("postgresql", "mariadb")],
    indirect=True,
)
def test_a_statement_that_takes_too_long_ends_and_is_not_tried_again(store: Store) -> None:
    fill(store)
    arguments = TIMEOUT[store.kind.driver.partition("+")[2]]
    with opened(store, connect_args=arguments) as own, admin_of(store) as admin:
        own.get_tuple(thread())
        with admin.engine.execution_options(isolation_level="READ COMMITTED").begin() as holder:
            holder.exec_driver_sql("SELECT * FROM checkpoints FOR UPDATE")
            with pytest.raises(DBAPIError, match=r"statement timeout|max_statement_time"):
                own.delete_thread("a")
        assert own.saver.metrics.retries == 0
        own.delete_thread("a")
    assert store.rows() == (0, 0, 0)


@pytest.mark.parametrize(
    "migrated_store",
    [name for name, kind in KINDS.items() if kind.server == "mysql"],
    indirect=True,
)
def test_a_read_that_takes_too_long_ends_and_is_not_tried_again(store: Store) -> None:
    fill(store)
    arguments = {"init_command": "SET max_execution_time = 100"}  # of SELECT only
    with opened(store, connect_args=arguments) as own, admin_of(store) as admin:
        own.get_tuple(thread())
        with admin.engine.execution_options(isolation_level="READ COMMITTED").begin() as holder:
            holder.exec_driver_sql("LOCK TABLES checkpoints WRITE")
            with pytest.raises(DBAPIError, match="maximum statement execution time"):
                own.found(thread("a"))
            holder.exec_driver_sql("UNLOCK TABLES")
        assert own.saver.metrics.retries == 0
        assert own.found(thread("a"))


@on_servers
def test_a_password_changed_under_way_is_used_by_the_next_connection(store: Store) -> None:
    with role(store, "rotating") as url, admin_of(store) as admin, checked(store, "rotating"):
        current = PASSWORD
        stale = make_url(url).set(password="expired").render_as_string(hide_password=False)
        with opened(store, stale) as own:

            @event.listens_for(own.root, "do_connect")
            def use_current(_: object, __: object, ___: object, parameters: dict[str, Any]) -> None:
                parameters["password"] = current

            put(own, "1")
            who = quoted(store, "rotating")
            if store.kind.server == "postgresql":
                admin.exec_driver_sql(f"ALTER ROLE {who} PASSWORD 'second-Password2'")
                admin.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE usename = 'rotating'"
                )
            else:
                admin.exec_driver_sql(f"ALTER USER {who} IDENTIFIED BY 'second-Password2'")
                for number, user, *_ in list(admin.exec_driver_sql("SHOW PROCESSLIST")):
                    if user == "rotating":
                        admin.exec_driver_sql(f"KILL {number}")
            current = "second-Password2"
            put(own, "2", parent="1")
            assert own.saver.metrics.retries >= 1
            current = "wrong"
            with suppress(DBAPIError):
                own.sql("SELECT 1/0")
            (own.run(own.async_engine.dispose()) if own.async_engine else own.engine.dispose())
            with pytest.raises(Exception, match=r"(?i)password|denied"):  # asyncpg's own class
                put(own, "3")
    assert ids(store) == ["2", "1"]


@contextmanager
def checked(store: Store, name: str) -> Iterator[None]:
    """Have a PostgreSQL that trusts everybody ask for this role's password."""
    if store.kind.server != "postgresql":
        yield
        return
    with admin_of(store) as admin:
        path = Path(str(admin.exec_driver_sql("SHOW hba_file").scalar_one()))
        rules = path.read_text()
        path.write_text(f"host all {name} 127.0.0.1/32 scram-sha-256\n{rules}")
        admin.exec_driver_sql("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            path.write_text(rules)
            admin.exec_driver_sql("SELECT pg_reload_conf()")
