"""LangGraph's own conformance suite: every capability, on every engine, nothing skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from langgraph.checkpoint.conformance import validate
from langgraph.checkpoint.conformance.capabilities import Capability, DetectedCapabilities
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer
from langgraph.checkpoint.conformance.report import ProgressCallbacks
from langgraph.checkpoint.conformance.spec.test_copy_thread import ALL_COPY_THREAD_TESTS
from langgraph.checkpoint.conformance.spec.test_delete_for_runs import ALL_DELETE_FOR_RUNS_TESTS
from langgraph.checkpoint.conformance.spec.test_delete_thread import ALL_DELETE_THREAD_TESTS
from langgraph.checkpoint.conformance.spec.test_get_tuple import ALL_GET_TUPLE_TESTS
from langgraph.checkpoint.conformance.spec.test_list import ALL_LIST_TESTS
from langgraph.checkpoint.conformance.spec.test_prune import ALL_PRUNE_TESTS
from langgraph.checkpoint.conformance.spec.test_put import ALL_PUT_TESTS
from langgraph.checkpoint.conformance.spec.test_put_writes import ALL_PUT_WRITES_TESTS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.checkpoint.conformance.report import CapabilityResult
    from stores import Saver, Store

# What the suite has for each capability: a runner that stops early, or finds none, is no pass.
SPECIFIED = {
    Capability.PUT: ALL_PUT_TESTS,
    Capability.PUT_WRITES: ALL_PUT_WRITES_TESTS,
    Capability.GET_TUPLE: ALL_GET_TUPLE_TESTS,
    Capability.LIST: ALL_LIST_TESTS,
    Capability.DELETE_THREAD: ALL_DELETE_THREAD_TESTS,
    Capability.DELETE_FOR_RUNS: ALL_DELETE_FOR_RUNS_TESTS,
    Capability.COPY_THREAD: ALL_COPY_THREAD_TESTS,
    Capability.PRUNE: ALL_PRUNE_TESTS,
}


def registered(saver: Saver) -> RegisteredCheckpointer:
    async def factory() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        yield saver

    return RegisteredCheckpointer(name=type(saver).__name__, factory=factory)


def run_suite(store: Store, capability: Capability) -> tuple[CapabilityResult, list[str]]:
    """Run one capability's tests in the store's loop: what came out, and what passed."""
    passed: list[str] = []

    def on_test_result(_: str, name: str, ok: bool, error: str | None) -> None:
        if ok:
            passed.append(name)
        else:
            print(error)  # noqa: T201 - the report has only its last line

    report = store.run(
        validate(
            registered(store.saver),
            capabilities={capability.value},
            progress=ProgressCallbacks(on_test_result=on_test_result),
        )
    )
    return report.results[capability.value], passed


def test_every_capability_is_detected(store: Store) -> None:
    detected = DetectedCapabilities.from_instance(store.saver)
    assert detected.detected == set(Capability)
    assert detected.missing == set()


@pytest.mark.parametrize("incremental", [False, True], ids=["plain", "incremental"])
@pytest.mark.parametrize("capability", Capability, ids=lambda capability: capability.value)
def test_conforms(
    store: Store, capability: Capability, incremental: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint_sa.deltas.encoding.MIN_BYTES", 0)
    saver = store.make_saver(incremental=incremental)
    result, passed = run_suite(store.using(saver), capability)
    assert result.failures == []
    assert result.detected
    assert result.passed is True
    assert (result.tests_failed, result.tests_skipped) == (0, 0)
    assert passed == [test.__name__ for test in SPECIFIED[capability]]
