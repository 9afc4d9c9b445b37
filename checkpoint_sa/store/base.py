"""The stores' operations, each written once; `sync` and `aio` say how a call of one runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from langgraph.store.base import (
    NOT_PROVIDED,
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    NotProvided,
    PutOp,
    SearchItem,
    SearchOp,
    TTLConfig,
)

from checkpoint_sa.calls import Calls
from checkpoint_sa.codec import estimate_size
from checkpoint_sa.database import Database
from checkpoint_sa.errors import ConfigurationError, InvalidInputError
from checkpoint_sa.store import pgvector, repository, values
from checkpoint_sa.store.namespaces import check_writable, to_labels
from checkpoint_sa.store.plan import check_names, check_ttl, plan
from checkpoint_sa.store.repository import Ranking

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from langgraph.store.base import IndexConfig, NamespacePath, Op, Result
    from sqlalchemy import Connection, Engine

    from checkpoint_sa.engine.retry import Metrics
    from checkpoint_sa.rows import AnyRow
    from checkpoint_sa.store.index import Index
    from checkpoint_sa.store.namespaces import Namespace
    from checkpoint_sa.store.plan import Plan
    from checkpoint_sa.store.repository import Found

Fields = Literal[False] | list[str] | None


class BaseSQLStore(Calls, BaseStore):
    """Every operation of the stores.

    Attributes:
        database: The engine or connection, and how an operation runs on it.
        index: How texts are embedded, for semantic search; None without.
        ttl_config: The configuration of times to live; None without one.
    """

    supports_ttl = True

    def __init__(
        self,
        bind: Engine | Connection,
        *,
        schema: str | None,
        index: IndexConfig | None,
        ttl: TTLConfig | None,
        retry_seconds: float,
    ) -> None:
        super().__init__()
        self.ttl_config = ttl
        self.index = None if index is None else _index_of(index)
        if ttl is not None:
            check_names("ttl", ttl, TTLConfig.__annotations__)
            try:
                check_ttl(ttl.get("default_ttl"))
            except InvalidInputError as error:
                raise ConfigurationError(f"default_ttl of `ttl`: {error}") from None
        self.database = Database(
            bind, schema=schema, retry_seconds=retry_seconds, check=repository.check_table
        )

    @property
    def schema(self) -> str | None:
        """Schema of the table; None is the connection's own."""
        return self.database.schema

    @property
    def metrics(self) -> Metrics:
        """Counts since the store was made, and the state of its pool."""
        return self.database.metrics

    # The contract's methods. BaseStore's own refuse labels with dots and empty labels.

    def get(
        self, namespace: Namespace, key: str, *, refresh_ttl: bool | None = None
    ) -> Item | None:
        """Read one item.

        Args:
            namespace: The item's namespace, any labels.
            key: The item's key in it.
            refresh_ttl: Whether the item's time to live begins anew; by default
                `refresh_on_read` of the store's `ttl`, otherwise True.

        Returns:
            The item; None if there is none, or if it has expired.

        Raises:
            InvalidInputError: The namespace or the key can't be stored.
            SchemaError: The tables aren't those of this release.
        """
        return self.batch([self._get_op(namespace, key, refresh_ttl)])[0]  # type: ignore[return-value]

    async def aget(
        self, namespace: Namespace, key: str, *, refresh_ttl: bool | None = None
    ) -> Item | None:
        """`get`, async."""
        return (await self.abatch([self._get_op(namespace, key, refresh_ttl)]))[0]  # type: ignore[return-value]

    def _get_op(self, namespace: Namespace, key: str, refresh_ttl: bool | None) -> GetOp:
        return GetOp(namespace, str(key), self._refreshes(refresh_ttl))

    def search(  # noqa: PLR0913 - one for each criterion
        self,
        namespace_prefix: Namespace,
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """Read the items of a namespace and of those below it, the latest stored first.

        Args:
            namespace_prefix: The namespace; () is all.
            query: A text: the items come in the order of how much a text of theirs is like it, the
                most alike first, with a score. Items without an embedded text aren't found. Without
                an index it has no effect.
            filter: The entries of a matching value. `{"a": 1}` is equality. `{"a": {"$gt": 1}}` has
                an operator: $eq, $ne, $gt, $gte, $lt or $lte. A dict without operators has the
                entries of a matching dict. The meaning is that of LangGraph's InMemoryStore.
            limit: The largest number of items.
            offset: The number of items to leave out.
            refresh_ttl: As for `get`.

        Raises:
            InvalidInputError: The namespace can't be stored, the filter has no meaning, or a number
                is negative.
        """
        op = self._search_op(namespace_prefix, query, filter, limit, offset, refresh_ttl)
        return self.batch([op])[0]  # type: ignore[return-value]

    async def asearch(  # noqa: PLR0913 - one for each criterion
        self,
        namespace_prefix: Namespace,
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """`search`, async."""
        op = self._search_op(namespace_prefix, query, filter, limit, offset, refresh_ttl)
        return (await self.abatch([op]))[0]  # type: ignore[return-value]

    def _search_op(  # noqa: PLR0913, PLR0917 - one for each criterion
        self,
        namespace: Namespace,
        query: str | None,
        filter: dict[str, Any] | None,
        limit: int,
        offset: int,
        refresh_ttl: bool | None,
    ) -> SearchOp:
        refresh = self._refreshes(refresh_ttl)
        return SearchOp(namespace, filter, limit, offset, query, refresh)

    def put(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        index: Fields = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
    ) -> None:
        """Store an item, or replace the value of one.

        Args:
            namespace: The item's namespace: any labels, at least one, the first not `langgraph`.
            key: The item's key in it.
            value: A dict that JSON can hold. It is read back equal; a tuple comes back as a list.
            index: Paths of the texts to embed, instead of those of the store's index; False for
                none. The vectors of the item's value before are deleted.
            ttl: Minutes after which the item expires, None for never; by default `default_ttl` of
                the store's `ttl`. When a read lets it begin anew, it counts in whole minutes,
                rounded up.

        Raises:
            InvalidInputError: The namespace, key, value or ttl can't be stored.
            ValueTooLargeError: The value is larger than the server takes.
        """
        self.batch([self._put_op(namespace, key, value, index, ttl)])

    async def aput(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        index: Fields = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
    ) -> None:
        """`put`, async."""
        await self.abatch([self._put_op(namespace, key, value, index, ttl)])

    def _put_op(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        index: Fields,
        ttl: float | NotProvided | None,
    ) -> PutOp:
        check_writable(namespace)
        if value is None:
            raise InvalidInputError("The value is None. Use delete() to delete an item.")
        minutes = (self.ttl_config or {}).get("default_ttl") if ttl is NOT_PROVIDED else ttl
        return PutOp(namespace, str(key), value, index, ttl=minutes)  # type: ignore[arg-type]

    def delete(self, namespace: Namespace, key: str) -> None:
        """Delete an item, if it is there.

        Raises:
            InvalidInputError: The namespace or the key can't be stored.
        """
        self.batch([PutOp(namespace, str(key), None)])

    async def adelete(self, namespace: Namespace, key: str) -> None:
        """`delete`, async."""
        await self.abatch([PutOp(namespace, str(key), None)])

    def list_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Namespace]:
        """Read the namespaces that have items, in the order of their labels.

        Args:
            prefix: How a namespace begins; `*` is any one label.
            suffix: How it ends; the same.
            max_depth: The number of labels to return of each namespace, each beginning once.
            limit: The largest number of namespaces.
            offset: The number of namespaces to leave out.

        Raises:
            InvalidInputError: A label isn't text, or a number is negative.
        """
        op = _list_op(prefix, suffix, max_depth, limit, offset)
        return self.batch([op])[0]  # type: ignore[return-value]

    async def alist_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Namespace]:
        """`list_namespaces`, async."""
        op = _list_op(prefix, suffix, max_depth, limit, offset)
        return (await self.abatch([op]))[0]  # type: ignore[return-value]

    # All of them are batches

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do several operations, as one transaction.

        Reads see the items as they are before the writes of the same batch. Of several writes of
        one item, the last one counts.

        Returns:
            The result of each operation, at its place.

        Raises:
            InvalidInputError: One of the operations can't be done; none was.
        """
        return self._call(self._batch, list(ops))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """`batch`, async."""
        return await self._acall(self._batch, list(ops))

    def _batch(self, ops: Sequence[Op]) -> list[Result]:
        def size() -> int:
            return sum(estimate_size(op.value) for op in ops if isinstance(op, PutOp))

        planned = self._offload(size, plan, ops, self.index)
        ranking = self._ranking(planned)
        if not planned.reads:
            if planned.writes:
                statements = repository.writes(self.database.dialect, planned, ranking)
                self.database.execute(planned.name, statements)
            return [None] * planned.size
        if planned.writes:
            found = self.database.write(planned.name, repository.read_and_write, planned, ranking)
        else:
            found = self.database.read(planned.name, repository.read, planned, ranking)
        if expiring := found.expiring - planned.written:
            # In a transaction of its own: its locks have no order with those of the writes. The
            # items were read: where nothing can be written they keep their times.
            self.database.write_unless_read_only("store.refresh", repository.refresh, expiring)
        return self._loaded(planned, found)

    def _ranking(self, planned: Plan) -> Ranking | None:
        """Embed the texts of a batch, before a connection is taken from the pool."""
        if self.index is None:
            return None
        if not self.index.is_placed:
            self.database.read("store.index", self.index.find_place, self.schema)
        is_async = self.database.dialect.is_async
        texts = dict.fromkeys(text.text for put in planned.puts.values() for text in put.texts)
        queries = {search.query for search in planned.searches.values() if search.query}
        return Ranking(
            self.index,
            self.index.embed([*texts], is_async=is_async),
            {query: self.index.embed_query(query, is_async=is_async) for query in queries},
        )

    def _loaded(self, planned: Plan, found: Found) -> list[Result]:
        """Make LangGraph's items of rows."""
        results = found.results

        def size() -> int:
            lists = [results[i] for i in planned.searches]
            lists.append([results[i] for i in planned.gets if results[i] is not None])
            return sum(len(row.value) for rows in lists for row in rows)

        def load() -> list[Result]:
            loaded = list(results)
            for i in planned.gets:
                loaded[i] = results[i] and Item(**_fields(results[i]))
            for i in planned.searches:
                scores = found.scores.get(i, {})
                loaded[i] = [
                    SearchItem(**_fields(row), score=scores.get((row.prefix, row.key)))
                    for row in results[i]
                ]
            return loaded

        return self._offload(size, load)

    def _refreshes(self, refresh_ttl: bool | None) -> bool:
        if refresh_ttl is not None:
            return refresh_ttl
        return (self.ttl_config or {}).get("refresh_on_read", True)

    def _check_tables(self) -> None:
        """Check that the table of items is one of ours or PostgresStore's; prepare its vectors."""
        self.database.read("store.setup", lambda _: None)  # the first operation checks the table
        self._create_vectors()

    def _create_vectors(self) -> None:
        """Create PostgresStore's table of vectors, where the server has pgvector."""
        if self.index is None or self.database.dialect.name != "postgresql":
            return
        self.database.write("store.setup", pgvector.create, self.schema, self.index)
        self.index.is_placed = False

    # Times to live

    def _sweep_ttl(self) -> int:
        """Delete expired items, in transactions of bounded size; return their number."""
        total, more = 0, True
        while more:
            deleted, more = self.database.write("store.sweep_ttl", repository.sweep)
            total += deleted
        return total

    def _sweep_seconds(self, minutes: float | None) -> float:
        """Return the time between two sweeps.

        Raises:
            InvalidInputError: The number of minutes isn't positive.
            ConfigurationError: The connection belongs to a caller's transaction.
        """
        if self.database.is_joined:
            raise ConfigurationError(
                "This store is part of a connection's transaction, in which nothing can be swept"
                " from elsewhere. Start the sweeper of a store on an engine."
            )
        given = minutes or (self.ttl_config or {}).get("sweep_interval_minutes") or 5
        return 60 * (check_ttl(given) or 0)


def _index_of(config: IndexConfig) -> Index:
    from checkpoint_sa.store.index import Index  # noqa: PLC0415 - imports numpy

    return Index(config)


def _fields(row: AnyRow) -> dict[str, Any]:
    return {
        "namespace": to_labels(row.prefix),
        "key": row.key,
        "value": values.load(row.value),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def _list_op(
    prefix: NamespacePath | None,
    suffix: NamespacePath | None,
    max_depth: int | None,
    limit: int,
    offset: int,
) -> ListNamespacesOp:
    conditions = []
    if prefix:
        conditions.append(MatchCondition("prefix", prefix))
    if suffix:
        conditions.append(MatchCondition("suffix", suffix))
    return ListNamespacesOp(tuple(conditions), max_depth, limit, offset)
