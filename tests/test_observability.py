"""What an application can see of a saver: traces, counters, logs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stores import Store, thread

from checkpoint_sa import InvalidInputError, ThreadExistsError
from checkpoint_sa.engine import retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "planted-s3cret"


@pytest.fixture
def spans(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What is traced of a store whose engine is instrumented."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # As set_tracer_provider() does, which a process can call once.
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(retry, "_tracer", provider.get_tracer("checkpoint_sa"))
    SQLAlchemyInstrumentor().instrument(
        engine=store.root, tracer_provider=provider, skip_dep_check=True
    )
    yield exporter
    SQLAlchemyInstrumentor().uninstrument()


def test_spans_are_named_after_the_operation_and_hold_those_of_its_statements(
    store: Store, spans: InMemorySpanExporter
) -> None:
    config = store.save("a", {"x": [SECRET]})
    store.put_writes(config, [("x", SECRET)], "task")
    store.found(config)
    store.list(None)
    store.history(config, ["x"])
    store.copy_thread("a", "b")
    store.delete_for_runs(["r"])
    store.prune(["a"])
    store.delete_thread("a")
    with pytest.raises(ThreadExistsError):
        store.copy_thread("b", "b")
    finished = spans.get_finished_spans()
    operations = [span for span in finished if span.name.startswith("checkpoint_sa.")]
    assert [span.name.partition(".")[2] for span in operations] == [
        "put",
        "put_writes",
        "get_tuple",
        "list",
        "get_delta_channel_history",
        "copy_thread",
        "delete_for_runs",
        "prune",
        "delete_thread",
        "copy_thread",
    ]
    assert [span.status.is_ok for span in operations] == [True] * 9 + [False]
    ids = {span.context.span_id for span in operations if span.context}
    inner = [span for span in finished if span not in operations and span.name != "connect"]
    assert {span.parent.span_id for span in inner if span.parent} == ids
    assert all(span.parent for span in inner)
    assert SECRET not in "".join(span.to_json() for span in finished)


@pytest.mark.parametrize(
    ("operation", "use"),
    [
        ("prune", lambda store: store.prune(["a"], report=lambda _: None)),
        ("prune", lambda store: store.prune(["a"], strategy="delete")),
        ("prune", lambda store: store.prune(["a"], strategy="delete", report=lambda _: None)),
        ("prune", lambda store: store.prune(keep=1)),
        ("prunable", lambda store: store.prunable(keep=1)),
        ("delete_where", lambda store: store.delete_where({"step": 1})),
        ("delete_where", lambda store: store.delete_where({"step": 1}, whole_threads=False)),
        ("vacuum_orphans", lambda store: store.vacuum_orphans()),
        ("rewrite", lambda store: store.rewrite(incremental=True)),
        ("threads", lambda store: store.threads()),
    ],
)
def test_an_operation_of_many_steps_has_one_name(
    store: Store,
    spans: InMemorySpanExporter,
    operation: str,
    use: Callable[[Store], object],
) -> None:
    store.save("a", {"x": [1]})
    spans.clear()
    use(store)
    names = {span.name for span in spans.get_finished_spans()}
    assert {name for name in names if name.startswith("checkpoint_sa.")} == {
        f"checkpoint_sa.{operation}"
    }


def test_operations_and_failures_are_counted(store: Store) -> None:
    fresh = store.using(store.make_saver())
    config = fresh.save("a", {"x": [1]})
    fresh.found(config)
    with pytest.raises(ThreadExistsError):
        fresh.copy_thread("a", "a")
    with pytest.raises(InvalidInputError):
        fresh.found(thread("a" * 600))  # never gets to the database
    metrics = fresh.saver.metrics
    assert metrics[:4] == (3, 0, 1, 0)
    assert metrics.connections == 0
    assert "Pool size" in metrics.pool


def test_clones_count_together(store: Store) -> None:
    saver = store.make_saver()
    clone = saver.with_allowlist([("some.module", "Class")])
    store.using(clone).save("a", {"x": [1]})
    assert saver.metrics.operations == 1


def test_a_slow_operation_is_logged_by_its_name(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save("a", {"x": [SECRET]})
    assert not caplog.records
    monkeypatch.setattr(retry, "SLOW_SECONDS", 0)
    store.save("a", {"x": [SECRET]})
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("checkpoint_sa.slow", logging.WARNING)
    assert record.getMessage().startswith("put took 0.")
    assert SECRET not in caplog.text
