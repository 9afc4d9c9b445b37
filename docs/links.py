"""For mkdocs: a link to a file outside docs/ works on GitHub; in the site it is its text."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page's Markdown without the links that leave docs/."""
    return _OUTSIDE.sub(r"\1", markdown)
