"""Semantic search: the texts of items as vectors, and the ranking of vectors.

The ranking is exact, and the same on every engine. It is made here where the database has no
function for it: then it looks through all vectors of a namespace, in pages of bounded size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from langgraph.store.base import IndexConfig, ensure_embeddings, get_text_at_path, tokenize_path
from sqlalchemy.util import await_only

from checkpoint_sa.codec.ids import validate_id
from checkpoint_sa.errors import ConfigurationError, InvalidInputError
from checkpoint_sa.models import FIELD_BYTES
from checkpoint_sa.store import pgvector, sqlitevec
from checkpoint_sa.store.plan import check_names

try:
    import numpy as np
except ImportError:
    np = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_core.embeddings import Embeddings
    from numpy.typing import NDArray
    from sqlalchemy import Connection

Metric = Literal["cosine", "l2", "inner_product"]
Kind = Literal["vector", "halfvec"]

_METRICS = ("cosine", "l2", "inner_product")
_FLOAT = "<f4"
_FLOAT_BYTES = 4


class Text(NamedTuple):
    """A text of an item that is embedded."""

    field: str
    text: str


class Ann(NamedTuple):
    """An index of pgvector for approximate search."""

    kind: str
    """`hnsw` or `ivfflat`."""
    parameters: dict[str, int]
    """Its storage parameters, such as `lists`."""


_ANN = {
    "hnsw": {"m": "m", "ef_construction": "ef_construction"},
    "ivfflat": {"lists": "lists", "nlist": "lists"},
}
"""The names in `ann_index_config` -> pgvector's parameters, by kind, as PostgresStore has them."""


_NAMES = {*IndexConfig.__annotations__, "distance_type", "ann_index_config", "text_fields"}
"""The names in `index`: LangGraph's, and those of PostgresStore and SqliteStore."""


def _ann_of(config: Mapping[str, Any]) -> Ann | None:
    """Return the index that `ann_index_config` names.

    Raises:
        ConfigurationError: The kind or a parameter isn't one of pgvector's.
    """
    kind = config.get("kind") or "flat"
    if kind == "flat":
        return None
    if kind not in _ANN:
        raise ConfigurationError(
            f"`kind` of `ann_index_config` is {kind!r}. Expected 'hnsw', 'ivfflat' or 'flat'."
        )
    parameters = {}
    for name, parameter in _ANN[kind].items():
        number = config.get(name)
        if number is None:
            continue
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ConfigurationError(
                f"`{name}` of `ann_index_config` is {number!r}. Expected a whole number from 1 on."
            )
        parameters[parameter] = number
    return Ann(kind, parameters)


class Index:
    """LangGraph's `IndexConfig`, checked.

    Attributes:
        dims: The number of dimensions of a vector.
        metric: How two vectors are compared: the greater the score, the more alike.
        kind: pgvector's type, where `setup` creates PostgresStore's table.
        ann: The index of pgvector for approximate search; None for exact search.
        place: Where PostgresStore's vectors are; None where vectors are ours.
        in_sqlite: Whether SQLite ranks our vectors, by its extension sqlite-vec.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        if np is None:
            raise ConfigurationError(
                "`index` needs numpy, which isn't installed. Install it:"
                ' pip install "langgraph-checkpoint-sa[index]".'
            )
        check_names("index", config, _NAMES)
        dims: Any = config.get("dims")
        metric: Any = config.get("distance_type") or "cosine"
        if not isinstance(dims, int) or isinstance(dims, bool) or dims < 1:
            raise ConfigurationError(f"`dims` of `index` is {dims!r}. Expected a whole number.")
        if metric not in _METRICS:
            raise ConfigurationError(
                f"`distance_type` of `index` is {metric!r}. Expected one of {', '.join(_METRICS)}."
            )
        if config.get("embed") is None:
            raise ConfigurationError(
                "`index` has no `embed`. Expected LangChain embeddings, a function of texts, or"
                " their name such as 'openai:text-embedding-3-small'."
            )
        fields = config.get("fields") or ["$"]
        self.place: pgvector.Place | None = None
        self.in_sqlite = False
        self.is_placed = False
        ann = config.get("ann_index_config") or {}
        self.kind: Kind = ann.get("vector_type") or "vector"
        if self.kind not in ("vector", "halfvec"):
            raise ConfigurationError(
                f"`vector_type` of `index` is {self.kind!r}. Expected 'vector' or 'halfvec'."
            )
        self.ann = _ann_of(ann)
        self.dims = dims
        self.metric: Metric = metric
        self.fields = [fields] if isinstance(fields, str) else list(fields)
        self.embeddings: Embeddings = ensure_embeddings(config["embed"])

    def find_place(self, connection: Connection, schema: str | None) -> None:
        """Look where the vectors are, and who ranks them, before the first use."""
        self.place = pgvector.find(connection, schema, self.dims)
        self.in_sqlite = sqlitevec.is_there(connection, self.metric)
        self.is_placed = True

    def texts(self, value: Mapping[str, Any], fields: Sequence[str] | None) -> list[Text]:
        """Return the texts of an item's value that are embedded.

        Args:
            value: The value.
            fields: The paths; None for those of the configuration.

        Raises:
            InvalidInputError: `fields` isn't a list of texts, or a path is too long.
        """
        if fields is not None and (isinstance(fields, str) or not isinstance(fields, Sequence)):
            raise InvalidInputError(
                f"index is a {type(fields).__name__}. Expected a list of paths, False for no"
                " embeddings, or None for the fields of the store's index."
            )
        found = {}  # a path may stand twice
        for path in self.fields if fields is None else fields:
            if not isinstance(path, str):
                raise InvalidInputError(
                    f"index has a path of type {type(path).__name__}. Expected text."
                )
            texts = get_text_at_path(value, "$" if path == "$" else tokenize_path(path))
            for i, text in enumerate(texts):
                field = f"{path}.{i}" if len(texts) > 1 else path
                found[field] = Text(validate_id("field", field, FIELD_BYTES), text)
        return [*found.values()]

    def embed(self, texts: Sequence[str], *, is_async: bool) -> dict[str, bytes]:
        """Return the vector of each text that items have.

        Args:
            texts: The texts, each once.
            is_async: Whether this runs in a greenlet that can await.

        Raises:
            InvalidInputError: The embeddings aren't as the configuration says.
        """
        if not texts:
            return {}
        if is_async:
            vectors = await_only(self.embeddings.aembed_documents(list(texts)))
        else:
            vectors = self.embeddings.embed_documents(list(texts))
        if len(vectors) != len(texts):
            raise InvalidInputError(
                f"`embed` of `index` returned {len(vectors)} vectors for {len(texts)} texts."
            )
        return {
            text: self._vector(vector).tobytes()
            for text, vector in zip(texts, vectors, strict=True)
        }

    def embed_query(self, query: str, *, is_async: bool) -> NDArray[np.float32]:
        """Return the vector of a query; as `embed`."""
        if is_async:
            return self._vector(await_only(self.embeddings.aembed_query(query)))
        return self._vector(self.embeddings.embed_query(query))

    def _vector(self, numbers: Sequence[float]) -> NDArray[np.float32]:
        vector = np.asarray(numbers, dtype=_FLOAT)
        if vector.shape != (self.dims,):
            raise InvalidInputError(
                f"`embed` of `index` returned a vector of {vector.size} numbers, `dims` says"
                f" {self.dims}."
            )
        if not np.isfinite(vector).all():
            raise InvalidInputError("`embed` of `index` returned a vector that isn't finite.")
        return vector

    @property
    def size(self) -> int:
        """The number of bytes of a vector in the database."""
        return self.dims * _FLOAT_BYTES

    def score(self, distance: float) -> float:
        """Return how alike vectors of a distance are, as PostgresStore does."""
        return 1 - distance if self.metric == "cosine" else -distance

    def scores(self, query: NDArray[np.float32], vectors: Sequence[bytes]) -> list[float]:
        """Return how alike vectors are to a query.

        Raises:
            ConfigurationError: They have another number of dimensions.
        """
        if any(len(vector) != self.size for vector in vectors):
            raise ConfigurationError(
                f"There are embeddings of other than {self.dims} dimensions in this namespace. Use"
                " the `index` that they were stored with, or put their items again."
            )
        matrix = np.frombuffer(b"".join(vectors), dtype=_FLOAT).reshape(-1, self.dims)
        if self.metric == "l2":
            return [float(score) for score in -np.linalg.norm(matrix - query, axis=1)]
        scores = matrix @ query
        if self.metric == "cosine":
            lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
            scores = np.divide(scores, lengths, out=np.zeros_like(scores), where=lengths > 0)
        return [float(score) for score in scores]
