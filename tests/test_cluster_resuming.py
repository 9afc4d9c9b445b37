"""A graph that is interrupted on one node and resumed on another reads all that was written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypedDict

import pytest
from conftest import on
from graphs import App, app
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from stores import Kind, Store, thread
from test_cluster_writers import wait_for

if TYPE_CHECKING:
    from clusters import Cluster, GroupReplication, Patroni
    from langchain_core.runnables import RunnableConfig

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROUNDS = 300
MOST_ROUNDS = 5_000
SWITCHES = 3
SETTINGS = {
    "Galera": "SET SESSION wsrep_sync_wait = 1",
    "Group Replication": "SET SESSION group_replication_consistency = 'BEFORE'",
    "multi-primary Group Replication": "SET SESSION group_replication_consistency = 'BEFORE'",
}
"""The settings of docs/distributed.md."""


class State(TypedDict):
    question: str
    answer: str


def ask(state: State) -> dict[str, Any]:
    return {"answer": state["question"] + interrupt("?")}


BUILDER = StateGraph(State).add_node("ask", ask).add_edge(START, "ask")


def store_on(cluster: Cluster, kind: Kind, node: int, setting: str = "") -> Store:
    options = {"connect_args": {"init_command": setting}} if setting else {}
    store = Store(kind, cluster.url(kind.driver, node), **options)
    store.saver.retry_seconds = 60
    return store


def emptied(store: Store) -> Store:
    store.setup()
    store.clear()
    return store


def interrupted(graph: App, number: int) -> RunnableConfig:
    config = thread(f"{number}", ns=None)
    graph.invoke({"question": f"{number}"}, config)
    return config


@on("galera", "multi-primary")
def test_on_another_node_with_the_setting(cluster: Cluster, kind: Kind) -> None:
    setting = SETTINGS[cluster.kind]
    stores = [store_on(cluster, kind, node, setting) for node in range(3)]
    emptied(stores[0])
    graphs = [app(store, BUILDER) for store in stores]
    for number in range(ROUNDS):
        config = interrupted(graphs[number % 3], number)
        resumed = graphs[(number + 1) % 3].invoke(Command(resume="!"), config)
        assert resumed == {"question": f"{number}", "answer": f"{number}!"}
    for store in stores:
        store.close()


@on("group-replication")
def test_a_read_on_a_secondary_with_the_setting(cluster: GroupReplication, kind: Kind) -> None:
    assert stale_reads(cluster, kind, SETTINGS[cluster.kind], ROUNDS) == 0


@on("galera", "group-replication", "multi-primary")
def test_without_the_setting_a_read_may_be_stale(cluster: Cluster, kind: Kind) -> None:
    assert stale_reads(cluster, kind, "", MOST_ROUNDS, at_most=1) == 1


def stale_reads(
    cluster: Cluster, kind: Kind, setting: str, rounds: int, at_most: int | None = None
) -> int:
    """Count the interrupts that another node doesn't know of at once, up to a number of them."""
    primary = cluster.primary()
    here, there = (store_on(cluster, kind, (primary + i) % 3, setting) for i in range(2))
    emptied(here)
    wait_for(lambda: there.rows() == (0, 0, 0))
    graph, other = app(here, BUILDER), app(there, BUILDER)
    known: list[bool] = []
    for number in range(rounds):
        config = interrupted(graph, number)
        known.append(bool(other.state(config).interrupts))
        if at_most is not None and known.count(False) == at_most:
            break
    print(f"{known.count(False)} of {len(known)} reads were stale")  # noqa: T201 - see check() in test_cluster_load
    here.close()
    there.close()
    return known.count(False)


@on("group-replication", "patroni")
def test_after_another_node_has_become_the_primary(
    cluster: GroupReplication | Patroni, kind: Kind
) -> None:
    for number in range(SWITCHES):
        store = store_on(cluster, kind, cluster.primary())
        config = interrupted(app(emptied(store) if number == 0 else store, BUILDER), number)
        new = cluster.switch()
        while cluster.primary() != new:
            time.sleep(0.1)
        other = store_on(cluster, kind, new)
        resumed = app(other, BUILDER).invoke(Command(resume="!"), config)
        assert resumed == {"question": f"{number}", "answer": f"{number}!"}
        store.close()
        other.close()
        cluster.wait()
