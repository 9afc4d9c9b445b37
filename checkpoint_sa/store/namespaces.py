"""A namespace as the text of one column, and back.

The labels are joined by dots, as PostgresStore has them. It has neither empty labels nor labels
with a dot, so none of its texts has an empty part. Here an empty part says that the next part is an
escaped label: `("a", "b.c")` is `a..b%002Ec`, and `("a", "")` is `a..`. Each namespace has one
text, and the texts of the namespaces below it begin with that text and a dot.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from langgraph.store.base import InvalidNamespaceError

from checkpoint_sa.codec.ids import validate_id
from checkpoint_sa.errors import InvalidInputError
from checkpoint_sa.models import ITEM_PREFIX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

Namespace = tuple[str, ...]

_SPECIAL = re.compile("[.\0\ud800-\udfff]")
"""The characters that a part can't hold: the dot, and those that PostgreSQL's text can't."""

_ESCAPED = re.compile("[.%\0\ud800-\udfff]")
_ESCAPE = re.compile("%([0-9A-F]{4})")

BEHIND_DOT = "/"
"""The character after the dot: the texts below `a` are from `a.` on and before `a/`."""


class NamespaceError(InvalidInputError, InvalidNamespaceError):
    """A namespace can't be one; nothing was sent to the database."""


def to_text(namespace: Iterable[str]) -> str:
    """Return a namespace as text.

    Raises:
        NamespaceError: It is a single text, or a label isn't text.
        InvalidInputError: It is too long.
    """
    if isinstance(namespace, str):
        raise NamespaceError(
            f"The namespace is a single text, {namespace!r}, and each character would count as a"
            f" label. Pass a tuple of labels: ({namespace!r},)."
        )
    text = ".".join(map(_to_part, namespace))
    return validate_id("namespace", text, ITEM_PREFIX_BYTES)


def _to_part(label: Any) -> str:
    if not isinstance(label, str):
        raise NamespaceError(
            f"A label of the namespace is of type {type(label).__name__}. Labels are text:"
            " convert it."
        )
    if label and not _SPECIAL.search(label):
        return label
    return "." + _ESCAPED.sub(lambda found: f"%{ord(found[0]):04X}", label)


def to_labels(text: str) -> Namespace:
    """Return the namespace that a text stands for.

    A text that no namespace has, such as `a.` of another writer, stands for one with empty labels.
    """
    if not text:
        return ()
    parts = text.split(".")
    if "" not in parts:
        return tuple(parts)
    labels = []
    rest = iter(parts)
    for part in rest:
        if part:
            labels.append(part)
        else:
            labels.append(_ESCAPE.sub(lambda found: chr(int(found[1], 16)), next(rest, "")))
    return tuple(labels)


def check_writable(namespace: Namespace) -> None:
    """Refuse a namespace in which LangGraph doesn't let an application store items.

    Raises:
        NamespaceError: It is empty, or its first label is `langgraph`.
    """
    if not namespace:
        raise NamespaceError("The namespace is empty. Pass at least one label.")
    if namespace[0] == "langgraph":
        raise NamespaceError(
            f"The first label of {namespace!r} is LangGraph's own. Use another one."
        )
