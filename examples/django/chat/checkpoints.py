"""The saver, on the database of Django."""

from functools import cache

from django.conf import settings
from django.db import connections
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from sqlalchemy import URL, Engine, create_engine

from checkpoint_sa import SQLAlchemySaver

DRIVERS = {
    "django.db.backends.sqlite3": "sqlite+pysqlite",
    "django.db.backends.postgresql": "postgresql+psycopg",
    "django.db.backends.mysql": "mysql+pymysql",
}


def url_of(alias: str = "default") -> URL:
    """Return the URL of a database of settings.DATABASES; in a test run, that of the test's."""
    database = connections[alias].settings_dict
    return URL.create(
        DRIVERS[database["ENGINE"]],
        username=database["USER"] or None,
        password=database["PASSWORD"] or None,
        host=database["HOST"] or None,
        port=int(database["PORT"]) if database["PORT"] else None,
        database=str(database["NAME"]),
    )


@cache
def engine() -> Engine:
    """Make an engine at the first use, so that each worker process has its own."""
    return create_engine(url_of(), pool_size=5, hide_parameters=True)


@cache
def saver() -> SQLAlchemySaver:
    """Return the saver of the process; any number of threads may use it."""
    return SQLAlchemySaver(engine(), schema=settings.CHECKPOINT_SCHEMA)


def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
    """Stand in for a model."""
    said = [str(message.content) for message in state["messages"] if message.type == "human"]
    return {"messages": [AIMessage(f"You said: {', '.join(said)}.")]}


builder = StateGraph(MessagesState)
builder.add_node(answer)
builder.add_edge(START, "answer")


@cache
def graph() -> CompiledStateGraph:
    """Return the graph, compiled once."""
    return builder.compile(checkpointer=saver())
