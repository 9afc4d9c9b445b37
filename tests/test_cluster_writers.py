"""Writers on all nodes of a cluster at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import DBAPIError
from stores import KINDS, Store, id_of, thread
from test_faults import put

from checkpoint_sa import ParentConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusters import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

RACES = 60
OPERATIONS = 60
on_all_nodes = pytest.mark.parametrize("cluster", ["galera", "multi-primary"], indirect=True)


@pytest.fixture(params=["mysql-pymysql", "mysql-async"])
def stores(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[list[Store]]:
    """A store on each node."""
    kind = KINDS[request.param]
    found = [Store(kind, cluster.url(kind.driver, node)) for node in range(len(cluster.nodes))]
    found[0].setup()
    found[0].clear()
    for store in found:
        store.saver.retry_seconds = 60
        wait_for(lambda store=store: store.rows() == (0, 0, 0))  # type: ignore[misc]
    yield found
    for store in found:
        store.close()


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            if is_so():
                return
        except DBAPIError:  # a table that isn't there yet
            pass
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_stored(store: Store, checkpoint_id: str) -> None:
    wait_for(lambda: store.get_tuple(thread("a", checkpoint_id=checkpoint_id)) is not None)


@on_all_nodes
@pytest.mark.parametrize("shallow", [False, True], ids=["all", "shallow"])
def test_of_two_writers_on_two_nodes_one_is_heard(stores: list[Store], *, shallow: bool) -> None:
    accepted = []
    parent = "000"
    put(stores[0], parent)
    for race in range(1, RACES + 1):
        pair = [stores[race % 3], stores[(race + 1) % 3]]
        for store in pair:
            wait_until_stored(store, parent)
        checking = [
            each.using(each.make_saver(check_parent=True, shallow=shallow, retry_seconds=60))
            for each in pair
        ]
        for store in checking:
            store.get_tuple(thread("other"))
        together = threading.Barrier(2)

        def write(i: int) -> str | None:
            together.wait()  # noqa: B023 - it runs within the loop
            try:
                put(checking[i], f"{race:03}-{i}", parent=parent)  # noqa: B023
            except ParentConflictError:
                return None
            return f"{race:03}-{i}"  # noqa: B023

        with ThreadPoolExecutor(2) as pool:
            stored = [each for each in pool.map(write, range(2)) if each]
        accepted.append(len(stored))
        parent = stored[-1]
    assert (accepted.count(2), accepted.count(0)) == (0, 0)
    wait_for(lambda: len(stores[0].list(thread("a"))) == (1 if shallow else RACES + 1))
    chain = stores[0].list(thread("a"))
    parents = [item.parent_config and id_of(item.parent_config) for item in chain]
    assert parents == [*[id_of(item.config) for item in chain[1:]], None]
    assert id_of(chain[0].config) == parent


@on_all_nodes
def test_operations_on_the_same_keys_through_all_nodes_all_succeed(stores: list[Store]) -> None:
    errors: list[Exception] = []

    def work(store: Store) -> None:
        for i in range(OPERATIONS):
            try:
                put(store, f"{i % 3}")
                store.put_writes(thread("a", checkpoint_id=f"{i % 3}"), [("x", 1)], "task")
                if i % 10 == 9:
                    store.delete_thread("a")
            except Exception as error:  # noqa: BLE001 - they are counted
                errors.append(error)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, stores))
    assert not errors, (len(errors), errors[0])
    assert sum(store.saver.metrics.retries for store in stores) > 0
    put(stores[0], "last")
    expected = stores[0].rows()
    for store in stores[1:]:
        wait_for(lambda store=store: store.rows() == expected)  # type: ignore[misc]
