"""One shape for the long-term memory on every engine, as `stores.Store` is one for savers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from checkpoint_sa import AsyncSQLAlchemyStore, SQLAlchemyStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from langgraph.store.base import Item, Op, SearchItem
    from stores import Store

Labels = tuple[str, ...]


class Memory:
    """A `SQLAlchemyStore` on the engine of a `Store`, with the contract's methods in sync form."""

    def __init__(self, on: Store, **options: Any) -> None:
        self.on = on
        make: Any = AsyncSQLAlchemyStore if on.kind.is_async else SQLAlchemyStore
        self.store: Any = make(on.own, **options)

    def using(self, **options: Any) -> Memory:
        """Return another store on the same engine."""
        return Memory(self.on, **options)

    def run(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the store that is a coroutine in the async one, under the same name."""
        result = getattr(self.store, method)(*args, **kwargs)
        return self.on.run(result) if self.on.kind.is_async else result

    def _do(self, method: str, *args: Any, **kwargs: Any) -> Any:
        name = f"a{method}" if self.on.kind.is_async else method
        return self.run(name, *args, **kwargs)

    def get(self, namespace: Labels, key: str, **options: Any) -> Item | None:
        return self._do("get", namespace, key, **options)  # type: ignore[no-any-return]

    def found(self, namespace: Labels, key: str, **options: Any) -> Item:
        """Return the result of `get`, which must not be None."""
        item = self.get(namespace, key, **options)
        assert item is not None, (namespace, key)
        return item

    def put(self, namespace: Labels, key: str, value: Mapping[str, Any], **options: Any) -> None:
        self._do("put", namespace, key, value, **options)

    def delete(self, namespace: Labels, key: str) -> None:
        self._do("delete", namespace, key)

    def search(self, namespace: Labels, **options: Any) -> list[SearchItem]:
        return self._do("search", namespace, **options)  # type: ignore[no-any-return]

    def keys(self, namespace: Labels, **options: Any) -> list[str]:
        """Return the keys of the items that a search finds."""
        return [item.key for item in self.search(namespace, **options)]

    def list_namespaces(self, **options: Any) -> list[Labels]:
        return self._do("list_namespaces", **options)  # type: ignore[no-any-return]

    def batch(self, ops: Iterable[Op]) -> list[Any]:
        return self._do("batch", ops)  # type: ignore[no-any-return]

    def sweep(self) -> int:
        return self.run("sweep_ttl")  # type: ignore[no-any-return]

    def expire(self, key: str) -> None:
        """Let the items with a key have expired a minute ago."""
        past = {
            "": "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-1 minute')",
            "postgresql": "now() - interval '1 minute'",
            "mysql": "utc_timestamp(6) - interval 1 minute",
            "mariadb": "utc_timestamp(6) - interval 1 minute",
        }[self.on.kind.server]
        quoted = "`key`" if self.on.kind.server in ("mysql", "mariadb") else '"key"'
        self.on.sql(f"UPDATE store SET expires_at = {past} WHERE {quoted} = :key", key=key)

    def minutes_left(self) -> list[float]:
        """Return how many minutes the items have left, by their times in the database."""
        left = {
            "": "(julianday(expires_at) - julianday('now')) * 1440",
            "postgresql": "extract(epoch from expires_at - now()) / 60",
            "mysql": "timestampdiff(microsecond, utc_timestamp(6), expires_at) / 60000000",
            "mariadb": "timestampdiff(microsecond, utc_timestamp(6), expires_at) / 60000000",
        }[self.on.kind.server]
        rows = self.on.sql(f"SELECT {left} FROM store WHERE expires_at IS NOT NULL")
        return [float(row[0]) for row in rows]


OpenTarget = Callable[[], Memory]
"""The fixture `open_target`."""
