"""`checkpoint-sa store`: the items of the long-term memory. Reading postpones no expiry."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from langgraph.store.base import PutOp

from checkpoint_sa.cli import database, terminal
from checkpoint_sa.cli.terminal import Column
from checkpoint_sa.errors import CheckpointError, ConfigurationError
from checkpoint_sa.store import SQLAlchemyStore, repository
from checkpoint_sa.store.moving import Copied, copy_items

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from langgraph.store.base import Item

    from checkpoint_sa import SQLAlchemySaver
    from checkpoint_sa.cli.terminal import Commands

_PAGE = 500


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
    terminal.add_json(ls)

    get = terminal.command(own, "get", _get, "print an item's value as JSON")
    database.add_arguments(get)
    get.add_argument("path", nargs="+", metavar="LABEL... KEY", help="the namespace, and the key")
    terminal.add_json(get)

    search = terminal.command(own, "search", _search, "list items, the latest first")
    database.add_arguments(search)
    search.add_argument("label", nargs="*", help="only this namespace and those below it")
    database.add_where(search, "only items with this field")
    search.add_argument(
        "--limit",
        type=terminal.from_zero,
        default=100,
        metavar="N",
        help="the largest number of items (100)",
    )
    terminal.add_json(search)

    delete = terminal.command(own, "delete", _delete, "delete an item, or a namespace")
    database.add_arguments(delete)
    delete.add_argument(
        "path", nargs="+", metavar="LABEL... KEY", help="the namespace, and the key"
    )
    delete.add_argument(
        "--below", action="store_true", help="all items of the namespace LABEL... KEY and below it"
    )
    delete.add_argument("--yes", action="store_true", help="needed to delete")
    terminal.add_json(delete)

    copy = terminal.command(own, "copy", _copy, "copy items from another database")
    copy.add_argument("--from", dest="source", metavar="URL", help="of ours or LangGraph's stores")
    copy.add_argument("--from-schema", metavar="SCHEMA", help="the schema of its table")
    copy.add_argument("--to", dest="target", metavar="URL", help="the target, with our tables")
    copy.add_argument("--to-schema", metavar="SCHEMA", help="the schema of its tables")
    terminal.add_json(copy)

    stats = terminal.command(own, "stats", _stats, "count items and their bytes; reads everything")
    database.add_arguments(stats)
    terminal.add_json(stats)


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

_STATISTICS = (
    Column("items", "items", is_number=True),
    Column("namespaces", "namespaces", is_number=True),
    Column("bytes", "size", terminal.bytes_or_size, is_number=True),
    Column("expiring", "expiring", is_number=True),
    Column("expired", "expired", is_number=True),
)


def _ls(args: argparse.Namespace) -> None:
    def look(store: SQLAlchemyStore) -> None:
        def found() -> Iterator[dict[str, Any]]:
            for page in count():
                names = store.list_namespaces(
                    prefix=tuple(args.label),
                    max_depth=args.depth,
                    limit=_PAGE,
                    offset=page * _PAGE,
                )
                yield from ({"namespace": name} for name in names)
                if len(names) < _PAGE:
                    return

        terminal.rows(args, _NAMESPACES, found())

    _run(args, look)


def _row(item: Item) -> dict[str, Any]:
    names = ("namespace", "key", "updated_at", "created_at", "value")
    return {name: getattr(item, name) for name in names}


def _get(args: argparse.Namespace) -> None:
    def look(store: SQLAlchemyStore) -> None:
        *namespace, key = args.path
        item = store.get(tuple(namespace), key, refresh_ttl=False)
        if item is None:
            raise CheckpointError(
                f"There is no item {key!r} in the namespace {tuple(namespace)!r}."
            )
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
    if not args.yes:
        raise ConfigurationError("Add --yes to delete; `store search` shows what is there.")

    def delete(store: SQLAlchemyStore) -> None:
        *namespace, key = args.path
        deleted = 0
        if args.below:
            while page := store.search(tuple(args.path), limit=_PAGE, refresh_ttl=False):
                store.batch([PutOp(item.namespace, item.key, None) for item in page])
                deleted += len(page)
        elif store.get(tuple(namespace), key, refresh_ttl=False) is not None:
            store.delete(tuple(namespace), key)
            deleted = 1
        if args.json:
            terminal.say(terminal.as_json({"items": deleted}))
        else:
            terminal.say(f"{deleted} item{'' if deleted == 1 else 's'} deleted")

    _run(args, delete, writes=True)


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
        return copy_items(source.bind.engine, store, schema=source.schema)

    places = (args.source, args.from_schema), (args.target, args.to_schema)
    copied = database.run_on_two(*places, copy)
    if args.json:
        terminal.say(terminal.as_json(copied._asdict()))
    else:
        terminal.say("\t".join(map(str, copied)))
