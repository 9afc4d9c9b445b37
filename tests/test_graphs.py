"""Real LangGraph graphs on every engine, each driven through the methods of its saver's colour.

Run as a program, this file is the other process that resumes an interrupted graph.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import operator
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from graphs import App, T, anew, app
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables.config import set_config_context
from langchain_core.tools import tool
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Send, StateUpdate, interrupt
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool
from stores import KINDS, ONE_PER_SERVER, Store, id_of, thread
from typing_extensions import TypedDict

from checkpoint_sa import AsyncSQLAlchemySaver, InvalidInputError, SQLAlchemySaver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import RunnableConfig
    from langgraph.types import StateSnapshot

    Node = Callable[[Any], dict[str, Any]]

pytestmark = pytest.mark.kinds(ONE_PER_SERVER)

SYNC = [name for name, kind in KINDS.items() if not kind.is_async]
ASYNC = [name for name, kind in KINDS.items() if kind.is_async]
SERVERS = [name for name, kind in KINDS.items() if kind.server]

on_servers = pytest.mark.parametrize("migrated_store", SERVERS, indirect=True)
on_sync_engines = pytest.mark.parametrize("migrated_store", SYNC, indirect=True)
on_async_engines = pytest.mark.parametrize("migrated_store", ASYNC, indirect=True)


# Driving graphs


def at_namespace(namespace: str) -> RunnableConfig:
    return thread("t", ns=namespace)


def positions(history: Sequence[StateSnapshot]) -> list[int | None]:
    """Return where in a history each state's parent stands."""
    ids = [id_of(state.config) for state in history]
    return [
        ids.index(id_of(state.parent_config)) if state.parent_config else None for state in history
    ]


Words = Annotated[list[str], operator.add]


class Story(TypedDict):
    words: Words
    last: str


def says(word: str) -> Node:
    return lambda _: {"words": [word], "last": word}


def node(function: Any) -> Any:
    """Let a node call `interrupt` in async graphs on Python 3.10 too.

    It finds its run in a context variable, which asyncio can't hand on there.
    """
    if sys.version_info >= (3, 11) or not inspect.isroutine(function):
        return function

    def in_context(state: Any, config: RunnableConfig) -> Any:
        with set_config_context(config) as context:
            return context.run(function, state)

    return in_context


def line(*names: str, state: Any = Story, **nodes: Any) -> Any:
    """Build a graph of nodes in a row: each says its name unless `nodes` has another function."""
    builder: Any = StateGraph(state)
    for name in names:
        builder.add_node(name, node(nodes.get(name) or says(name)))
    builder.add_edge(START, names[0])
    for before, after in pairwise(names):
        builder.add_edge(before, after)
    builder.add_edge(names[-1], END)
    return builder


# Chat


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Clerk(BaseChatModel):
    """Adds the numbers of a question with a tool; without numbers, remembers the last sum."""

    @property
    def _llm_type(self) -> str:
        return "clerk"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        asked = str(messages[-1].content)
        numbers = [int(word) for word in asked.split() if word.isdigit()]
        if isinstance(messages[-1], HumanMessage) and numbers:
            arguments = dict(zip("ab", numbers, strict=True))
            call = {"name": "add", "args": arguments, "id": f"call-{len(messages)}"}
            answer = AIMessage("", tool_calls=[call])
        else:
            sums = [message.content for message in messages if isinstance(message, ToolMessage)]
            answer = AIMessage(f"The sum is {sums[-1]}.")
        return ChatResult(generations=[ChatGeneration(message=answer)])


def chat() -> Any:
    def model(state: MessagesState) -> dict[str, Any]:
        return {"messages": [Clerk().invoke(state["messages"])]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("tools", ToolNode([add]))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder


def contents(messages: Sequence[BaseMessage]) -> list[tuple[str, Any]]:
    return [(message.type, message.content) for message in messages]


FIRST_TURN = [
    ("human", "add 17 and 25"),
    ("ai", ""),
    ("tool", "42"),
    ("ai", "The sum is 42."),
]


def test_a_chat_calls_a_tool_and_keeps_the_conversation(store: Store) -> None:
    said = app(store, chat()).invoke({"messages": [HumanMessage("add 17 and 25")]})["messages"]
    assert contents(said) == FIRST_TURN
    assert said[1].tool_calls == [
        {"name": "add", "args": {"a": 17, "b": 25}, "id": "call-1", "type": "tool_call"}
    ]
    found = anew(store, chat()).state().values["messages"]
    assert found == said  # whole messages: ids, tool calls, response metadata


def test_the_next_turn_of_a_chat_remembers_the_one_before(store: Store) -> None:
    app(store, chat()).invoke({"messages": [HumanMessage("add 17 and 25")]})
    said = anew(store, chat()).invoke({"messages": [HumanMessage("and what was that?")]})
    assert contents(said["messages"]) == [
        *FIRST_TURN,
        ("human", "and what was that?"),
        ("ai", "The sum is 42."),
    ]


def test_another_thread_of_a_chat_knows_nothing_of_it(store: Store) -> None:
    talk = app(store, chat())
    talk.invoke({"messages": [HumanMessage("add 17 and 25")]})
    other = talk.invoke({"messages": [HumanMessage("add 1 and 2")]}, thread("T", ns=None))
    assert contents(other["messages"])[-1] == ("ai", "The sum is 3.")
    assert contents(talk.state().values["messages"]) == FIRST_TURN


def test_a_chat_streams_its_updates_and_its_checkpoints(store: Store) -> None:
    question = {"messages": [HumanMessage("add 17 and 25")]}
    chunks = app(store, chat()).stream(question, stream_mode=["updates", "checkpoints"])
    nodes = [node for mode, chunk in chunks if mode == "updates" for node in chunk]
    assert nodes == ["model", "tools", "model"]
    streamed = [id_of(chunk["config"]) for mode, chunk in chunks if mode == "checkpoints"]
    stored = [id_of(state.config) for state in anew(store, chat()).history()]
    assert streamed == stored[::-1]


# Interrupt and resume


class Draft(TypedDict):
    steps: Annotated[list[str], operator.add]
    size: int


def approval() -> Any:
    """Write, ask a human, publish."""

    def ask(state: Draft) -> dict[str, Any]:
        answer = interrupt({"question": "Publish?", "size": state["size"]})
        return {"steps": [f"answer {answer}"]}

    return line(
        *("write", "ask", "publish"),
        state=Draft,
        write=lambda _: {"steps": ["written"], "size": 2**40},
        ask=ask,
        publish=lambda state: {"steps": [f"published in process {os.getpid()}"]},
    )


class OtherProcess:
    """A new interpreter that resumes approval graphs: it is given URLs and nothing else."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def resume(self, store: Store, answer: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        job = {"is_async": store.kind.is_async, "url": store.url, "answer": answer}
        print(json.dumps(job), file=self.process.stdin, flush=True)
        result = self.process.stdout.readline()
        assert result, self.end()
        return dict(json.loads(result))

    def end(self) -> str:
        """End it, and return what it had to complain about."""
        _, errors = self.process.communicate(timeout=60)
        return errors


def resume_here(job: dict[str, Any]) -> dict[str, Any]:
    """Be the other process."""

    async def resume() -> tuple[StateSnapshot, Any]:
        async with AsyncSQLAlchemySaver.from_conn_string(job["url"]) as saver:
            graph = approval().compile(checkpointer=saver)
            return await graph.aget_state(T), await graph.ainvoke(Command(resume=job["answer"]), T)

    if job["is_async"]:
        found, result = asyncio.run(resume())
    else:
        with SQLAlchemySaver.from_conn_string(job["url"]) as saver:
            graph = approval().compile(checkpointer=saver)
            found, result = graph.get_state(T), graph.invoke(Command(resume=job["answer"]), T)
    asked = [question.value for question in found.interrupts]
    return {"pid": os.getpid(), "asked": asked, "result": result}


@pytest.fixture(scope="module")
def other_process() -> Iterator[OtherProcess]:
    process = OtherProcess()
    yield process
    assert process.end() == ""
    assert process.process.returncode == 0


def test_an_interrupted_graph_resumes_in_another_process(
    store: Store, other_process: OtherProcess
) -> None:
    here = app(store, approval())
    here.invoke({"steps": []})
    there = other_process.resume(store, "yes")
    assert there["pid"] == other_process.process.pid != os.getpid()
    assert there["asked"] == [{"question": "Publish?", "size": 2**40}]
    steps = ["written", "answer yes", f"published in process {there['pid']}"]
    assert there["result"] == {"steps": steps, "size": 2**40}
    assert here.state().values == {"steps": steps, "size": 2**40}
    assert here.state().next == ()


def test_an_interrupt_waits_in_the_database(store: Store) -> None:
    result = app(store, approval()).invoke({"steps": []})
    assert [waiting.value["question"] for waiting in result["__interrupt__"]] == ["Publish?"]
    found = anew(store, approval()).state()
    assert found.next == ("ask",)
    assert found.interrupts == tuple(result["__interrupt__"])
    assert found.values == {"steps": ["written"], "size": 2**40}


def test_two_interrupts_are_resumed_by_their_ids_one_after_the_other(store: Store) -> None:
    def asks(name: str) -> Node:
        return lambda _: {"words": [f"{name}:{interrupt(name)}"]}

    builder: Any = StateGraph(Story)
    for name in ("left", "right"):
        builder.add_node(name, node(asks(name)))
        builder.add_edge(START, name)
    app(store, builder).invoke({"words": []})
    waiting = {question.value: question.id for question in anew(store, builder).state().interrupts}
    assert waiting.keys() == {"left", "right"}
    anew(store, builder).invoke(Command(resume={waiting["right"]: "R"}))
    assert [question.value for question in anew(store, builder).state().interrupts] == ["left"]
    result = anew(store, builder).invoke(Command(resume={waiting["left"]: "L"}))
    assert result["words"] == ["left:L", "right:R"]


def test_a_node_that_asks_twice_keeps_the_first_answer(store: Store) -> None:
    builder = line("ask", ask=lambda _: {"words": [interrupt("one?"), interrupt("two?")]})
    app(store, builder).invoke({"words": []})
    anew(store, builder).invoke(Command(resume="1"))
    assert anew(store, builder).invoke(Command(resume="2"))["words"] == ["1", "2"]


def test_a_breakpoint_before_a_node_stops_there_and_goes_on(store: Store) -> None:
    stopped = app(store, line("a", "b", "c")).invoke({"words": []}, interrupt_before=["b"])
    assert stopped["words"] == ["a"]
    assert anew(store, line("a", "b", "c")).state().next == ("b",)
    assert anew(store, line("a", "b", "c")).invoke(None)["words"] == ["a", "b", "c"]


# Subgraphs


def nested() -> Any:
    """Build three levels; the innermost one asks."""
    inner = line("begin", "ask", ask=lambda _: {"words": [f"answer {interrupt('go on?')}"]})
    middle = line("before", "inner", "after", inner=inner.compile())
    return line("first", "middle", "final", middle=middle.compile())


LAST_WORDS = ["answer yes", "after", "final"]


def words_of(state: StateSnapshot) -> list[str]:
    return list(state.values.get("words", []))


def below(state: StateSnapshot) -> StateSnapshot:
    """Return the state of the only subgraph that is running."""
    (running,) = state.tasks
    assert running.state is not None
    return running.state  # type: ignore[return-value]


def test_the_states_of_all_levels_are_found_while_the_innermost_waits(store: Store) -> None:
    app(store, nested()).invoke({"words": []})
    root = anew(store, nested()).state(subgraphs=True)
    middle = below(root)
    inner = below(middle)
    assert [(words_of(state), state.next) for state in (root, middle, inner)] == [
        (["first"], ("middle",)),
        (["first", "before"], ("inner",)),
        (["first", "before", "begin"], ("ask",)),
    ]
    namespaces = [s.config["configurable"]["checkpoint_ns"] for s in (root, middle, inner)]
    assert namespaces[0] == ""
    assert [part.split(":")[0] for part in namespaces[2].split("|")] == ["middle", "inner"]
    assert namespaces[2].startswith(f"{namespaces[1]}|")
    assert inner.interrupts[0].value == "go on?"


def test_a_subgraph_resumes_where_it_stopped(store: Store) -> None:
    app(store, nested()).invoke({"words": []})
    assert anew(store, nested()).invoke(Command(resume="yes"))["words"][-3:] == LAST_WORDS


def test_each_namespace_has_a_history_of_its_own(store: Store) -> None:
    runs = app(store, nested())
    runs.invoke({"words": []})
    middle = below(runs.state(subgraphs=True))
    inner = below(middle)
    runs.invoke(Command(resume="yes"))
    later = anew(store, nested())
    found = [
        [(words_of(state), state.next) for state in later.history(config)]
        for config in (
            at_namespace(middle.config["configurable"]["checkpoint_ns"]),
            at_namespace(inner.config["configurable"]["checkpoint_ns"]),
        )
    ]
    begun = ["first", "before", "begin"]
    assert found[1] == [
        ([*begun, "answer yes"], ()),
        (begun, ("ask",)),
        (begun[:2], ("begin",)),
        ([], ("__start__",)),
    ]
    assert [after for _, after in found[0]] == [
        *((), ("after",), ("inner",), ("before",), ("__start__",)),
    ]
    assert [state.next for state in later.history()] == [
        *((), ("final",), ("middle",), ("first",), ("__start__",)),
    ]


def test_a_subgraph_is_streamed_with_its_namespace(store: Store) -> None:
    chunks = app(store, nested()).stream({"words": []}, subgraphs=True, stream_mode="updates")
    seen = [
        (tuple(part.split(":")[0] for part in namespace), node)
        for namespace, chunk in chunks
        for node in chunk
        if node != "__interrupt__"
    ]
    assert seen == [
        ((), "first"),
        (("middle",), "before"),
        (("middle", "inner"), "begin"),
    ]


def test_two_calls_of_one_subgraph_do_not_share_a_namespace(store: Store) -> None:
    child = line("only")
    runs = app(store, line("left", "right", left=child.compile(), right=child.compile()))
    runs.invoke({"words": ["in"]})
    namespaces = {item.config["configurable"]["checkpoint_ns"] for item in store.list(T)}
    assert sorted(namespace.split(":")[0] for namespace in namespaces) == ["", "left", "right"]


class Calls(TypedDict):
    last: str
    calls: Annotated[int, operator.add]


def counting() -> Any:
    """Build a graph whose subgraph has a memory of its own."""
    child = line("count", state=Calls, count=lambda _: {"calls": 1})
    return line("child", child=child.compile(checkpointer=True))


def test_a_subgraph_with_a_memory_of_its_own_remembers_earlier_calls(store: Store) -> None:
    for number in range(3):
        anew(store, counting()).invoke({"words": [], "last": f"call {number}"})
    child = anew(store, counting()).state(at_namespace("child"))
    assert child.values == {"last": "call 2", "calls": 3}
    namespaces = {item.config["configurable"]["checkpoint_ns"] for item in store.list(T)}
    assert namespaces == {"", "child"}


def deep(levels: int, name: str) -> Any:
    """Build a graph with so many levels of subgraphs; the innermost one asks."""
    builder = line(name, **{name: lambda _: {"words": [interrupt("how deep?")]}})
    for _ in range(levels):
        builder = line(name, **{name: builder.compile()})
    return builder


def test_forty_levels_of_subgraphs_are_interrupted_and_resumed(store: Store) -> None:
    builder = deep(40, "twelve_chars")
    app(store, builder).invoke({"words": []})
    assert anew(store, builder).invoke(Command(resume="forty"))["words"] == ["forty"]
    namespaces = {item.config["configurable"]["checkpoint_ns"] for item in store.list(T)}
    assert len(namespaces) == 41
    assert max(map(len, namespaces)) == 40 * len("twelve_chars:") + 40 * 36 + 39


def test_more_levels_of_subgraphs_than_fit_get_a_clear_error(sqlite_store: Store) -> None:
    with pytest.raises(InvalidInputError, match=r"checkpoint_ns has 2049 bytes, 2000 fit"):
        app(sqlite_store, deep(41, "twelve_chars")).invoke({"words": []})


# Send


class Parcel(TypedDict):
    number: int


def fan_out(count: int, work: Node) -> Any:
    builder: Any = StateGraph(Story)
    builder.add_node("split", says("split"))
    builder.add_node("work", node(work))
    builder.add_node("join", says("join"))
    builder.add_edge(START, "split")
    builder.add_conditional_edges(
        "split", lambda _: [Send("work", {"number": n}) for n in range(count)], ["work"]
    )
    builder.add_edge("work", "join")
    return builder


DONE = [f"done {n}" for n in range(20)]


def test_a_fan_out_of_sends_comes_together_in_order(store: Store) -> None:
    builder = fan_out(20, lambda parcel: {"words": [f"done {parcel['number']}"]})
    app(store, builder).invoke({"words": []})
    assert words_of(anew(store, builder).state()) == ["split", *DONE, "join"]


def test_pending_sends_wait_in_the_database(store: Store) -> None:
    builder = fan_out(3, lambda parcel: {"words": [f"done {parcel['number']}"]})
    app(store, builder).invoke({"words": []}, interrupt_before=["work"])
    assert anew(store, builder).state().next == ("work", "work", "work")
    assert anew(store, builder).invoke(None)["words"] == ["split", *DONE[:3], "join"]


def test_one_of_many_sends_that_asks_keeps_the_results_of_the_others(store: Store) -> None:
    runs: Counter[int] = Counter()

    def work(parcel: Parcel) -> dict[str, Any]:
        runs[parcel["number"]] += 1
        if parcel["number"] == 7:
            return {"words": [f"asked {interrupt('seven?')}"]}
        return {"words": [f"done {parcel['number']}"]}

    builder = fan_out(20, work)
    app(store, builder).invoke({"words": []})
    waiting = [t.name for t in anew(store, builder).state().tasks if t.result is None]
    assert waiting == ["work"]
    words = anew(store, builder).invoke(Command(resume="yes"))["words"]
    assert words == ["split", *DONE[:7], "asked yes", *DONE[8:], "join"]
    assert runs == {n: 2 if n == 7 else 1 for n in range(20)}


# Failure


class Unlucky:
    """Three nodes in one superstep; the last one fails at its first run."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        builder: Any = StateGraph(Story)
        for name in ("left", "right", "unlucky"):
            builder.add_node(name, partial(self.run, name=name))
            builder.add_edge(START, name)
            builder.add_edge(name, "join")
        builder.add_node("join", says("join"))
        self.builder = builder

    def run(self, _: Story, name: str) -> dict[str, Any]:
        self.runs.append(name)
        if self.runs == ["left", "right", "unlucky"]:
            raise ConnectionError("the service is down")
        return {"words": [name]}

    def fail(self, store: Store, **options: Any) -> None:
        one_by_one: RunnableConfig = {**T, "max_concurrency": 1}
        with pytest.raises(ConnectionError, match="the service is down"):
            app(store, self.builder).invoke({"words": []}, one_by_one, **options)
        assert self.runs == ["left", "right", "unlucky"]


def test_a_failed_node_is_seen_with_its_error_and_the_results_of_the_others(store: Store) -> None:
    unlucky = Unlucky()
    unlucky.fail(store)
    found = anew(store, unlucky.builder).state()
    assert found.next == ("unlucky",)
    assert {t.name: (t.result, t.error) for t in found.tasks} == {
        "left": ({"words": ["left"]}, None),
        "right": ({"words": ["right"]}, None),
        "unlucky": (None, "ConnectionError('the service is down')"),
    }


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_failed_node_runs_again_and_the_others_do_not(store: Store, durability: str) -> None:
    unlucky = Unlucky()
    unlucky.fail(store, durability=durability)
    result = anew(store, unlucky.builder).invoke(None)
    assert result["words"] == ["left", "right", "unlucky", "join"]
    assert unlucky.runs == ["left", "right", "unlucky", "unlucky"]
    assert anew(store, unlucky.builder).state().next == ()


# Time travel


def test_a_run_from_an_old_checkpoint_begins_a_branch(store: Store) -> None:
    runs = app(store, line("a", "b", "c"))
    runs.invoke({"words": ["in"]})
    before_c = next(state for state in runs.history() if state.next == ("c",))
    branch = anew(store, line("a", "b", "c", c=says("C")))
    assert branch.invoke(None, before_c.config)["words"] == ["in", "a", "b", "C"]
    assert words_of(branch.state()) == ["in", "a", "b", "C"]
    ends = [state for state in branch.history() if not state.next]
    assert [words_of(state) for state in ends] == [["in", "a", "b", "C"], ["in", "a", "b", "c"]]


def test_two_forks_of_one_base_read_their_own_data(store: Store) -> None:
    """JS#2584: with versions that only count, the second fork reads what the first one stored."""
    runs = app(store, line("a", "b", "c"))
    runs.invoke({"words": ["in"]})
    base = next(state for state in runs.history() if state.next == ("b",)).config
    forks = {name: runs.update({"words": [name], "last": name}, base) for name in ("x", "y", "z")}
    for fork in forks.values():
        anew(store, line("a", "b", "c")).invoke(None, fork)
    later = anew(store, line("a", "b", "c"))
    for name, fork in forks.items():
        assert later.state(fork).values == {"words": ["in", "a", name], "last": name}
        assert later.state(fork).parent_config == base
    assert [words_of(state) for state in later.history() if not state.next] == [
        ["in", "a", "z", "b", "c"],
        ["in", "a", "y", "b", "c"],
        ["in", "a", "x", "b", "c"],
        ["in", "a", "b", "c"],
    ]


def test_every_state_of_a_branch_reads_the_data_of_its_own_ancestors(store: Store) -> None:
    runs = app(store, line("a", "b"))
    runs.invoke({"words": ["in"]})
    base = next(state for state in runs.history() if state.next == ("b",)).config
    for name in ("x", "y"):
        runs.invoke(None, runs.update({"words": [name]}, base))
    history = anew(store, line("a", "b")).history()
    for state, parent in zip(history, positions(history), strict=True):
        if parent is not None:
            inherited = words_of(history[parent])
            assert words_of(state)[: len(inherited)] == inherited
    assert len(history) == 4 + 2 * 2


def test_an_answer_can_be_given_differently_in_a_branch(store: Store) -> None:
    runs = app(store, approval())
    runs.invoke({"steps": []})
    runs.invoke(Command(resume="yes"))
    first = runs.state().config
    asked = next(state for state in runs.history() if state.interrupts)
    anew(store, approval()).invoke(None, asked.config)
    anew(store, approval()).invoke(Command(resume="no"))
    later = anew(store, approval())
    assert later.state(first).values["steps"][1] == "answer yes"
    assert later.state().values["steps"][1] == "answer no"


# update_state


def test_an_update_is_a_checkpoint_of_its_own(store: Store) -> None:
    runs = app(store, line("a", "b"))
    runs.invoke({"words": []})
    before = runs.state().config
    config = runs.update({"words": ["human"], "last": "human"})
    found = anew(store, line("a", "b")).state()
    assert id_of(found.config) == id_of(config)
    assert found.values == {"words": ["a", "b", "human"], "last": "human"}
    assert found.metadata is not None
    assert (found.metadata["source"], found.metadata["step"]) == ("update", 3)
    assert found.parent_config == before


def test_an_update_as_a_node_goes_on_after_that_node(store: Store) -> None:
    runs = app(store, line("a", "b", "c"))
    runs.update({"words": ["instead of a"]}, as_node="a")
    assert anew(store, line("a", "b", "c")).state().next == ("b",)
    assert anew(store, line("a", "b", "c")).invoke(None)["words"] == ["instead of a", "b", "c"]


def test_an_update_in_bulk_is_one_checkpoint_for_each_superstep(store: Store) -> None:
    builder: Any = StateGraph(Story)
    for name in ("left", "right"):
        builder.add_node(name, says(name))
        builder.add_edge(START, name)
    app(store, builder).bulk_update(
        [
            [StateUpdate({"words": ["in"]}, START)],
            [StateUpdate({"words": ["L"]}, "left"), StateUpdate({"words": ["R"]}, "right")],
            [StateUpdate({"words": ["more"], "last": "more"}, "left")],
        ]
    )
    history = anew(store, builder).history()
    assert [(words_of(state), state.next) for state in history] == [
        (["in", "L", "R", "more"], ()),
        (["in", "L", "R"], ()),
        (["in"], ("left", "right")),
    ]
    assert positions(history) == [1, 2, None]


def test_an_update_while_a_node_waits_is_seen_by_that_node(store: Store) -> None:
    runs = app(store, approval())
    runs.invoke({"steps": []})
    runs.update({"size": 5})
    assert anew(store, approval()).state().interrupts == ()  # a new checkpoint, not asked yet
    asked = anew(store, approval()).invoke(None)["__interrupt__"]
    assert [question.value for question in asked] == [{"question": "Publish?", "size": 5}]


# History

STEPS = [2, 1, 0, -1]
HISTORY = [
    (["in", "a", "b"], (), "loop"),
    (["in", "a"], ("b",), "loop"),
    (["in"], ("a",), "loop"),
    ([], ("__start__",), "input"),
]


@pytest.mark.parametrize(
    ("criteria", "steps"),
    [
        ({}, [2, 1, 0, -1]),
        ({"limit": 1}, [2]),
        ({"limit": 3}, [2, 1, 0]),
        ({"filter": {"source": "loop"}}, [2, 1, 0]),
        ({"filter": {"source": "input"}}, [-1]),
        ({"filter": {"step": 1}}, [1]),
        ({"filter": {"source": "loop", "step": -1}}, []),
        ({"filter": {"source": "loop"}, "limit": 2}, [2, 1]),
        ({"before": 1}, [0, -1]),
        ({"before": 1, "limit": 1}, [0]),
        ({"before": 2, "filter": {"source": "loop"}}, [1, 0]),
        ({"before": 2, "filter": {"source": "loop"}, "limit": 1}, [1]),
        ({"before": -1}, []),
    ],
    ids=str,
)
def test_the_history_takes_filter_before_and_limit(
    store: Store, criteria: dict[str, Any], steps: list[int]
) -> None:
    runs = app(store, line("a", "b"))
    runs.invoke({"words": ["in"]})
    runs.invoke({"words": ["other"]}, thread("T", ns=None))
    configs = dict(zip(STEPS, [state.config for state in runs.history()], strict=True))
    if "before" in criteria:
        criteria = {**criteria, "before": configs[criteria["before"]]}
    found = anew(store, line("a", "b")).history(**criteria)
    assert [state.metadata["step"] for state in found if state.metadata] == steps
    assert [id_of(state.config) for state in found] == [id_of(configs[step]) for step in steps]


def test_the_history_has_each_state_with_its_source_and_parent(store: Store) -> None:
    app(store, line("a", "b")).invoke({"words": ["in"]})
    history = anew(store, line("a", "b")).history()
    assert [
        (words_of(state), state.next, state.metadata["source"])
        for state in history
        if state.metadata
    ] == HISTORY
    assert positions(history) == [1, 2, 3, None]


def test_the_history_of_a_thread_that_never_ran_is_empty(store: Store) -> None:
    runs = app(store, line("a", "b"))
    assert runs.history() == []
    assert (runs.state().values, runs.state().next) == ({}, ())


def test_metadata_and_tags_of_a_run_are_found_by_filter(store: Store) -> None:
    runs = app(store, line("a"))
    for user in ("ann", "bob"):
        runs.invoke({"words": [user]}, {**T, "metadata": {"user": user}})
    found = anew(store, line("a")).history(filter={"user": "ann"})
    assert [words_of(state) for state in found] == [["ann", "a"], ["ann"], []]


# DeltaChannel

SNAPSHOT_FREQUENCY = 4


def joined(state: list[str], writes: Sequence[list[str]]) -> list[str]:
    return [*state, *chain.from_iterable(writes)]


Log = Annotated[list[str], DeltaChannel(joined, snapshot_frequency=SNAPSHOT_FREQUENCY)]


class Journal(TypedDict):
    log: Log
    turn: int


def journal() -> Any:
    return line(
        *("morning", "evening"),
        state=Journal,
        morning=lambda state: {"log": [f"morning {state['turn']}"]},
        evening=lambda state: {"log": [f"evening {state['turn']}"]},
    )


def write_journal(runs: App, *turns: int, **options: Any) -> None:
    for turn in turns:
        runs.invoke({"log": [f"day {turn}"], "turn": turn}, **options)


def pages(*turns: int) -> list[str]:
    return [f"{what} {turn}" for turn in turns for what in ("day", "morning", "evening")]


def text_key(store: Store, value: str) -> str | bytes:
    """Return a key as its column holds it."""
    return value.encode() if store.kind.server in ("mariadb", "mysql") else value


def stored_snapshots(store: Store) -> int:
    """Count the stored values of the log: a few, not one for each step."""
    found = store.sql(
        "SELECT count(*) FROM checkpoint_blobs WHERE channel = :channel AND type <> 'empty'",
        channel=text_key(store, "log"),
    )
    return int(found[0][0])


def test_a_delta_channel_is_rebuilt_over_several_snapshots(store: Store) -> None:
    write_journal(app(store, journal()), *range(10))
    assert anew(store, journal()).state().values == {"log": pages(*range(10)), "turn": 9}
    assert stored_snapshots(store) == 30 // SNAPSHOT_FREQUENCY


def test_every_state_in_the_history_of_a_delta_channel_is_rebuilt(store: Store) -> None:
    write_journal(app(store, journal()), *range(5))
    logs = [state.values.get("log", []) for state in anew(store, journal()).history()]
    everything = pages(*range(5))
    expected = [everything[: 3 * turn + written] for turn in range(5) for written in (0, 1, 2, 3)]
    assert logs == expected[::-1]


def test_forks_of_a_delta_channel_read_their_own_writes(store: Store) -> None:
    runs = app(store, journal())
    write_journal(runs, *range(3))
    base = next(
        state
        for state in runs.history()
        if state.next == ("evening",) and state.values["turn"] == 1
    )
    forks = {name: runs.update({"log": [name]}, base.config) for name in ("x", "y")}
    for name, fork in forks.items():
        result = anew(store, journal()).invoke(None, fork)
        assert result["log"] == [*pages(0), "day 1", "morning 1", name, "evening 1"]
    later = anew(store, journal())
    for name, fork in forks.items():
        assert later.state(fork).values["log"] == [*pages(0), "day 1", "morning 1", name]
    assert later.state(base.config).values["log"] == [*pages(0), "day 1", "morning 1"]
    ends = [state.values["log"] for state in later.history() if state.next == ()]
    assert pages(0, 1, 2) in ends


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_delta_channel_goes_on_in_any_durability(store: Store, durability: str) -> None:
    for turn in range(6):
        write_journal(anew(store, journal()), turn, durability=durability)
    assert anew(store, journal()).state().values["log"] == pages(*range(6))


def test_a_delta_channel_survives_pruning_and_goes_on(store: Store) -> None:
    """LG#8531: keeping only the latest checkpoint would leave nothing to rebuild from."""
    write_journal(app(store, journal()), *range(5))
    before = store.rows()
    store.prune(["t"])
    assert store.rows() < before
    assert anew(store, journal()).state().values["log"] == pages(*range(5))
    write_journal(anew(store, journal()), 5)
    assert anew(store, journal()).state().values["log"] == pages(*range(6))


def test_a_copied_thread_has_its_delta_channel_and_a_future_of_its_own(store: Store) -> None:
    write_journal(app(store, journal()), *range(3))
    store.copy_thread("t", "copy")
    copy = thread("copy", ns=None)
    anew(store, journal()).invoke({"log": ["elsewhere"], "turn": 7}, copy)
    later = anew(store, journal())
    assert later.state(copy).values["log"] == [
        *pages(0, 1, 2),
        *("elsewhere", "morning 7", "evening 7"),
    ]
    assert later.state().values["log"] == pages(0, 1, 2)


class PlainList(TypedDict):
    log: Words


class DeltaList(TypedDict):
    log: Log


class PlainText(TypedDict):
    log: Annotated[str, operator.add]


class DeltaText(TypedDict):
    log: Annotated[str, DeltaChannel(lambda text, writes: text + "".join(writes))]


@pytest.mark.parametrize(
    ("plain", "delta", "parts"),
    [(PlainList, DeltaList, [["a"], ["b"], ["c"]]), (PlainText, DeltaText, ["a", "b", "c"])],
    ids=["list", "str"],
)
def test_a_channel_that_becomes_a_delta_channel_keeps_its_past(
    store: Store, plain: Any, delta: Any, parts: list[Any]
) -> None:
    """LG#8384: the value from before is found where it is stored, as a blob or in JSON."""
    nothing: dict[str, Node] = {"note": lambda _: {}}
    app(store, line("note", state=plain, **nothing)).invoke({"log": parts[0]})
    store.prune(["t"])  # the writes that made the value are gone
    before = store.found(T).config
    for part in parts[1:]:
        anew(store, line("note", state=delta, **nothing)).invoke({"log": part})
    later = anew(store, line("note", state=delta, **nothing))
    assert later.state().values["log"] == parts[0] + parts[1] + parts[2]
    assert later.state(before).values["log"] == parts[0]


def test_a_delta_channel_in_a_subgraph_is_rebuilt_there(store: Store) -> None:
    child = line(
        *("note", "ask"),
        state=Journal,
        note=lambda _: {"log": ["noted"]},
        ask=lambda _: {"log": [interrupt("more?")]},
    )
    builder = line("child", state=Journal, child=child.compile())
    app(store, builder).invoke({"log": ["in"], "turn": 0})
    assert below(anew(store, builder).state(subgraphs=True)).values["log"] == ["in", "noted"]
    anew(store, builder).invoke(Command(resume="yes"))
    (namespace,) = {item.config["configurable"]["checkpoint_ns"] for item in store.list(T)} - {""}
    assert anew(store, builder).state(at_namespace(namespace)).values["log"] == [
        *("in", "noted", "yes"),
    ]


# Durability


@pytest.fixture
def beside(store: Store) -> Iterator[Engine]:
    """Reach the same database beside the saver, from any thread: with a sync driver."""
    drivers = {kind.server: kind.driver for kind in KINDS.values() if not kind.is_async}
    url = make_url(store.url).set(drivername=drivers[store.kind.server])
    # The MySQL family's default would lock the gaps between rows as well.
    options = {"isolation_level": "READ COMMITTED"} if store.kind.server else {}
    engine = create_engine(url, poolclass=NullPool, **options)
    yield engine
    engine.dispose()


def count_checkpoints(beside: Engine) -> int:
    with beside.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM checkpoints")) or 0)


def observed(beside: Engine, seen: list[int]) -> Any:
    def node(_: Story) -> dict[str, Any]:
        seen.append(count_checkpoints(beside))
        return {"words": [f"{len(seen)}"]}

    return line("a", "b", "c", a=node, b=node, c=node)


def test_durability_sync_stores_a_step_before_the_next_one_begins(
    store: Store, beside: Engine
) -> None:
    seen: list[int] = []
    app(store, observed(beside, seen)).invoke({"words": []}, durability="sync")
    # What the first node sees of the input's checkpoint, LangGraph leaves open.
    assert seen[1:] == [3, 4]
    assert count_checkpoints(beside) == 5


def test_durability_exit_stores_one_checkpoint_at_the_end(store: Store, beside: Engine) -> None:
    seen: list[int] = []
    builder = observed(beside, seen)
    app(store, builder).invoke({"words": []}, durability="exit")
    assert seen == [0, 0, 0]
    assert count_checkpoints(beside) == 1
    assert words_of(anew(store, builder).state()) == ["1", "2", "3"]


def test_durability_async_has_stored_every_step_when_the_run_is_over(
    store: Store, beside: Engine
) -> None:
    builder = observed(beside, [])
    app(store, builder).invoke({"words": []}, durability="async")
    assert count_checkpoints(beside) == 5
    assert [len(words_of(state)) for state in anew(store, builder).history()] == [3, 2, 1, 0, 0]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_an_interrupt_is_resumed_in_any_durability(store: Store, durability: str) -> None:
    app(store, approval()).invoke({"steps": []}, durability=durability)
    result = anew(store, approval()).invoke(Command(resume="yes"), durability=durability)
    assert result["steps"][:2] == ["written", "answer yes"]
    assert anew(store, approval()).state().values == result


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_subgraph_is_resumed_in_any_durability(store: Store, durability: str) -> None:
    app(store, nested()).invoke({"words": []}, durability=durability)
    anew(store, nested()).invoke(Command(resume="yes"), durability=durability)
    assert words_of(anew(store, nested()).state())[-3:] == LAST_WORDS


# The functional API


class Workshop:
    """An entrypoint with two tasks and a question between them."""

    def __init__(self, saver: Any) -> None:
        self.runs: Counter[str] = Counter()

        @task
        def measure(length: int) -> int:
            self.runs["measure"] += 1
            return length * 2

        @task
        def cut(length: int) -> str:
            self.runs["cut"] += 1
            if self.runs["cut"] == 1:
                raise ConnectionError("the saw is stuck")
            return f"cut at {length}"

        def steps(length: int, previous: Any) -> Any:
            measured = [measure(length + extra) for extra in range(3)]
            total = sum(result.result() for result in measured)
            answer = interrupt({"total": total})
            done = f"{answer}: {cut(total).result()}"
            return entrypoint.final(value={"done": done, "before": previous}, save=total)

        @entrypoint(checkpointer=saver)
        def work(length: int, *, previous: Any = None, config: RunnableConfig) -> Any:
            with set_config_context(config) as context:  # see `node`
                return context.run(steps, length, previous)

        self.work = work


def test_an_entrypoint_asks_and_resumes_without_running_its_tasks_again(store: Store) -> None:
    workshop = Workshop(store.saver)
    runs = App(store, workshop.work)
    asked = runs.invoke(10)["__interrupt__"]
    assert [question.value for question in asked] == [{"total": 66}]
    with pytest.raises(ConnectionError, match="the saw is stuck"):
        runs.invoke(Command(resume="yes"))
    assert runs.invoke(None) == {"done": "yes: cut at 66", "before": None}
    assert workshop.runs == {"measure": 3, "cut": 2}


def test_an_entrypoint_is_given_what_it_saved_the_time_before(store: Store) -> None:
    for length, before in ((10, None), (20, 66)):
        workshop = Workshop(store.make_saver())
        workshop.runs["cut"] = 1  # it works this time
        runs = App(store, workshop.work)
        runs.invoke(length)
        assert runs.invoke(Command(resume="yes"))["before"] == before


# The other colour


@on_sync_engines
def test_the_async_methods_of_a_graph_work_with_an_engine_saver(store: Store) -> None:
    graph = approval().compile(checkpointer=store.saver)

    async def run() -> Any:
        await graph.ainvoke({"steps": []}, T)
        chunks = [
            chunk async for chunk in graph.astream(Command(resume="yes"), T, stream_mode="updates")
        ]
        await graph.aupdate_state(T, {"steps": ["and archived"]})
        return chunks, [state async for state in graph.aget_state_history(T, limit=2)]

    chunks, history = store.run(run())
    assert [node for chunk in chunks for node in chunk] == ["ask", "publish"]
    assert history == app(store, approval()).history(limit=2)
    assert history[0].values["steps"][-1] == "and archived"


@on_async_engines
def test_the_sync_methods_of_a_graph_work_from_a_thread_with_an_async_engine_saver(
    store: Store,
) -> None:
    graph = approval().compile(checkpointer=store.saver)

    def run() -> Any:
        graph.invoke({"steps": []}, T)
        chunks = list(graph.stream(Command(resume="yes"), T, stream_mode="updates"))
        graph.update_state(T, {"steps": ["and archived"]})
        return chunks, list(graph.get_state_history(T, limit=2))

    chunks, history = store.run(asyncio.to_thread(run))
    assert [node for chunk in chunks for node in chunk] == ["ask", "publish"]
    assert history == app(store, approval()).history(limit=2)
    assert history[0].values["steps"][-1] == "and archived"


@on_async_engines
def test_a_sync_call_in_the_event_loop_says_what_to_do_instead(store: Store) -> None:
    graph: Any = approval().compile(checkpointer=store.saver)

    async def run() -> Any:
        await graph.ainvoke({"steps": []}, T)
        return graph.invoke(Command(resume="yes"), T)

    with pytest.raises(
        asyncio.InvalidStateError,
        match=r"only allowed from a different thread\. .* or `await graph\.ainvoke\(\.\.\.\)`",
    ):
        store.run(run())
    assert app(store, approval()).state().next == ("ask",)


# Configs


def test_a_run_without_a_config_gets_langgraphs_error(store: Store) -> None:
    with pytest.raises(ValueError, match="thread_id, checkpoint_ns, checkpoint_id"):
        app(store, line("a")).invoke({"words": []}, {})
    assert store.rows() == (0, 0, 0)


def test_a_config_without_thread_id_gets_an_error_that_shows_one(store: Store) -> None:
    with pytest.raises(InvalidInputError, match=r"no thread_id\. .*'thread_id': 'some-id'"):
        app(store, line("a")).invoke({"words": []}, {"configurable": {"checkpoint_ns": ""}})
    assert store.rows() == (0, 0, 0)


def test_a_thread_id_that_is_a_number_is_the_same_thread_as_its_text(store: Store) -> None:
    app(store, line("a")).invoke({"words": ["in"]}, {"configurable": {"thread_id": 7}})
    assert words_of(anew(store, line("a")).state(thread("7", ns=None))) == ["in", "a"]


# Many at a time

MANY = [f"thread {number}" for number in range(20)]
LARGE = 264_000
"""Characters: from 256 KiB on, the async saver serializes in threads."""


class Load(TypedDict):
    owner: str
    payload: str
    log: Words


def payload(owner: str, step: int) -> str:
    mark = f"{owner}, step {step:2}; "
    return (mark * (LARGE // len(mark) + 1))[:LARGE]


def heavy() -> Any:
    def step(state: Load, number: int) -> dict[str, Any]:
        # What comes out follows from what came in: another thread's state would go on.
        owner = state["owner"]
        assert state["payload"] == payload(owner, number - 1)
        return {"payload": payload(owner, number), "log": [f"{owner}: {number}"]}

    return line("a", "b", state=Load, a=partial(step, number=1), b=partial(step, number=2))


def start(owner: str) -> tuple[dict[str, Any], RunnableConfig]:
    return {"owner": owner, "payload": payload(owner, 0), "log": []}, thread(owner, ns=None)


def run_all_at_once(store: Store, graph: Any) -> list[Any]:
    if not store.kind.is_async:
        with ThreadPoolExecutor(len(MANY)) as pool:
            return list(pool.map(lambda owner: graph.invoke(*start(owner)), MANY))

    async def gather() -> list[Any]:
        return await asyncio.gather(*(graph.ainvoke(*start(owner)) for owner in MANY))

    return store.run(gather())  # type: ignore[no-any-return]


def test_many_runs_at_a_time_with_large_states_do_not_mix(store: Store) -> None:
    """LG#4168: state corrupted when one saver is used concurrently."""
    ends = [
        {"owner": owner, "payload": payload(owner, 2), "log": [f"{owner}: 1", f"{owner}: 2"]}
        for owner in MANY
    ]
    assert run_all_at_once(store, heavy().compile(checkpointer=store.saver)) == ends
    later = anew(store, heavy())
    for owner, end in zip(MANY, ends, strict=True):
        history = later.history(thread(owner, ns=None))
        assert history[0].values == end
        assert [state.values.get("payload") for state in history] == [
            *(payload(owner, 2), payload(owner, 1), payload(owner, 0), None),
        ]
    assert store.count("checkpoints") == 4 * len(MANY)


# Serializers


@dataclass
class Ticket:
    """A type of the application's own, which LangGraph's serializer doesn't know."""

    number: int


class Desk(TypedDict):
    ticket: Ticket
    closed: list[Ticket]


def desk() -> Any:
    return line(
        *("take", "close"),
        state=Desk,
        take=lambda _: {"ticket": Ticket(5)},
        close=lambda state: {"closed": [state["ticket"], interrupt("closed?")]},
    )


ALLOWED = {(Ticket.__module__, Ticket.__name__)}


def test_a_clone_with_an_allowlist_runs_a_graph_with_the_applications_types(store: Store) -> None:
    strict = store.make_saver(serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    clone = strict.with_allowlist(ALLOWED)
    assert (type(clone), clone is strict) == (type(strict), False)
    app(store, desk(), clone).invoke({"closed": []})
    app(store, desk(), clone).invoke(Command(resume=Ticket(6)))
    again = store.make_saver(serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    found = app(store, desk(), again.with_allowlist(ALLOWED)).state()
    assert found.values == {"ticket": Ticket(5), "closed": [Ticket(5), Ticket(6)]}


def test_the_saver_that_was_cloned_with_an_allowlist_stays_strict(store: Store) -> None:
    strict = store.make_saver(serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    app(store, desk(), strict.with_allowlist(ALLOWED)).invoke({"closed": []})
    ticket = app(store, desk(), strict).state().values["ticket"]
    assert not isinstance(ticket, Ticket)


def test_a_graph_runs_and_resumes_with_an_encrypting_serializer(store: Store) -> None:
    def saver() -> Any:
        serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
        return store.make_saver(serde=serde)

    app(store, nested(), saver()).invoke({"words": ["secret"]})
    result = app(store, nested(), saver()).invoke(Command(resume="yes"))
    assert result["words"][-1] == "final"
    assert app(store, nested(), saver()).state().values == result


# The savers that keep the latest checkpoint only


def test_a_shallow_saver_resumes_a_subgraph_and_keeps_one_checkpoint_of_each_namespace(
    store: Store,
) -> None:
    app(store, nested(), store.make_saver(shallow=True)).invoke({"words": ["in"]})
    assert store.count("checkpoints") == 3
    later = app(store, nested(), store.make_saver(shallow=True))
    later.invoke(Command(resume="yes"))
    assert words_of(later.state())[-3:] == LAST_WORDS
    assert len(store.list(at_namespace(""))) == 1


@on_servers
def test_replacing_one_checkpoint_waits_for_no_other_thread(store: Store, beside: Engine) -> None:
    """MariaDB scans, and locks, the whole table to delete one key of a list of one."""
    runs = app(store, line("a"), store.make_saver(shallow=True))
    for thread_id in ("other", "t"):
        runs.invoke({"words": []}, thread(thread_id, ns=None))
    with beside.begin() as connection:
        held = connection.execute(
            text("SELECT checkpoint_id FROM checkpoints WHERE thread_id = :thread_id FOR UPDATE"),
            {"thread_id": text_key(store, "other")},
        )
        assert len(held.all()) == 1
        runs.invoke({"words": []})
    assert words_of(runs.state()) == ["a", "a"]


# Side by side with the saver in memory


def everything() -> Any:
    """Build a graph that has sends, a subgraph that asks, a DeltaChannel and a goto."""

    class State(TypedDict):
        words: Words
        log: Log
        last: str

    child = line("first", "ask", ask=lambda _: {"words": [interrupt("sure?")]})
    builder: Any = StateGraph(State)
    builder.add_node("split", lambda _: {"words": ["split"], "log": ["split"], "last": "split"})
    builder.add_node("work", lambda parcel: {"log": [f"parcel {parcel['number']}"]})
    builder.add_node("child", child.compile())
    builder.add_node(
        "route",
        lambda state: Command(
            update={"log": ["route"]}, goto="split" if len(state["log"]) < 8 else END
        ),
        destinations=("split", END),
    )
    builder.add_edge(START, "split")
    builder.add_conditional_edges(
        "split", lambda _: [Send("work", {"number": n}) for n in range(3)], ["work"]
    )
    builder.add_edge("work", "child")
    builder.add_edge("child", "route")
    return builder


def live_through(runs: App) -> list[StateSnapshot]:
    """Interrupt, resume, go round twice, update, fork, run again; return the whole history."""
    runs.invoke({"words": ["in"], "log": ["in"]})
    runs.invoke(Command(resume="yes"))
    runs.invoke(Command(resume="again"))
    runs.update({"words": ["human"], "log": ["human"]}, as_node="route")
    asked = next(state for state in runs.history() if state.next == ("child",))
    runs.invoke(None, runs.update({"log": ["fork"]}, asked.config, as_node="work"))
    runs.invoke(Command(resume="differently"))
    runs.invoke({"words": ["next turn"], "log": ["next turn"]})
    return runs.history()


def shown(history: Sequence[StateSnapshot]) -> list[Any]:
    """Return what states of two histories have in common: all but ids and times."""
    return [
        (
            state.values,
            state.next,
            state.metadata,
            parent,
            [
                (t.name, t.path, t.error, [question.value for question in t.interrupts], t.result)
                for t in state.tasks
            ],
        )
        for state, parent in zip(history, positions(history), strict=True)
    ]


def test_a_history_is_the_one_that_the_saver_in_memory_has(store: Store) -> None:
    expected = live_through(App(store, everything().compile(checkpointer=InMemorySaver())))
    live_through(app(store, everything()))
    found = anew(store, everything()).history()
    assert len(expected) > 10
    assert shown(found) == shown(expected)


if __name__ == "__main__":
    for request in sys.stdin:
        print(json.dumps(resume_here(json.loads(request))), flush=True)  # noqa: T201
