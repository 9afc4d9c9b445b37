"""Bookmarks on checkpoints: a table of the application's that refers to ours."""

from __future__ import annotations

import os

from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from sqlalchemy import ForeignKeyConstraint, Text, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from checkpoint_sa import Checkpoint, SQLAlchemySaver


class Base(DeclarativeBase):
    """The application's models."""


class Bookmark(Base):
    """A note on a checkpoint; it goes with the checkpoint."""

    __tablename__ = "bookmarks"
    __table_args__ = (
        ForeignKeyConstraint(
            ["thread_id", "checkpoint_ns", "checkpoint_id"],
            list(Checkpoint.__table__.primary_key),
            ondelete="CASCADE",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    thread_id: Mapped[str] = mapped_column(Text)
    checkpoint_ns: Mapped[str] = mapped_column(Text)
    checkpoint_id: Mapped[str] = mapped_column(Text)
    note: Mapped[str] = mapped_column(Text)


def main() -> None:
    """Talk once, and put a bookmark on the resulting checkpoint."""
    engine = create_engine(os.environ["DATABASE_URL"])
    builder = StateGraph(MessagesState)
    builder.add_node("answer", lambda _: {"messages": [("ai", "42")]})
    builder.add_edge(START, "answer")
    graph = builder.compile(checkpointer=SQLAlchemySaver(engine))
    graph.invoke({"messages": [HumanMessage("?")]}, {"configurable": {"thread_id": "1"}})
    place = graph.get_state({"configurable": {"thread_id": "1"}}).config["configurable"]
    with Session(engine) as session, session.begin():
        session.add(Bookmark(**place, note="good answer"))
    with Session(engine) as session:
        note, metadata = session.execute(
            select(Bookmark.note, Checkpoint.checkpoint_metadata).join(Checkpoint)
        ).one()
    print(f"{note} at step {metadata['step']}")
    engine.dispose()


if __name__ == "__main__":
    main()
