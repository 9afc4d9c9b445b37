"""The command `completion`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checkpoint_sa import cli
from checkpoint_sa.cli import terminal
from checkpoint_sa.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

    from checkpoint_sa.cli.terminal import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    completion = terminal.command(
        commands, "completion", _completion, "print a script that completes commands in a shell"
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def _completion(args: argparse.Namespace) -> None:
    try:
        import shtab  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "completion needs shtab: pip install 'langgraph-checkpoint-sa[cli]'."
        ) from None
    terminal.say(shtab.complete(cli.parser(), shell=args.shell).rstrip())
