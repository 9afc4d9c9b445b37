"""A chat of an agent with tools, end to end through LangGraph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from langchain_core.messages import AIMessage, ToolMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from measure import Samples, shuffled
from peers import open_pair
from stores import KINDS

if TYPE_CHECKING:
    from peers import Contender, Servers

TITLE = "Chat"
ABOUT = (
    "A whole chat: 20 turns of a graph whose model (a fake one that answers at once) calls a tool "
    "in each turn, by each durability of LangGraph. The times include LangGraph's own work."
)
ENGINES = tuple(KINDS)
TURNS = 20


def answer(state: MessagesState) -> dict[str, Any]:
    """Call a tool for a question, and answer when it has answered."""
    if isinstance(state["messages"][-1], ToolMessage):
        return {"messages": [AIMessage("It is sunny there, at 21 degrees. " * 10)]}
    call = {"name": "weather", "args": {"city": "Berlin"}, "id": str(uuid4())}
    return {"messages": [AIMessage("", tool_calls=[call])]}


def use_tools(state: MessagesState) -> dict[str, Any]:
    """Answer the calls of the last message."""
    last = state["messages"][-1]
    calls = last.tool_calls if isinstance(last, AIMessage) else []
    return {"messages": [ToolMessage("sunny, 21", tool_call_id=c["id"]) for c in calls]}


def goes_on(state: MessagesState) -> str:
    """Go to the tools if the model called one."""
    last = state["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else END


def graph(side: Contender) -> Any:
    """Compile the graph with a saver."""
    builder = StateGraph(MessagesState)
    builder.add_node("model", answer)
    builder.add_node("tools", use_tools)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", goes_on, ["tools", END])
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=side.saver)


async def run(servers: Servers, kind: str, *, quick: bool) -> list[dict[str, Any]]:
    """Let the sides take turns, chat by chat."""
    chats, turns = (1, 2) if quick else (8, TURNS)
    rows = []
    async with open_pair(servers, kind) as pair:
        graphs = {name: graph(side) for name, side in pair.sides.items()}
        for durability in ("sync", "async"):
            samples = Samples()
            for number in range(chats + 1):
                for name in shuffled(graphs):
                    if number == 0:  # the first is for warming up
                        await chat(graphs[name], durability, turns, is_async=pair.kind.is_async)
                        continue
                    talk = chat(graphs[name], durability, turns, is_async=pair.kind.is_async)
                    await samples.time(name, "chat", talk)
            rows.append({"durability": durability, **samples.row("chat")})
    return [{name: v for name, v in row.items() if name != "operation"} for row in rows]


async def chat(compiled: Any, durability: str, turns: int, *, is_async: bool) -> None:
    """Have a chat on a thread of its own."""
    config = {"configurable": {"thread_id": str(uuid4())}}
    for turn in range(turns):
        question = {"messages": [("user", f"What is the weather like on day {turn}? " * 5)]}
        if is_async:
            state = await compiled.ainvoke(question, config, durability=durability)
        else:
            state = compiled.invoke(question, config, durability=durability)
    if len(state["messages"]) != 4 * turns:
        raise AssertionError("the chat lost a message")
