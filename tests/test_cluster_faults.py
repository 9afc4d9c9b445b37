"""Nodes of a cluster that fail: work goes on, once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from stores import KINDS, Store, thread
from test_faults import ids, put

if TYPE_CHECKING:
    from clusters import Galera, GroupReplication

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

OUTAGE = 8.0


@pytest.mark.parametrize("cluster", ["galera"], indirect=True)
@pytest.mark.parametrize("name", ["mysql-pymysql", "mysql-async"])
def test_a_put_outlives_a_node_without_the_others(cluster: Galera, name: str) -> None:
    store = Store(KINDS[name], cluster.url(KINDS[name].driver, 0))
    store.setup()
    store.clear()
    store.saver.retry_seconds = 60
    put(store, "1")
    cluster.kill(1)
    cluster.kill(2)
    try:
        deadline = time.monotonic() + 30
        while "non-Primary" not in (state := cluster.states()[0]):
            assert time.monotonic() < deadline, state
            time.sleep(0.05)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(put, store, "2", parent="1")
            time.sleep(OUTAGE)
            assert not waiting.done()
            cluster.bootstrap(0)
            waiting.result(30)
    finally:
        for node in (1, 2):
            cluster.restart(node)
    cluster.wait()
    assert store.saver.metrics.retries > 0
    assert ids(store) == ["2", "1"]
    store.close()


@pytest.mark.parametrize("cluster", ["group-replication"], indirect=True)
@pytest.mark.parametrize("name", ["mysql-pymysql", "mysql-async"])
def test_a_put_on_a_secondary_waits_until_it_is_the_primary(
    cluster: GroupReplication, name: str
) -> None:
    kind = KINDS[name]
    primary = cluster.primary()
    other = (primary + 1) % 3
    first = Store(kind, cluster.url(kind.driver, primary))
    first.setup()
    first.clear()
    put(first, "1")
    first.close()
    store = Store(kind, cluster.url(kind.driver, other))
    store.saver.retry_seconds = 60
    while not store.get_tuple(thread("a")):
        time.sleep(0.05)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(put, store, "2", parent="1")
        time.sleep(1)
        assert not waiting.done()
        cluster.ask(other, "DO group_replication_set_as_primary(@@server_uuid)")
        waiting.result(30)
    assert store.saver.metrics.retries > 0
    assert ids(store) == ["2", "1"]
    store.close()
