"""Messages and interrupts, out of stored values as plain data (see `inspection`)."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED

from checkpoint_sa.cli import terminal
from checkpoint_sa.codec.values import loaded
from checkpoint_sa.inspection import TYPE, Inspector, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from checkpoint_sa.repository.statistics import Pending
    from checkpoint_sa.rows import CheckpointKey

_KINDS = {"user": "human", "assistant": "ai", "AIMessageChunk": "ai", "HumanMessageChunk": "human"}
"""Other names of the authors of messages."""

_UNFINISHED = frozenset({ERROR, INTERRUPT, RESUME, SCHEDULED})
"""The channels of a task's writes that aren't its result."""


def conversation(value: Any) -> list[str] | None:
    """Return the messages of a value, each as a line of text; None if it has other things."""
    items = value if isinstance(value, list | tuple) else [value]
    lines = [_message(item) for item in items]
    return [line for line in lines if line is not None] if lines and None not in lines else None


def _message(value: Any) -> str | None:
    """Return a message as `human: ...`, or None for another value."""
    if not isinstance(value, dict):
        return None
    name = value.get(TYPE)
    fields = value.get("fields") if isinstance(name, str) else value
    if not isinstance(fields, dict) or "content" not in fields:
        return None
    kind = fields.get("type") if isinstance(name, str) else fields.get("role", fields.get("type"))
    if not isinstance(kind, str) or (isinstance(name, str) and "Message" not in name):
        return None
    author = _KINDS.get(kind, kind)
    if author in ("human", "ai") and isinstance(fields.get("name"), str) and fields["name"]:
        author = f"{author} ({fields['name']})"
    elif fields.get("status") == "error":
        author = f"{author} (error)"
    calls = ", ".join(map(_call, _dicts(fields.get("tool_calls"))))
    text = _content(fields["content"])
    parts = [f"{author}:", *([text] if text else []), *([f"-> {calls}"] if calls else [])]
    return " ".join(parts)


def _content(content: Any) -> str:
    """Return the text of a message; a part that isn't text is named by its type."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        return short(content)
    found = []
    for part in content:
        if isinstance(part, dict) and part.get("type") in ("tool_use", "tool_call"):
            continue  # it is one of the message's tool_calls as well
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            found.append(part["text"])
        else:
            kind = part.get("type") if isinstance(part, dict) else None
            found.append(part if isinstance(part, str) else f"[{kind or 'part'}]")
    return " ".join(found)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _call(call: Mapping[str, Any]) -> str:
    """Return a call of a tool, as `weather(city=Porto)`."""
    call = call.get("function", call) if isinstance(call.get("function"), dict) else call
    arguments = call.get("args", call.get("arguments"))
    if isinstance(arguments, dict):
        shown = ", ".join(f"{name}={short(value)}" for name, value in arguments.items())
    else:
        shown = "" if arguments is None else short(arguments)
    return f"{call.get('name')}({shown})"


def short(value: Any) -> str:
    """Return a text as it is, another value as JSON."""
    return value if isinstance(value, str) else terminal.as_json(value)


def waiting(writes: Iterable[tuple[str, str, Any]]) -> dict[str, list[Any]]:
    """Return the values for which a checkpoint's tasks wait for a person, by task.

    `writes` are a checkpoint's pending writes as plain data: task, channel, value. A task that has
    a result waits no more.
    """
    written = list(writes)
    finished = {task for task, channel, _ in written if channel not in _UNFINISHED}
    found: dict[str, list[Any]] = {}
    for task, channel, value in written:
        if channel == INTERRUPT and task not in finished:
            several = value if isinstance(value, list | tuple) else [value]
            found.setdefault(task, []).extend(map(_value, several))
    return found


def waiting_at(pending: Iterable[Pending]) -> dict[CheckpointKey, list[Any]]:
    """Return the values for which tasks wait for a person, by checkpoint.

    Raises:
        CorruptDataError: An interrupt can't be read.
    """
    writes: dict[CheckpointKey, list[tuple[str, str, Any]]] = defaultdict(list)
    for write in pending:
        value = None
        if write.blob is not None:
            row = ("checkpoint_writes", write.task_id)
            value = loaded(
                Inspector(), write.type, write.blob, row, write.key, task_id=write.task_id
            )
        writes[write.key].append((write.task_id, write.channel, plain(value)))
    found = {key: waiting(written) for key, written in writes.items()}
    return {key: [*chain(*tasks.values())] for key, tasks in found.items() if tasks}


def _value(interrupt: Any) -> Any:
    """Return the value that a node passed to `interrupt`."""
    if isinstance(interrupt, dict):
        fields = interrupt.get("fields", interrupt)
        if isinstance(fields, dict) and "value" in fields:
            return fields["value"]
    return interrupt
