"""Draw what `checkpoint-sa` shows at a terminal, of the store of docs/cli.md's program.

python docs/screenshots.py
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).parent
WIDTH = 120
COMMANDS = {"threads": "threads", "history": "history bob-1", "show": "show bob-1"}


def main() -> None:
    """Write one SVG for each command."""
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    program = page.partition("```python\n")[2].partition("```")[0]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", program], check=True, cwd=folder)
        for name, command in COMMANDS.items():
            shown = at_terminal([sys.executable, "-m", "checkpoint_sa", *command.split()], folder)
            picture = drawn(f"checkpoint-sa {command}", shown, name)
            (DOCS / f"cli_{name}.svg").write_text(picture, encoding="utf-8")


def at_terminal(command: list[str], folder: str) -> str:
    """Return what a command prints at a terminal, with its escape codes."""
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {
        "CHECKPOINT_SA_URL": "sqlite:///cli.db",
        "COLUMNS": str(WIDTH),
        "TERM": "xterm-256color",
    }
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs) as running:
        os.close(theirs)
        printed = b""
        try:
            while part := os.read(ours, 65536):
                printed += part
        except OSError:  # how Linux says that the other side is closed
            pass
    os.close(ours)
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command)
    return printed.decode().replace("\r\n", "\n")


def drawn(title: str, shown: str, name: str) -> str:
    """Return an SVG of a terminal, without the web fonts that rich names."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(shown))
    picture = console.export_svg(title=title, unique_id=name)
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"


if __name__ == "__main__":
    main()
