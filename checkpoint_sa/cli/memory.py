"""`checkpoint-sa store`: the items of the long-term memory. Reading postpones no expiry."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from langgraph.store.base import PutOp

from checkpoint_sa.cli import database, terminal
from checkpoint_sa.cli.terminal import Column
from checkpoint_sa.errors import CheckpointError, ConfigurationError
from checkpoint_sa.rows import chunks
from checkpoint_sa.store import SQLAlchemyStore, repository
from checkpoint_sa.store.moving import Copied, copy_items

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from langgraph.store.base import Item

    from checkpoint_sa import SQLAlchemySaver
    from checkpoint_sa.cli.terminal import Commands

T = TypeVar("T")

_PAGE = 500

_PATH = "the labels of the namespace, and then the key"


def add(commands: Commands) -> None:
    """Add the command and its own commands."""
    text = "show and delete items of the long-term memory"
    whole = commands.add_parser("store", help=text, description=f"{text[0].upper()}{text[1:]}.")
    own = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")

    ls = terminal.command(own, "ls", _ls, "list the namespaces that have items")
    database.add_arguments(ls)
    ls.add_argument("label", nargs="*", help="only this namespace and those below it; * is any")
    ls.add_argument(
        "--depth", type=terminal.from_zero, metavar="N", help="only the first N labels of each"
    )
    _add_limit(ls, "namespaces", None)
    terminal.add_json(ls)

    get = terminal.command(own, "get", _get, "print an item's value as JSON")
    database.add_arguments(get)
    get.add_argument("path", nargs="+", metavar="NAME", help=_PATH)
    terminal.add_json(get)

    search = terminal.command(own, "search", _search, "list items, the latest first")
    database.add_arguments(search)
    search.add_argument("label", nargs="*", help="only this namespace and those below it")
    database.add_where(search, "only items with this field")
    _add_limit(search, "items", 100)
    terminal.add_json(search)

    delete = terminal.command(own, "delete", _delete, "delete an item, or a namespace")
    database.add_arguments(delete)
    delete.add_argument("path", nargs="+", metavar="NAME", help=_PATH)
    delete.add_argument(
        "--below",
        action="store_true",
        help="all items of a namespace and those below it; the names are its labels, without a key",
    )
    delete.add_argument("--dry-run", action="store_true", help="count the items, delete nothing")
    delete.add_argument("--yes", action="store_true", help="don't ask; needed without a terminal")
    terminal.add_json(delete)

    copy = terminal.command(own, "copy", _copy, "copy items from another database")
    copy.add_argument(
        "--from",
        dest="source",
        metavar="URL",
        help="the database that has the items, of checkpoint_sa or of one of LangGraph's stores",
    )
    copy.add_argument("--from-schema", metavar="SCHEMA", help="the schema of its table")
    copy.add_argument("--to", dest="target", metavar="URL", help="the target, with our tables")
    copy.add_argument("--to-schema", metavar="SCHEMA", help="the schema of its tables")
    copy.add_argument("--dry-run", action="store_true", help="compare and count, store nothing")
    terminal.add_json(copy)

    stats = terminal.command(own, "stats", _stats, "count items and their bytes; reads everything")
    database.add_arguments(stats)
    terminal.add_json(stats)


def _add_limit(command: argparse.ArgumentParser, of: str, default: int | None) -> None:
    command.add_argument(
        "--limit",
        type=terminal.from_zero,
        default=default,
        metavar="N",
        help=f"at most N {of}{'' if default is None else f' ({default})'}",
    )


def _item_of(args: argparse.Namespace) -> tuple[tuple[str, ...], str]:
    """Return the namespace and the key that a command names."""
    *namespace, key = args.path
    if not namespace:
        raise ConfigurationError(
            f"Only one name is given, {key!r}. Pass the labels of the namespace, and then the key."
        )
    return tuple(namespace), key


def _run(
    args: argparse.Namespace, action: Callable[[SQLAlchemyStore], None], *, writes: bool = False
) -> None:
    def run(saver: SQLAlchemySaver) -> None:
        action(SQLAlchemyStore(saver.bind, schema=saver.schema))

    database.run(args, run, writes=writes)


def _labels(value: tuple[str, ...]) -> str:
    return terminal.as_json(value)


_NAMESPACES = (Column("namespace", "namespace", _labels, style="bold"),)

_ITEMS = (
    Column("namespace", "namespace", _labels, style="bold"),
    Column("key", "key", style="bold"),
    Column("updated_at", "stored (UTC)", lambda time: f"{time:%Y-%m-%d %H:%M:%S}", wraps=False),
    Column("value", "value", terminal.as_json),
)

_COPIED = (
    Column("items", "copied items", is_number=True),
    Column("present", "there already", is_number=True),
    Column("vectors", "vectors", is_number=True),
)

_STATISTICS = (
    Column("items", "items", is_number=True),
    Column("namespaces", "namespaces", is_number=True),
    Column("bytes", "size", terminal.bytes_or_size, is_number=True),
    Column("expiring", "expiring", is_number=True),
    Column("expired", "expired", is_number=True),
)


def _ls(args: argparse.Namespace) -> None:
    def look(store: SQLAlchemyStore) -> None:
        names = _pages(
            lambda skip: store.list_namespaces(
                prefix=tuple(args.label), max_depth=args.depth, limit=_PAGE, offset=skip
            )
        )
        found = ({"namespace": name} for name in islice(names, args.limit))
        terminal.rows(args, _NAMESPACES, found)

    _run(args, look)


def _pages(page: Callable[[int], Sequence[T]]) -> Iterator[T]:
    """Iterate over the rows of all pages; `page` gets the number of rows to skip."""
    skip = 0
    while rows := page(skip):
        yield from rows
        if len(rows) < _PAGE:
            return
        skip += len(rows)


def _row(item: Item) -> dict[str, Any]:
    names = ("namespace", "key", "updated_at", "created_at", "value")
    return {name: getattr(item, name) for name in names}


def _get(args: argparse.Namespace) -> None:
    namespace, key = _item_of(args)

    def look(store: SQLAlchemyStore) -> None:
        item = store.get(namespace, key, refresh_ttl=False)
        if item is None:
            raise CheckpointError(f"There is no item {key!r} in the namespace {namespace!r}.")
        if args.json:
            terminal.say(terminal.as_json(_row(item)))
        else:
            terminal.say(terminal.as_json(item.value, indent=2))

    _run(args, look)


def _search(args: argparse.Namespace) -> None:
    def look(store: SQLAlchemyStore) -> None:
        found = store.search(
            tuple(args.label), filter=dict(args.where), limit=args.limit, refresh_ttl=False
        )
        terminal.rows(args, _ITEMS, map(_row, found))

    _run(args, look)


def _delete(args: argparse.Namespace) -> None:
    asks = terminal.asks(args)
    namespace, key = (tuple(args.path), "") if args.below else _item_of(args)

    def delete(store: SQLAlchemyStore) -> None:
        if args.below:
            pages = _pages(
                lambda skip: store.search(namespace, limit=_PAGE, offset=skip, refresh_ttl=False)
            )
            found = [(item.namespace, item.key) for item in pages]
        else:
            item = store.get(namespace, key, refresh_ttl=False)
            found = [] if item is None else [(namespace, key)]
        if args.dry_run:
            _say_deleted(args, len(found), "would be deleted")
            return
        question = f"Delete {terminal.several(len(found), 'item')} from {database.name(args)}?"
        if found and asks and not terminal.agrees(question):
            terminal.note("Nothing was deleted.")
            return
        for part in chunks(found, _PAGE):
            store.batch([PutOp(labels, key, None) for labels, key in part])
        _say_deleted(args, len(found), "deleted")

    _run(args, delete, writes=not args.dry_run)


def _say_deleted(args: argparse.Namespace, number: int, done: str) -> None:
    if args.json:
        terminal.say(terminal.as_json({"items": number, "dry_run": args.dry_run}))
    else:
        terminal.say(f"{terminal.several(number, 'item')} {done}")


def _stats(args: argparse.Namespace) -> None:
    def look(store: SQLAlchemyStore) -> None:
        found = store.database.read("store.stats", repository.statistics)
        terminal.rows(args, _STATISTICS, [found._asdict()])

    _run(args, look)


def _copy(args: argparse.Namespace) -> None:
    database.need("from", args.source)
    database.need("to", args.target)

    def copy(source: SQLAlchemySaver, target: SQLAlchemySaver) -> Copied:
        store = SQLAlchemyStore(target.bind, schema=target.schema)
        return copy_items(source.bind.engine, store, schema=source.schema, dry_run=args.dry_run)

    places = (args.source, args.from_schema), (args.target, args.to_schema)
    copied = database.run_on_two(*places, copy)
    terminal.rows(args, _COPIED, [copied._asdict()])
