"""Commands that show stored rows. They run no stored code: see `inspection`."""

from __future__ import annotations

import difflib
import heapq
from collections import Counter
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any

from checkpoint_sa import codec
from checkpoint_sa.cli import database, readable, terminal
from checkpoint_sa.cli.terminal import Column
from checkpoint_sa.errors import CheckpointError, ConfigurationError
from checkpoint_sa.inspection import Inspector, plain
from checkpoint_sa.repository import statistics, threads

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from langgraph.checkpoint.base import CheckpointTuple

    from checkpoint_sa import SQLAlchemySaver
    from checkpoint_sa.cli.terminal import Commands
    from checkpoint_sa.repository.statistics import Pending, Step, ThreadSummary

_FOLDED = 200
"""The number of characters after which a shown value is cut."""
_LEAST = 40
"""The number of characters after which a list cuts an interrupt's value."""
_LARGEST = 10
"""The number of threads, and of channels, that `stats` lists."""


def add(commands: Commands) -> None:
    """Add the commands of this module."""
    threads = terminal.command(commands, "threads", _threads, "list the threads, with their sizes")
    database.add_arguments(threads)
    database.add_where(threads, "only threads that have a checkpoint with this metadata")
    threads.add_argument("--after", metavar="THREAD", help="only threads after this id")
    threads.add_argument(
        "--limit", type=terminal.from_zero, metavar="N", help="the largest number of threads"
    )
    threads.add_argument(
        "--newest", action="store_true", help="the thread with the newest checkpoint first"
    )
    threads.add_argument(
        "--waiting", action="store_true", help="only threads that wait for a person (interrupts)"
    )
    terminal.add_json(threads)

    history = terminal.command(
        commands, "history", _history, "list a thread's checkpoints, newest first"
    )
    database.add_arguments(history)
    history.add_argument("thread", help="the id of a thread")
    history.add_argument("--all", action="store_true", help="also the checkpoints of subgraphs")
    history.add_argument(
        "--limit",
        type=terminal.from_zero,
        metavar="N",
        help="the largest number of checkpoints; the newest are listed",
    )
    terminal.add_json(history)

    show = terminal.command(
        commands,
        "show",
        _show,
        "print the messages, values, pending writes and metadata of a checkpoint",
    )
    database.add_arguments(show)
    show.add_argument("thread", help="the id of a thread")
    show.add_argument(
        "checkpoint",
        nargs="?",
        help="the id of a checkpoint, or its beginning; default: the latest",
    )
    _add_namespace(show)
    show.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="NAME",
        help="only this channel's value and writes; may be given several times",
    )
    show.add_argument(
        "--full", action="store_true", help="print all messages, and long values as a whole"
    )
    terminal.add_json(show)

    diff = terminal.command(
        commands, "diff", _diff, "print the changes between two checkpoints of a thread"
    )
    database.add_arguments(diff)
    diff.add_argument("thread", help="the id of a thread")
    diff.add_argument("old", help="the id of a checkpoint, or its beginning")
    diff.add_argument("new", help="the id of another checkpoint, or its beginning")
    _add_namespace(diff)
    terminal.add_json(diff)

    stats = terminal.command(
        commands,
        "stats",
        _stats,
        "print the sizes of tables, threads and channels, and growth by day; reads everything",
    )
    database.add_arguments(stats)
    stats.add_argument("--plot", metavar="FILE", help="draw growth by day into a file, as PNG")
    terminal.add_json(stats)


def _add_namespace(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--namespace",
        default="",
        help="the namespace of a subgraph, as `history --all` prints it; default: the root",
    )


def _time(value: datetime) -> str:
    return value.strftime("%Y-%m-%d %H:%M:%S")


_RECENT = timedelta(days=180)


def _short_time(value: datetime) -> str:
    """Return a time as `ls` does: `Nov 21 09:24`, or `Nov 21  2024` if that is long ago."""
    is_recent = abs(datetime.now(timezone.utc) - value) < _RECENT
    day = f"{_MONTHS[value.month - 1]} {value.day:2}"
    return f"{day} {value:%H:%M}" if is_recent else f"{day}  {value.year:04}"


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _waiting(values: Sequence[Any]) -> str:
    return "; ".join(map(readable.short, values))


def _cut_waiting(values: Sequence[Any]) -> str:
    return _cut(_waiting(values).replace("\n", " "), _LEAST)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else terminal.drawing(f"{text[: size - 1]}…")


_WAITING = Column(
    "interrupts",
    "waiting for",
    _waiting,
    style="yellow",
    wraps=True,
    brief=_cut_waiting,
    is_optional=True,
)

# threads

_THREADS = (
    Column("thread_id", "thread", style="bold"),
    Column("checkpoints", "checkpoints", is_number=True, abbreviation="steps", dispensable=1),
    Column("writes", "writes", is_number=True, dispensable=3),
    Column("bytes", "size", terminal.bytes_or_size, is_number=True, dispensable=2),
    Column("namespaces", "namespaces", is_number=True, abbreviation="ns", dispensable=4),
    Column("first", "first (UTC)", _time, narrow=_short_time, dispensable=5),
    Column("last", "last (UTC)", _time, narrow=_short_time),
    _WAITING,
)


def _threads(args: argparse.Namespace) -> None:
    def look(saver: SQLAlchemySaver) -> None:
        saver.serde = Inspector()  # metadata may have values that JSON can't represent
        reads_all = args.newest or args.waiting
        summaries = saver.threads(
            where=dict(args.where or ()),
            after=args.after,
            limit=None if reads_all else args.limit,
        )
        found: Iterable[dict[str, Any]] = _with_interrupts(saver, summaries)
        if args.waiting:
            found = (row for row in found if row["interrupts"])
        if args.newest:
            found = sorted(found, key=_last, reverse=True)
        terminal.rows(args, _THREADS, islice(found, args.limit))

    database.run(args, look)


_PAGE = 100


def _with_interrupts(
    saver: SQLAlchemySaver, summaries: Iterator[ThreadSummary]
) -> Iterator[dict[str, Any]]:
    """Yield threads with the values for which they wait; a statement for each page."""
    while page := list(islice(summaries, _PAGE)):
        ids = [summary.thread_id for summary in page]
        pending = saver.database.read("threads", statistics.latest_pending, ids)
        values = {key[0]: found for key, found in readable.waiting_at(pending).items()}
        for summary in page:
            waits_for = values.get(summary.thread_id, [])
            yield {**summary._asdict(), "interrupts": waits_for}


def _last(row: Mapping[str, Any]) -> datetime:
    return row["last"] or datetime.min.replace(tzinfo=timezone.utc)


# history


def _is_state(channel: str) -> bool:
    """Whether a channel holds state; channels that start a node are shown in `next`."""
    return not channel.startswith("branch:to:")


_STEPS = (
    Column("checkpoint_id", "checkpoint", style="bold"),
    Column("time", "time (UTC)", _time, narrow=_short_time, dispensable=1),
    Column("step", "step", is_number=True),
    Column("source", "source", dispensable=3),
    Column("next", "next", ", ".join, style="green", wraps=True),
    Column(
        "changed",
        "changed",
        lambda names: ", ".join(filter(_is_state, names)),
        wraps=True,
        dispensable=4,
    ),
    Column("bytes", "size", terminal.bytes_or_size, is_number=True, dispensable=2),
    _WAITING,
)
_PARENT = Column("parent_id", "parent")
_NAMESPACE = Column("checkpoint_ns", "namespace")
_TREE = Column("tree", "", terminal.drawing, style="cyan")


def _history(args: argparse.Namespace) -> None:
    def look(saver: SQLAlchemySaver) -> tuple[list[Step], list[Pending]]:
        thread_id = codec.thread_id(args.thread)
        return (
            saver.database.read("thread", statistics.thread, thread_id),
            saver.database.read("thread", statistics.interrupted, thread_id),
        )

    steps, pending = database.run(args, look)
    if not steps:
        raise _missing(args.thread)
    parents = {(step.checkpoint_ns, step.parent_id) for step in steps}
    values = {  # a checkpoint with a successor waits no more
        key[1:]: found
        for key, found in readable.waiting_at(pending).items()
        if key[1:] not in parents
    }
    found = [
        {
            "tree": tree,
            **step._asdict(),
            "interrupts": values.get((step.checkpoint_ns, step.checkpoint_id), []),
        }
        for namespace in dict.fromkeys(step.checkpoint_ns for step in steps)
        if args.all or not namespace
        for step, tree in drawn([step for step in steps if step.checkpoint_ns == namespace])
    ][: args.limit]
    columns = [*_STEPS, _NAMESPACE] if args.all else [*_STEPS]
    columns[0] = columns[0]._replace(brief=_beginning([step.checkpoint_id for step in steps]))
    if not terminal.is_pretty():
        columns.append(_PARENT)
    elif any(row["tree"] for row in found):
        columns.insert(0, _TREE)
    if args.json:
        for row in found:
            del row["tree"]
    terminal.rows(args, columns, found)


_BEGINNING = 13
"""The length of a UUID's first two parts; in version 6 they are the time to under a millisecond."""


def _beginning(ids: Sequence[str]) -> Callable[[str], str]:
    """Return a function that shortens ids, but keeps all of these different."""
    size = _BEGINNING
    while len({one[:size] for one in ids}) < len(set(ids)):
        size += 1
    return lambda one: one[:size]


def drawn(steps: Sequence[Step]) -> list[tuple[Step, str]]:
    """Return the checkpoints of a namespace, newest first, with the tree that forks make of them.

    Each line of descent has a column, from its newest checkpoint down to the checkpoint that it
    forked from. A single line of descent has no tree.
    """
    columns: list[str | None] = []
    """The next checkpoint of each column; None for a free column."""
    pictures = []
    to_come = {step.checkpoint_id for step in steps}  # a parent may have been deleted
    for step in reversed(steps):
        to_come.remove(step.checkpoint_id)
        ends = [i for i, expected in enumerate(columns) if expected == step.checkpoint_id]
        if not ends:
            free = next((i for i, expected in enumerate(columns) if expected is None), None)
            if free is None:
                free = len(columns)
                columns.append(None)
            ends = [free]
        pictures.append(_picture(columns, ends))
        for column in ends:
            columns[column] = None
        if step.parent_id in to_come:
            columns[ends[0]] = step.parent_id
        while columns and columns[-1] is None:
            columns.pop()
    has_forks = any(len(picture) > 1 for picture in pictures)
    return [
        (step, picture if has_forks else "")
        for step, picture in zip(reversed(steps), pictures, strict=True)
    ]


def _picture(columns: Sequence[str | None], ends: Sequence[int]) -> str:
    """Draw a line of the tree: a checkpoint in its first column, joined to the columns that end."""
    signs = []
    for number, expected in enumerate(columns):
        if number == ends[0]:
            sign = "●"
        elif number in ends:
            sign = "┘" if number == ends[-1] else "┴"
        elif expected is not None:
            sign = "│"
        else:
            sign = "─" if ends[0] < number < ends[-1] else " "
        signs.append(sign)
        signs.append("─" if ends[0] <= number < ends[-1] else " ")
    return "".join(signs).rstrip()


# show, diff

_PARTS = (
    Column("part", "", style="dim"),
    Column("name", "name", style="bold"),
    Column("task", "task", dispensable=1, is_optional=True),
    Column("value", "value", wraps=True),
)
_MESSAGES = 10
"""The number of latest messages that are shown without `--full`."""


def _show(args: argparse.Namespace) -> None:
    (found,) = database.run(args, lambda saver: _found(saver, args, args.checkpoint))
    checkpoint = found.checkpoint
    parent = found.parent_config["configurable"] if found.parent_config else {}
    pending = [(task, channel, plain(value)) for task, channel, value in found.pending_writes or ()]
    values = checkpoint["channel_values"]
    _check_channels(args, {*values, *(channel for _, channel, _ in pending)})
    wanted = args.channel or {*values, *(channel for _, channel, _ in pending)}
    waits = readable.waiting(pending)
    whole = {
        **found.config["configurable"],
        "parent_id": parent.get("checkpoint_id"),
        "ts": checkpoint.get("ts"),
        "metadata": found.metadata,
        "values": {name: value for name, value in values.items() if name in wanted},
        "writes": [
            {"task": task, "channel": channel, "value": value}
            for task, channel, value in pending
            if channel in wanted
        ],
        "interrupts": [value for several in waits.values() for value in several],
    }
    if args.json:
        terminal.say(terminal.as_json(plain(whole)))
        return
    rows = []
    if not args.channel:
        head = ("thread_id", "checkpoint_ns", "checkpoint_id", "parent_id", "ts")
        rows += [_row(args, "checkpoint", name, whole[name]) for name in head]
        rows += [_row(args, "metadata", *item) for item in found.metadata.items()]
    for name, value in sorted(whole["values"].items()):
        messages = readable.conversation(plain(value))
        if messages is None:
            rows.append(_row(args, "value", name, value))
        else:
            rows += _conversation(args, name, messages)
    rows += [
        _row(args, "write", write["channel"], write["value"], write["task"])
        for write in whole["writes"]
    ]
    if not args.channel:
        rows += [
            {"part": "waiting", "name": "for", "task": task, "value": _long(value, args)}
            for task, several in waits.items()
            for value in map(readable.short, several)
        ]
    terminal.rows(args, _PARTS, rows)


def _check_channels(args: argparse.Namespace, channels: set[str]) -> None:
    """Refuse a channel that isn't there.

    Raises:
        CheckpointError: The checkpoint has neither a value nor a write of it.
    """
    for name in args.channel:
        if name not in channels:
            there = ", ".join(map(repr, sorted(channels))) or "no value and no write"
            raise CheckpointError(
                f"The checkpoint has no channel {name!r}; it has {terminal.visible(there)}."
            )


def _row(
    args: argparse.Namespace, part: str, name: str, value: Any, task: str = ""
) -> dict[str, str]:
    indent = 2 if args.full and terminal.is_pretty() else None
    text = terminal.as_json(plain(value), indent=indent)
    return {"part": part, "name": name, "task": task, "value": _long(text, args)}


def _conversation(
    args: argparse.Namespace, name: str, messages: Sequence[str]
) -> Iterator[dict[str, str]]:
    """Yield the latest messages of a channel, each as a row."""
    shown = messages if args.full else messages[-_MESSAGES:]
    if len(shown) < len(messages):
        earlier = f"({len(messages) - len(shown)} earlier messages; --full shows all)"
        yield {"part": "message", "name": name, "task": "", "value": earlier}
    for message in shown:
        text = message if args.full else " ".join(message.split())
        yield {"part": "message", "name": name, "task": "", "value": _long(text, args)}


def _long(text: str, args: argparse.Namespace) -> str:
    """Return a text, cut if it is long and `--full` isn't given."""
    if args.full or len(text) <= _FOLDED:
        return text
    return f"{_cut(text, _FOLDED + 1)} ({len(text)} characters; --full shows all)"


def _found(
    saver: SQLAlchemySaver, args: argparse.Namespace, *checkpoint_ids: str | None
) -> list[CheckpointTuple]:
    """Read checkpoints of a thread, their values as plain data.

    Raises:
        CheckpointError: A checkpoint doesn't exist.
    """
    saver.serde = Inspector()
    found = []
    for checkpoint_id in checkpoint_ids:
        address = {"thread_id": args.thread, "checkpoint_ns": args.namespace}
        one = saver.get_tuple({"configurable": {**address, "checkpoint_id": checkpoint_id}})
        if one is None and checkpoint_id is not None:
            whole = _whole_id(saver, args, checkpoint_id)
            one = saver.get_tuple({"configurable": {**address, "checkpoint_id": whole}})
        if one is None:
            raise _missing(args.thread, args.namespace, checkpoint_id)
        found.append(one)
    return found


def _whole_id(saver: SQLAlchemySaver, args: argparse.Namespace, beginning: str) -> str:
    """Return the checkpoint id that has this beginning.

    Raises:
        CheckpointError: No id has this beginning, or several ids have it.
    """
    steps = saver.database.read("thread", statistics.thread, codec.thread_id(args.thread))
    ids = [
        step.checkpoint_id
        for step in steps
        if step.checkpoint_ns == args.namespace and step.checkpoint_id.startswith(beginning)
    ]
    if not ids:
        raise _missing(args.thread, args.namespace, beginning)
    if len(ids) > 1:
        raise CheckpointError(
            f"{len(ids)} checkpoints of thread {args.thread!r} begin with {beginning!r}; pass"
            f" more of the id: {', '.join(ids[:3])}, ..."
        )
    return ids[0]


def _missing(thread: str, namespace: str = "", checkpoint_id: str | None = None) -> CheckpointError:
    checkpoint = "checkpoints" if checkpoint_id is None else f"checkpoint {checkpoint_id!r}"
    where = f" in namespace {namespace!r}" if namespace else ""
    command = "threads" if checkpoint_id is None else "history --all"
    return CheckpointError(
        f"Thread {thread!r} has no {checkpoint}{where}. `checkpoint-sa {command}` lists all that"
        " exist."
    )


_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def _diff(args: argparse.Namespace) -> None:
    old, new = database.run(args, lambda saver: _found(saver, args, args.old, args.new))
    for channel, change, lines in changes(
        old.checkpoint["channel_values"], new.checkpoint["channel_values"]
    ):
        if args.json:
            terminal.say(terminal.as_json({"channel": channel, "change": change, "diff": lines}))
            continue
        styled = ((line, _STYLES.get(line[:1], "")) for line in lines)
        terminal.lines([(f"{change} {channel}", "bold"), *styled])


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Compare values: channel, `added`, `removed` or `changed`, and a unified diff."""
    for channel in sorted(old.keys() | new.keys()):
        before, after = _pretty(old, channel), _pretty(new, channel)
        if before != after:
            change = "added" if not before else "changed" if after else "removed"
            lines = difflib.unified_diff(before, after, lineterm="")
            yield channel, change, [*lines][2:]  # without the lines of file names


def _pretty(values: Mapping[str, Any], channel: str) -> list[str]:
    if channel not in values:
        return []
    return terminal.as_json(plain(values[channel]), indent=2).split("\n")


# stats

_SIZES = (
    Column("kind", "", style="dim"),
    Column("name", "name", style="bold"),
    Column("rows", "rows", is_number=True),
    Column("bytes", "size", terminal.bytes_or_size, is_number=True),
    Column("on_disk", "on disk", terminal.bytes_or_size, is_number=True, dispensable=1),
)


def _stats(args: argparse.Namespace) -> None:
    if args.plot:
        _pyplot()  # fails before all rows are read

    def look(saver: SQLAlchemySaver) -> list[dict[str, Any]]:
        tables = saver.database.read("table_sizes", statistics.table_sizes, saver.schema)
        channels = saver.database.read("channel_sizes", statistics.channel_sizes, _LARGEST)
        return [
            *({"kind": "table", **size._asdict()} for size in tables),
            *({"kind": "channel", **size._asdict()} for size in channels),
            *_by_thread(saver),
        ]

    found = database.run(args, look)
    terminal.rows(args, _SIZES, found)
    if args.plot:
        _plot([row for row in found if row["kind"] == "day"], args.plot)


def _by_thread(saver: SQLAlchemySaver) -> Iterator[dict[str, Any]]:
    """Read every thread: return the largest threads, growth by day, and bytes that prune frees."""
    largest: list[tuple[int, str, int]] = []
    checkpoints: Counter[str] = Counter()
    bytes_: Counter[str] = Counter()
    total = saver.database.read("threads", threads.count) if terminal.shows_progress() else None
    with terminal.progress("threads", total) as advance:
        for summary in saver.threads():
            largest = heapq.nlargest(
                _LARGEST, [*largest, (summary.bytes, summary.thread_id, summary.checkpoints)]
            )
            for step in saver.database.read("thread", statistics.thread, summary.thread_id):
                day = f"{step.time:%Y-%m-%d}" if step.time else "unknown"
                checkpoints[day] += 1
                bytes_[day] += step.bytes
            advance(1)
    with terminal.progress("prune", total) as advance:
        prunable = saver.prunable(keep=1, report=lambda _: advance(1))
    for size, name, rows in largest:
        yield {"kind": "thread", "name": name, "rows": rows, "bytes": size}
    for day in sorted(bytes_):
        yield {"kind": "day", "name": day, "rows": checkpoints[day], "bytes": bytes_[day]}
    yield {
        "kind": "prune",
        "name": "keep_latest frees",
        "rows": prunable.checkpoints,
        "bytes": prunable.bytes,
    }


def _pyplot() -> Any:
    try:
        import matplotlib as mpl  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "--plot needs matplotlib: pip install 'langgraph-checkpoint-sa[plot]'."
        ) from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    return plt


def _plot(days: Iterable[Mapping[str, Any]], path: str) -> None:
    known = [day for day in days if day["name"] != "unknown"]
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.bar([day["name"] for day in known], [day["bytes"] / 1e6 for day in known])
    axes.set(title="Stored each day, and not deleted since", ylabel="MB")
    axes.tick_params("x", rotation=45)
    figure.savefig(path, format="png", dpi=150)
    plt.close(figure)
