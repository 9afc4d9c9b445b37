"""Stored values as plain data: nothing is imported, made or called because a row names it.

LangGraph's strict mode makes the types that it knows to be safe, and loses the names of others. An
inspection has to show every row, so here no type is made at all: an object becomes
a dict of its type's name and its fields.
"""

from __future__ import annotations

import json
from typing import Any

import ormsgpack
from langgraph.checkpoint.serde import jsonplus

TYPE = "__type__"
"""The key of a type's name; `fields`, or a single `value`, stands beside it."""

_OBJECTS = {
    jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG,
    jsonplus.EXT_CONSTRUCTOR_POS_ARGS,
    jsonplus.EXT_CONSTRUCTOR_KW_ARGS,
    jsonplus.EXT_METHOD_SINGLE_ARG,
    jsonplus.EXT_PYDANTIC_V1,
    jsonplus.EXT_PYDANTIC_V2,
}
"""Extensions that hold a module, a name, and the parts of the object."""

_NAMES = {jsonplus.EXT_NUMPY_ARRAY: "numpy.ndarray"}


class Inspector:
    """A serializer that reads `JsonPlusSerializer`'s output as plain data, and writes nothing."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Refuse: plain data isn't the value that was stored.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return plain data; for another serializer's output, its tag and size."""
        kind, content = data
        if kind == "null":
            return None
        if kind == "json":
            return json.loads(content)
        if kind == "msgpack":
            return _unpack(content)
        return {TYPE: kind, "bytes": len(content)}


def _unpack(data: bytes) -> Any:
    options = ormsgpack.OPT_NON_STR_KEYS
    return plain(ormsgpack.unpackb(data, ext_hook=_extension, option=options))


def _extension(code: int, data: bytes) -> Any:
    if code == jsonplus.EXT_DELTA_SNAPSHOT:
        return {TYPE: "DeltaSnapshot", "value": _unpack(data)}
    if code not in _OBJECTS:
        return {TYPE: _NAMES.get(code, f"extension {code}"), "bytes": len(data)}
    module, name, made_of, *_ = _unpack(data)
    part = "fields" if isinstance(made_of, dict) else "value"
    return {TYPE: f"{module}.{name}", part: made_of}


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it; bytes by their number."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes | bytearray):
        return {TYPE: "bytes", "bytes": len(value)}
    return value
