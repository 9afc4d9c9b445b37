"""An agent that outlives its process: killed, resumed, waiting for a human, answered twice.

``python examples/agent.py`` needs no API key and no network. A small trip planner works in several
operating-system processes that share nothing but a database:

1. a process plans a trip, and is killed while one of its three tools is still running;
2. the next process reads what was saved, runs the unfinished tool only, and asks for approval;
3. a third one brings the approval, and the trip is booked;
4. then we travel back in time to the question, and give another answer in a second branch.

``--url`` takes any SQLAlchemy URL (SQLite, PostgreSQL, MariaDB, MySQL); the default is a file in a
temporary folder. The program checks what it says: it exits with 0 only if all of it held.
"""

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send, interrupt
from sqlalchemy import make_url

from checkpoint_sa import SQLAlchemySaver

Planner: TypeAlias = CompiledStateGraph[MessagesState, None, MessagesState, MessagesState]


# ---- The tools ----


def note_run(tool_name: str) -> None:
    """Leave a line in a side file: a tool that runs again will show."""
    with Path(os.environ["TRIP_RUNS"]).open("a", encoding="utf-8") as side_file:
        side_file.write(f"{tool_name}\n")


def runs() -> Counter[str]:
    """Count the runs of each tool, in all processes together."""
    return Counter(Path(os.environ["TRIP_RUNS"]).read_text(encoding="utf-8").split())


@tool
def check_weather(city: str) -> str:
    """Forecast the weekend."""
    note_run("check_weather")
    return f"{city}: sunny, 24 °C"


@tool
def find_train(origin: str, city: str) -> str:
    """Find the cheapest return ticket."""
    note_run("find_train")
    time.sleep(0.1)
    return f"{origin} to {city} and back, 51 €"


@tool
def find_room(city: str) -> str:
    """Find a room for two nights, on a site that never answers the first time it is asked."""
    note_run("find_room")
    if runs()["find_room"] == 1:
        time.sleep(60)
    return f"two nights by the river in {city}, 148 €"


@tool
def book_trip(train: str, room: str, total: int) -> str:
    """Book train and room, once a human has approved."""
    answer = interrupt({"question": f"Book it for {total} €?", "train": train, "room": room})
    if answer != "yes":
        return f"not booked, the answer was {answer!r}"
    note_run("book_trip")  # Below interrupt(): resuming runs this function again from its top.
    return f"booked for {total} €, reference PORTO-{total}"


TOOLS: dict[str, BaseTool] = {t.name: t for t in (check_weather, find_train, find_room, book_trip)}


# ---- The model and the graph ----


class ScriptedModel(BaseChatModel):
    """A script in place of an LLM: it reads the messages and decides what comes next."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        found = {str(m.name): str(m.text) for m in messages if isinstance(m, ToolMessage)}
        text, calls = self.decide(found)
        tool_calls = [
            ToolCall(name=name, args=args, id=uuid.uuid4().hex, type="tool_call")
            for name, args in calls.items()
        ]
        answer = AIMessage(text, tool_calls=tool_calls)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def decide(self, found: dict[str, str]) -> tuple[str, dict[str, dict[str, Any]]]:
        """Choose what to say and which tools to call, given what the tools have found."""
        if not found:
            city = {"city": "Porto"}
            calls = {"check_weather": city, "find_train": city | {"origin": "Lisbon"}}
            return "I look up weather, train and room, all at once.", calls | {"find_room": city}
        if "book_trip" not in found:
            order: dict[str, Any] = {"train": found["find_train"], "room": found["find_room"]}
            order["total"] = sum(int(euro) for euro in re.findall(r"(\d+) €", f"{order}"))
            return f"Train and room together: {order['total']} €.", {"book_trip": order}
        booked = found["book_trip"].startswith("booked")
        return "All set. Enjoy Porto!" if booked else "As you like. Porto can wait.", {}


def planner(state: MessagesState) -> dict[str, list[BaseMessage]]:
    """Ask the model."""
    return {"messages": [ScriptedModel().invoke(state["messages"])]}


def next_step(state: MessagesState) -> list[Send] | str:
    """Make a task of each tool call, so that each result is saved as soon as it is there."""
    answer = state["messages"][-1]
    calls = answer.tool_calls if isinstance(answer, AIMessage) else []
    return [Send("run_tool", call) for call in calls] or END


def run_tool(state: ToolCall) -> dict[str, list[BaseMessage]]:
    """Run one tool call."""
    return {"messages": [TOOLS[state["name"]].invoke(state)]}


@contextmanager
def open_planner() -> Iterator[Planner]:
    """Build the graph on the database: this is all that a process needs to go on."""
    builder = StateGraph(MessagesState)
    builder.add_node("planner", planner)
    builder.add_node("run_tool", run_tool)
    builder.add_edge(START, "planner")
    builder.add_conditional_edges("planner", next_step, ["run_tool", END])
    builder.add_edge("run_tool", "planner")
    with SQLAlchemySaver.from_conn_string(os.environ["TRIP_URL"]) as saver:
        saver.setup()  # Creates the tables, or brings them up to date.
        yield builder.compile(checkpointer=saver)


def thread() -> RunnableConfig:
    """Name the conversation."""
    return {"configurable": {"thread_id": os.environ["TRIP_THREAD"]}}


# ---- Telling what happens, and checking it ----


def paint(code: str, text: str) -> str:
    """Colour a text, if a terminal shows it."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def tell(*lines: str) -> None:
    """Print lines at once: several processes write to the same terminal."""
    print(*(f"  {line}".rstrip() for line in lines), sep="\n", flush=True)


def heading(title: str) -> None:
    """Begin a part."""
    tell("", "", f"{paint('1', f'{title:<58}')} {paint('2', f'process {os.getpid()}')}", "")


def say(who: str, text: str) -> None:
    """Print one line of the conversation."""
    tell(f"    {paint('36', f'{who:<14}')} {text}")


def show(message: BaseMessage) -> None:
    """Print a message."""
    say({"human": "you", "ai": "planner"}.get(message.type) or str(message.name), str(message.text))
    if isinstance(message, AIMessage) and message.tool_calls:
        say("", paint("2", "calls " + ", ".join(call["name"] for call in message.tool_calls)))


def narrate(graph: Planner, work: MessagesState | Command[Any] | None, at: RunnableConfig) -> None:
    """Run the graph, and print each thing when it happens."""
    for update in graph.stream(work, at, stream_mode="updates", durability="sync"):
        if "__metadata__" in update:  # "cached": taken from the database, not run.
            continue
        for node, news in update.items():
            if node == "__interrupt__":
                say("book_trip", f"asks: {news[0].value['question']}")
            else:
                show(news["messages"][0])


def claim(text: str, *, holds: bool) -> None:
    """Say something only if it is so."""
    if not holds:
        sys.exit(f"\n  This did not hold: {text}")
    tell(f"{paint('32', '✓')} {text}")


# ---- The four parts: 1 and 2 run in processes of their own; each opens the database anew ----


def part_1_plan() -> None:
    """Start to plan a trip; watch_and_kill() sees to it that this never returns."""
    heading("1  A process plans a trip")
    with open_planner() as graph:
        wish = HumanMessage("A weekend in Porto, please, from Lisbon.")
        show(wish)
        narrate(graph, {"messages": [wish]}, thread())


def watch_and_kill(graph: Planner, worker: subprocess.Popen[bytes]) -> None:
    """Kill the worker when two of its three tool results are in the database."""
    midway, deadline = False, time.monotonic() + 30
    try:
        while not midway and worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
            saved = [task for task in graph.get_state(thread()).tasks if task.result]
            midway = len(saved) == 2 and runs()["find_room"] == 1
        time.sleep(0.1)  # Let it end its line on the screen.
    finally:
        worker.kill()
        worker.wait()
    tell()
    killed = midway and worker.returncode != 0
    claim("two results are in the database, find_room is still running", holds=killed)
    tell(f"{paint('31', '✗')} here process {worker.pid} was killed")


def part_2_resume() -> None:
    """Find out what the killed process left behind, and go on from there."""
    heading("2  The next process takes over")
    with open_planner() as graph:
        found = graph.get_state(thread())
        tell("It finds in the database:", "")
        messages = found.values["messages"]
        for message in messages:
            show(message)
        done = {message.name for message in messages}
        missing = [call["name"] for call in messages[1].tool_calls if call["name"] not in done]
        for name in missing:
            say(name, paint("33", "(no result)"))
        tell("", "It resumes, with what is missing:", "")
        narrate(graph, None, thread())
        tell()
        times = [runs()[name] for name in ("check_weather", "find_train", "find_room")]
        again = missing == ["find_room"] and times == [1, 1, 2]
        claim("runs so far: check_weather 1, find_train 1, find_room 2, one killed", holds=again)
        waiting = len(graph.get_state(thread()).interrupts) == 1
        claim("the question is in the database, so this process can end", holds=waiting)


def part_3_approve() -> None:
    """Answer the question that another process asked."""
    heading("3  Later, a human says yes")
    with open_planner() as graph:
        (question,) = graph.get_state(thread()).interrupts
        say("book_trip", f"asks: {question.value['question']}")
        say("you", "yes")
        narrate(graph, Command(resume="yes"), thread())
        tell()
        claim("booked, exactly once", holds=runs()["book_trip"] == 1)


def part_4_travel() -> None:
    """Go back to the question, and answer it differently."""
    heading("4  Time travel: what if the answer had been no?")
    with open_planner() as graph:
        history = list(graph.get_state_history(thread()))  # The newest comes first.
        asked = next(state for state in history if state.interrupts)
        tell("The history, with the last message at each checkpoint:", "")
        for number, state in enumerate(reversed(history), start=1):
            messages = state.values.get("messages") or [HumanMessage("(start)")]
            mark = paint("33", "<- back to here") if state is asked else ""
            say(f"checkpoint {number}", f"{messages[-1].text:<50} {mark}")
        tell()
        # Running from an old checkpoint begins a branch, which asks anew. (Command(resume=...) at
        # the old checkpoint itself would not do: the first answer is saved there.)
        narrate(graph, None, asked.config)
        say("you", "no")
        narrate(graph, Command(resume="no"), thread())  # The branch is the newest of the thread.
        tell()
        first, second = graph.get_state(history[0].config), graph.get_state(thread())
        endings = [str(state.values["messages"][-2].text) for state in (first, second)]
        kept = endings[0].startswith("booked") and endings[1].startswith("not booked")
        claim("the thread has both endings now, each found by its checkpoint", holds=kept)
        claim("no tool ran again, nothing more was booked", holds=runs().total() == 5)


PARTS = {"1": part_1_plan, "2": part_2_resume}


def whole_show(url: str, side_file: Path) -> None:
    """Run all parts, one after the other."""
    started, name = time.monotonic(), f"trip-{uuid.uuid4().hex[:6]}"
    side_file.touch()
    os.environ.update(TRIP_URL=url, TRIP_THREAD=name, TRIP_RUNS=str(side_file))
    tell("", paint("1", "A trip planner that outlives its process"), "")
    say("database", make_url(url).render_as_string(hide_password=True))
    say("thread", name)
    command = [sys.executable, __file__]
    with open_planner() as graph:
        watch_and_kill(graph, subprocess.Popen([*command, "1"]))
    if subprocess.run([*command, "2"], check=False).returncode != 0:
        sys.exit(1)
    part_3_approve()
    part_4_travel()
    seconds = time.monotonic() - started
    tell("", "", paint("1", f"One conversation, three processes, {seconds:.1f} seconds"), "")
    say("killed", "what was finished stayed finished; only the rest ran again")
    say("asked", "the question waited in the database, not in a process")
    say("answered", "in another process; and once more, in a second branch")
    tell()


def main() -> None:
    """Run the whole show, or the one part that a process of the show is there for."""
    parser = argparse.ArgumentParser(description="A trip planner that outlives its process.")
    parser.add_argument("--url", help="SQLAlchemy URL of the database, such as sqlite:///agent.db")
    parser.add_argument("part", nargs="?", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # For terminals that have no ✓.
    if options.part:
        PARTS[options.part]()
        return
    with tempfile.TemporaryDirectory(prefix="agent-") as folder:
        whole_show(options.url or f"sqlite:///{Path(folder, 'agent.db')}", Path(folder, "runs.txt"))
    if not options.url:
        tell(paint("2", "To keep the database: agent.py --url sqlite:///agent.db"), "")


if __name__ == "__main__":
    main()
