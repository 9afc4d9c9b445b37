"""State that changes shape: upgraded on read and by `rewrite`, on every engine."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from graphs import App, T, app, joined
from langgraph.channels import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from stores import ONE_PER_COLOUR, Store, exact, id_of
from typing_extensions import TypedDict

from checkpoint_sa import AESGCMSerializer, InvalidInputError, StateUpgradeError
from checkpoint_sa.state import State, rename_channel, rename_node, set_default

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langgraph.checkpoint.base import CheckpointTuple

    from checkpoint_sa.state import Revision
    from checkpoint_sa.upgrading import StateDiff

pytestmark = pytest.mark.kinds(ONE_PER_COLOUR)

LONG = "x" * 3000
"""A text that isn't stored in a checkpoint's JSON, and is stored in a chain."""

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "incremental": {"incremental": True},
    "shallow": {"shallow": True},
    "encrypted": {"serde": AESGCMSerializer(b"k" * 32)},
}
in_every_form = pytest.mark.parametrize("form", list(FORMS))


class Before(TypedDict):
    text: str
    notes: Annotated[list[str], operator.add]


class After(TypedDict):
    summary: str
    notes: Annotated[list[str], operator.add]
    language: str


def asked(state: Before) -> dict[str, Any]:
    answer = interrupt("sure?")
    return {"notes": [f"{answer} {len(state['text'])}"]}


def asked_after(state: After) -> dict[str, Any]:
    answer = interrupt("sure?")
    return {"notes": [f"{answer} {len(state['summary'])} {state['language']}"]}


def beside(_: Any) -> dict[str, Any]:
    return {"notes": ["beside"]}


def ended(_: Any) -> dict[str, Any]:
    return {"notes": ["joined"]}


def old_graph() -> Any:
    """A graph that waits in `ask`, beside a task that has ended; a join starts `end`."""
    builder = StateGraph(Before)
    builder.add_node("ask", asked)
    builder.add_node("beside", beside)
    builder.add_node("end", ended)
    builder.add_edge(START, "ask")
    builder.add_edge(START, "beside")
    builder.add_edge(["ask", "beside"], "end")
    builder.add_edge("end", END)
    return builder


def new_graph() -> Any:
    builder = StateGraph(After)
    builder.add_node("confirm", asked_after)
    builder.add_node("beside", beside)
    builder.add_node("end", ended)
    builder.add_edge(START, "confirm")
    builder.add_edge(START, "beside")
    builder.add_edge(["confirm", "beside"], "end")
    builder.add_edge("end", END)
    return builder


REVISIONS: dict[str, Revision] = {
    "1_summary": rename_channel("text", "summary"),
    "2_confirm": rename_node("ask", "confirm"),
    "3_language": set_default("language", "en"),
}


def waiting(store: Store, form: str) -> App:
    """Run the old graph until its interrupt."""
    saver = store.make_saver(**FORMS[form])
    old = app(store, old_graph(), saver)
    assert "__interrupt__" in old.invoke({"text": LONG, "notes": ["begin"]})
    return old


def upgrading(store: Store, form: str, revisions: Mapping[str, Revision] = REVISIONS) -> Store:
    return store.using(store.make_saver(**FORMS[form], upgrade_state=revisions))


@in_every_form
def test_a_waiting_thread_resumes_in_a_graph_with_other_names(store: Store, form: str) -> None:
    waiting(store, form)
    newer = upgrading(store, form)
    new = app(newer, new_graph(), newer.saver)
    assert new.state().next == ("confirm",)
    done = new.invoke(Command(resume="yes"))
    expected = {
        "summary": LONG,
        "notes": ["begin", "beside", "yes 3000 en", "joined"],
        "language": "en",
    }
    assert {**done, "notes": sorted(done["notes"])} == {
        **expected,
        "notes": sorted(expected["notes"]),
    }
    # Another process reads the values from the database.
    other = upgrading(store, form)
    assert app(other, new_graph(), other.saver).state().values == done


@in_every_form
def test_a_rewritten_thread_resumes(store: Store, form: str) -> None:
    waiting(store, form)
    saver = store.using(store.make_saver(**FORMS[form]))
    count = len(saver.list(T))
    assert saver._do("rewrite", transform=REVISIONS) == count  # noqa: SLF001
    assert saver._do("rewrite", transform=REVISIONS) == 0  # noqa: SLF001
    newer = upgrading(store, form)
    new = app(newer, new_graph(), newer.saver)
    done = new.invoke(Command(resume="yes"))
    assert sorted(done["notes"]) == ["begin", "beside", "joined", "yes 3000 en"]
