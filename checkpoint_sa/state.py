"""State that changes shape: revisions as functions of a checkpoint's state, and ready revisions.

A revision changes a `State` in place. A mapping of names and revisions, in their order, is given to
a saver as `upgrade_state=`, or to `rewrite` as `transform=`.
"""

from __future__ import annotations

import copy
import re
from binascii import unhexlify
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from langgraph.checkpoint.serde.types import INTERRUPT, TASKS

from checkpoint_sa.errors import StateUpgradeError
from checkpoint_sa.sql.tables import BRANCH, INPUT

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from langgraph.checkpoint.base import Checkpoint

Path: TypeAlias = Sequence[str]
"""The nodes that lead to a subgraph; () is the graph itself."""

_JOIN = "join:"
_ERROR_SOURCE = "__error_source_node__"
_PULL, _PUSH = "__pregel_pull", "__pregel_push"
_PULL_PATH = re.compile(rf"~{_PULL}, (?P<node>[^,]+)")
_PUSH_PATH = re.compile(rf"~{_PUSH}, (?P<number>\d{{10}})(, (False|0{{10}}))?")
_SYNTHETIC = re.compile(r"\d{8}-")
"""Begins the task id of a DeltaChannel's writes, stored at the end of a run."""
_MAX_ANSWERS = 100
"""The most interrupts of one task whose ids are recognised."""


@dataclass
class StateWrite:
    """A pending write of a task.

    Attributes:
        task_id: The task.
        channel: The channel.
        value: The value.
        task_path: The place of the task in its superstep, as LangGraph writes it.
        idx: The place of the write among those of its task; negative for LangGraph's own writes.
    """

    task_id: str
    channel: str
    value: Any
    task_path: str
    idx: int


@dataclass
class State:
    """The state of a thread at a checkpoint; a revision changes it in place.

    A write that was stored under an earlier revision than its checkpoint, by a process of an
    earlier deploy, is upgraded alone, up to the revision of the checkpoint: the checkpoint has no
    values and versions then, and its metadata has the shape of the checkpoint's revision.

    Attributes:
        thread_id: The thread.
        checkpoint_ns: The namespace; '' is the graph's own.
        checkpoint: LangGraph's checkpoint. Versions of changed values are made by the saver.
        metadata: The checkpoint's metadata.
        writes: The pending writes, in the order of their tasks.
    """

    thread_id: str
    checkpoint_ns: str
    checkpoint: Checkpoint
    metadata: dict[str, Any]
    writes: list[StateWrite]

    @property
    def values(self) -> dict[str, Any]:
        """Channel -> value."""
        return self.checkpoint["channel_values"]

    @property
    def path(self) -> tuple[str, ...]:
        """The nodes that lead to the subgraph of this state; () for the graph itself."""
        parts = self.checkpoint_ns.split("|") if self.checkpoint_ns else []
        return tuple(part.partition(":")[0] for part in parts if not part.isdigit())


class StateDiff(NamedTuple):
    """The changes of a checkpoint's state: names and types, without a value."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    changes: tuple[str, ...]
    """Such as `+ summary: str` (new), `- text: str` (gone), `~ notes: list` (changed)."""


StateReport: TypeAlias = Callable[[StateDiff], object]
Revision: TypeAlias = Callable[[State], object]
"""A function that changes a state in place; its result isn't used."""
Revisions: TypeAlias = Mapping[str, Revision]
"""Name -> revision, in their order."""


def rename_channel(old: str, new: str, *, path: Path = ()) -> Revision:
    """Return a revision that renames a channel: in values, versions, writes and inputs.

    Args:
        old: The name until now.
        new: The name from now on.
        path: The nodes that lead to the subgraph with the channel; () is the graph itself.

    Returns:
        The revision. It raises StateUpgradeError if both channels have a value.
    """

    def rename(state: State) -> None:
        if state.path != tuple(path):
            return
        _rename_channel(state, old, new)
        given = state.values.get(INPUT)
        inputs = [given] + [write.value for write in state.writes if write.channel == INPUT]
        for value in inputs:
            if isinstance(value, dict) and old in value:
                value[new] = value.pop(old)

    return rename


def set_default(channel: str, value: Any, *, path: Path = ()) -> Revision:
    """Return a revision that gives a channel a value where it has none, as a new field needs it.

    Not for a DeltaChannel: it has no value at most checkpoints.

    Args:
        channel: The channel.
        value: The value; each checkpoint gets a copy.
        path: The nodes that lead to the subgraph with the channel; () is the graph itself.
    """

    def set_value(state: State) -> None:
        if state.path == tuple(path) and state.checkpoint["channel_versions"]:
            state.values.setdefault(channel, copy.deepcopy(value))

    return set_value


def rename_node(old: str, new: str, *, path: Path = ()) -> Revision:
    """Return a revision that renames a node of a StateGraph.

    It renames the node in the channels that start it, in sends, and in the versions that it has
    seen. Its tasks and interrupts get the ids that LangGraph gives them under the new name, so that
    a waiting thread resumes.

    Args:
        old: The name until now.
        new: The name from now on.
        path: The nodes that lead to the subgraph with the node; () is the graph itself.

    Returns:
        The revision. It raises StateUpgradeError if a waiting task can't be renamed: it waits
        inside a subgraph, or its triggers aren't known.
    """

    def rename(state: State) -> None:
        if state.path == tuple(path):
            _rename_node(state, old, new)

    return rename


def _rename_channel(state: State, old: str, new: str) -> None:
    checkpoint = state.checkpoint
    has_value = old in state.values
    if has_value and new in state.values:
        raise StateUpgradeError(
            f"Both channels {old!r} and {new!r} have a value, so {old!r} can't be renamed"
            f" ({_named(state)}). Remove one of the values in a revision before this one."
        )
    counters: dict[str, Any] = state.metadata.get("counters_since_delta_snapshot") or {}
    seen = checkpoint["versions_seen"].values()
    for mapping in (state.values, checkpoint["channel_versions"], *seen, counters):
        _rename_key(mapping, old, new, replace=has_value)
    updated = checkpoint.get("updated_channels")
    if updated and old in updated:
        renamed = {new if channel == old else channel for channel in updated}
        checkpoint["updated_channels"] = sorted(renamed)
    for write in state.writes:
        if write.channel == old:
            write.channel = new


def _rename_key(mapping: MutableMapping[str, Any], old: str, new: str, *, replace: bool) -> None:
    if old in mapping:
        value = mapping.pop(old)
        if replace or new not in mapping:
            mapping[new] = value


def _named(state: State) -> str:
    """Name the checkpoint of a state, for messages."""
    return (
        f"thread_id={state.thread_id!r}, checkpoint_ns={state.checkpoint_ns!r},"
        f" checkpoint_id={state.checkpoint['id']!r}"
    )


def _rename_node(state: State, old: str, new: str) -> None:
    checkpoint = state.checkpoint
    channels = {*checkpoint["channel_versions"], *state.values}
    channels.update(*checkpoint["versions_seen"].values())
    channels.update(write.channel for write in state.writes)
    names = {channel: _triggering(channel, old, new) for channel in channels}
    renamed = {channel: name for channel, name in names.items() if channel != name}
    _rename_tasks(state, old, new, channels, renamed)
    for channel, name in renamed.items():
        if channel.startswith(_JOIN) and channel in state.values:
            state.values[channel] = _in_barrier(state.values[channel], old, new)
        _rename_channel(state, channel, name)
    _rename_key(checkpoint["versions_seen"], old, new, replace=True)
    if TASKS in state.values:
        state.values[TASKS] = [_of_send(send, old, new) for send in state.values[TASKS]]
    for write in state.writes:
        if write.channel == TASKS:
            write.value = _of_send(write.value, old, new)
        elif write.value == old and (
            write.channel == _ERROR_SOURCE or write.channel.startswith(_JOIN)
        ):
            write.value = new


def _triggering(channel: str, old: str, new: str) -> str:
    """Return the name of a channel after the rename of a node that it starts, or that writes it."""
    if channel == f"{BRANCH}{old}":
        return f"{BRANCH}{new}"
    if channel.startswith(_JOIN):
        starts, _, end = channel.removeprefix(_JOIN).rpartition(":")
        nodes = [new if node == old else node for node in starts.split("+")]
        return f"{_JOIN}{'+'.join(nodes)}:{new if end == old else end}"
    return channel


def _in_barrier(value: Any, old: str, new: str) -> Any:
    """Rename a node in the value of a join: the nodes that have ended, and whether all have."""
    if isinstance(value, list | tuple | set):
        kind: Any = type(value)
        return kind(_in_barrier(item, old, new) for item in value)
    return new if value == old else value


def _of_send(send: Any, old: str, new: str) -> Any:
    if getattr(send, "node", None) != old:
        return send
    renamed = copy.copy(send)
    renamed.node = new
    return renamed


# Tasks


def _rename_tasks(
    state: State, old: str, new: str, channels: Iterable[str], renamed: Mapping[str, str]
) -> None:
    """Give waiting tasks the ids that LangGraph gives them after the rename of a node.

    A task's id is a digest of its checkpoint, step, node and triggers. So a task of the node gets
    another id, as does a task that a join with the node starts. The stored id is computed first: an
    id that isn't understood is never replaced.
    """
    for write in state.writes:
        if write.task_path.startswith(f"~{_PUSH}, ~") and f"~{_PULL}, {old}, " in write.task_path:
            raise _not_understood(state, old, "it has called tasks")
        if (found := _PULL_PATH.fullmatch(write.task_path)) is not None:
            node = found["node"]
            triggers = {f"{BRANCH}{node}"}
            triggers.update(c for c in channels if c.startswith(_JOIN) and c.endswith(f":{node}"))
            if node != old and triggers.isdisjoint(renamed):
                continue
            before = [_PULL, *sorted(triggers)]
            after = [_PULL, *sorted(_triggering(trigger, old, new) for trigger in triggers)]
            name = new if node == old else node
            task = _renamed_task(state, write, (node, before), (name, after))
            if task is None:
                raise _not_understood(state, node, "its triggers aren't known")
            write.task_path = f"~{_PULL}, {name}"
        elif (found := _PUSH_PATH.fullmatch(write.task_path)) is not None:
            parts = [_PUSH, str(int(found["number"]))]
            task = _renamed_task(state, write, (old, parts), (new, parts))
            if task is None:  # of another node
                continue
        else:
            continue
        write.task_id = task


def _not_understood(state: State, node: str, reason: str) -> StateUpgradeError:
    return StateUpgradeError(
        f"Node {node!r} can't be renamed while a task of it is pending, because {reason}"
        f" ({_named(state)}). Finish the run under the old name, or leave the name."
    )


def _renamed_task(
    state: State,
    write: StateWrite,
    before: tuple[str, Sequence[str]],
    after: tuple[str, Sequence[str]],
) -> str | None:
    """Return the id of a write's task after the rename, and rename the interrupts of the write.

    `before` and `after` are the node and the last parts of the id. None if the task has another id.
    """
    ids = [_task_id(state, *parts) for parts in (before, after)]
    first, _, rest = ids[0].partition("-")
    if write.task_id != ids[0]:
        if not (_SYNTHETIC.match(write.task_id) and write.task_id.endswith(rest)):
            return None
        first = write.task_id.partition("-")[0]
        return f"{first}-{ids[1].partition('-')[2]}"
    if write.channel == INTERRUPT:
        places = [
            f"{_place(state, node)}:{task}"
            for (node, _), task in zip((before, after), ids, strict=True)
        ]
        interrupts = write.value if isinstance(write.value, list | tuple) else [write.value]
        renamed = [_renamed_interrupt(each, *places) for each in interrupts]
        if None in renamed:
            raise _not_understood(state, before[0], "it waits inside a subgraph")
        is_one = interrupts is not write.value
        write.value = renamed[0] if is_one else type(write.value)(renamed)
    return ids[1]


def _place(state: State, node: str) -> str:
    return f"{state.checkpoint_ns}|{node}" if state.checkpoint_ns else node


def _task_id(state: State, node: str, parts: Sequence[str]) -> str:
    """Return the id that LangGraph gives a task of this checkpoint."""
    step = int(state.metadata.get("step", -1)) + 1
    start = unhexlify(state.checkpoint["id"].replace("-", ""))
    digest = _digest(start + "".join([_place(state, node), str(step), node, *parts]).encode())
    ends = (0, 8, 12, 16, 20, 32)
    return "-".join(digest[i:j] for i, j in pairwise(ends))


def _renamed_interrupt(interrupt: Any, before: str, after: str) -> Any:
    """Return an interrupt with its id in another place; None if it isn't of the place before."""
    for answered in range(_MAX_ANSWERS):
        suffix = f"|{answered}" if answered else ""
        if interrupt.id == _digest(f"{before}{suffix}".encode()):
            renamed = copy.copy(interrupt)
            renamed.id = _digest(f"{after}{suffix}".encode())
            return renamed
    return None


def _digest(data: bytes) -> str:
    from xxhash import xxh3_128_hexdigest  # noqa: PLC0415 - LangGraph's; it has come with the graph

    return xxh3_128_hexdigest(data)


__all__ = [
    "Revision",
    "Revisions",
    "State",
    "StateDiff",
    "StateWrite",
    "rename_channel",
    "rename_node",
    "set_default",
]
