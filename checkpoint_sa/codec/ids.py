"""Ids, keys and configs: checked, and as text that every engine stores exactly."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any, NamedTuple

from checkpoint_sa import models
from checkpoint_sa.codec.exact_json import is_exact_json
from checkpoint_sa.encryption import AESGCMSerializer
from checkpoint_sa.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.serde.base import SerializerProtocol

KEY_BYTES = 2600
"""The largest primary key, all its parts together: PostgreSQL's btree takes 2704 bytes."""


def validate_id(name: str, value: Any, limit: int) -> str:
    """Return an id as text that every engine stores exactly.

    Raises:
        InvalidInputError: It is longer than `limit` bytes of UTF-8, or has a NUL or a lone
            surrogate, which PostgreSQL's text can't hold.
    """
    text = value if isinstance(value, str) else str(value)
    if text.isascii() and len(text) <= limit and "\0" not in text:
        return text
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"{name} has a lone surrogate, which no database stores as text: {_shown(text)}."
            " Encode it first."
        ) from None
    if "\0" in text:
        raise InvalidInputError(
            f"{name} has a NUL character, which PostgreSQL doesn't store: {_shown(text)}."
        )
    if size > limit:
        raise InvalidInputError(
            f"{name} has {size} bytes, {limit} fit: {_shown(text)}. Shorten it."
        )
    return text


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else f"{text[:60]}...")  # noqa: PLR2004


def check_key_size(names: Sequence[str], *parts: str) -> None:
    """Check that the ids of a row fit into a primary key together.

    Raises:
        InvalidInputError: They don't fit.
    """
    if sum(map(len, parts)) <= KEY_BYTES // 4:  # a character has four bytes at most
        return
    sizes = [len(part.encode()) for part in parts]
    if sum(sizes) > KEY_BYTES:
        lengths = ", ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
        raise InvalidInputError(
            f"These ids have {sum(sizes)} bytes together, {KEY_BYTES} fit: {lengths}."
            " Use a shorter thread_id or fewer levels of subgraphs."
        )


def thread_id(value: Any) -> str:
    """Return the id of a thread as text."""
    return validate_id("thread_id", value, models.THREAD_ID_BYTES)


def check_copyable(serde: SerializerProtocol, source: Any, target: Any) -> tuple[str, str]:
    """Return source and target of a copy as text.

    Raises:
        InvalidInputError: The copies couldn't be read.
    """
    if isinstance(serde, AESGCMSerializer):
        raise InvalidInputError(
            "AESGCMSerializer binds values to their thread, so the database can't copy them."
            " Read the state of one thread and store it in the other with graph.update_state()."
        )
    return thread_id(source), thread_id(target)


def thread_ids(values: Sequence[Any]) -> list[str]:
    """Return the ids of threads as text, each once."""
    return list(dict.fromkeys(map(thread_id, check_list("thread_ids", values))))


class RunIds(NamedTuple):
    """Ids of runs, each once."""

    indexed: list[str]
    """As the column `run_id` has them."""
    plain: list[str]
    """As metadata has them; ids that some engine's text can't hold are left out."""


def run_ids(values: Sequence[Any]) -> RunIds:
    """Return the ids of runs in both forms."""
    texts = list(dict.fromkeys(map(str, check_list("run_ids", values))))
    return RunIds([run_id(text) for text in texts], [text for text in texts if is_exact_json(text)])


def channels(values: Sequence[Any]) -> list[str]:
    """Return the names of channels, each once."""
    names = check_list("channels", values)
    return list(dict.fromkeys(validate_id("channel", name, models.CHANNEL_BYTES) for name in names))


def check_list(name: str, values: Sequence[Any]) -> Sequence[Any]:
    """Return a list of ids.

    Raises:
        InvalidInputError: It is a single id.
    """
    if isinstance(values, str | bytes):
        raise InvalidInputError(
            f"{name} is a single {type(values).__name__}, and each character would count as an id."
            " Pass a list of ids."
        )
    return values


def run_id(value: Any) -> str:
    """Return a run's key in its index: its id, or a digest if the id doesn't fit."""
    text = str(value)
    raw = text.encode("utf-8", "surrogatepass")
    # Not '': in the column it means no run.
    if 0 < len(raw) <= models.RUN_ID_BYTES and text.isprintable():
        return text
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def address(
    config: RunnableConfig, *, needs_checkpoint: bool = False
) -> tuple[str, str, str | None]:
    """Return thread_id, checkpoint_ns and checkpoint_id of a config.

    Raises:
        InvalidInputError: `configurable` has no `thread_id`, or an id can't be stored.
    """
    configurable = config.get("configurable") or {}
    if configurable.get("thread_id") is None:
        raise InvalidInputError(
            "The config has no thread_id. Pass it: {'configurable': {'thread_id': 'some-id'}}."
        )
    thread = thread_id(configurable["thread_id"])
    namespace = validate_id(
        "checkpoint_ns", configurable.get("checkpoint_ns") or "", models.NAMESPACE_BYTES
    )
    checkpoint_id = configurable.get("checkpoint_id") or None
    if checkpoint_id is not None:
        checkpoint_id = validate_id("checkpoint_id", checkpoint_id, models.CHECKPOINT_ID_BYTES)
    elif needs_checkpoint:
        raise InvalidInputError(
            "The config has no checkpoint_id, so there is nothing to attach the writes to."
            " Pass the config that put() returned."
        )
    return thread, namespace, checkpoint_id


def config_of(thread: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    """Return the config that names a checkpoint."""
    return {
        "configurable": {
            "thread_id": thread,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
        }
    }


def next_version(current: str | float | None) -> str:
    """Return a version greater than `current`, in the form of LangGraph's Postgres saver.

    The random part keeps two forks of a checkpoint from giving the same version to two values.
    """
    if current is None:
        number = 0
    elif isinstance(current, str):
        number = int(current.split(".")[0])
    else:
        number = int(current)
    return f"{number + 1:032}.{random.random():016}"  # noqa: S311 - no secret
