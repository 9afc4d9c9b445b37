"""A graph for LangGraph's server, compiled without a checkpointer: the server brings it."""

from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph


def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
    """Stand in for a model."""
    return {"messages": [AIMessage(f"{len(state['messages'])} message(s) so far")]}


builder = StateGraph(MessagesState)
builder.add_node(answer)
builder.add_edge(START, "answer")
graph = builder.compile()
