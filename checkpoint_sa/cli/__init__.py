"""The command `checkpoint-sa`: the schema and the stored rows, from a terminal or a script.

It uses argparse. A deploy pipeline must be able to run the commands wherever the package is
installed, also without an extra; and a probe starts them every few seconds, so they start fast.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from checkpoint_sa.cli import schema
from checkpoint_sa.engine import engines
from checkpoint_sa.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, DATA, USAGE, DATABASE = range(4)

_EPILOG = """\
exit codes:
  0  done; verify: this release works with the database's tables
  1  the schema: behind, ahead, not there, another package's, or locked by another migration;
     a value can't be read; a thread isn't there
  2  usage: an argument, the URL, a driver that isn't installed
  3  the database: can't be reached, or refused a statement

A URL on the command line shows in the list of processes; CHECKPOINT_SA_URL doesn't.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. Errors go to standard error, without a password."""
    arguments = sys.argv[1:] if arguments is None else arguments
    given = parser(arguments[0] if arguments else None).parse_args(arguments)
    try:
        given.run(given)
        sys.stdout.flush()
    except ConfigurationError as error:
        return _fail(error, given, USAGE)
    except CheckpointError as error:
        return _fail(error, given, DATA)
    except (ArgumentError, ImportError) as error:
        return _fail(error, given, USAGE)
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (SQLAlchemyError, OSError) as error:
        return _fail(error, given, DATABASE)
    return DONE


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser with every command.

    If `command` is a command about the schema, the parser has those commands alone: a probe starts
    `verify` every few seconds, and the other commands import LangGraph.
    """
    whole = argparse.ArgumentParser(
        prog="checkpoint-sa",
        description="LangGraph checkpoints in a database: the schema, and what is stored.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    schema.add(commands)
    if command not in commands.choices:
        for module in ("look", "clean", "move", "memory", "completion"):
            import_module(f"{__name__}.{module}").add(commands)
    return whole


def _fail(error: Exception, given: argparse.Namespace, code: int) -> int:
    sys.stderr.write(f"checkpoint-sa: {_without_password(str(error), given)}\n")
    return code


def _without_password(text: str, given: argparse.Namespace) -> str:
    """Hide the passwords of the given URLs in a driver's message, which may quote its arguments."""
    for given_url in (getattr(given, name, None) for name in ("url", "source", "target")):
        try:
            url = engines.url_of(given_url) if given_url else None
        except ConfigurationError:
            continue
        if url is not None and url.password:
            text = _hide(text, str(url.password), {url.username, url.host, url.database})
    return text


def _hide(text: str, password: str, names: set[str | None]) -> str:
    """Replace a password in a URL, in a setting, or where it is a whole quoted word.

    The same letters elsewhere are part of another word: a replacement there would garble the
    message and reveal the password. The same is true of the user's, host's or database's name.
    """
    forms = "|".join(map(re.escape, {password, quote(password), quote_plus(password)}))
    text = re.sub(rf"(://[^\s/@:]*:)(?:{forms})(?=@)", r"\1***", text)
    text = re.sub(rf"(\bpassword=)(?:{forms})(?![^\s&'\"])", r"\1***", text)
    if password in names:
        return text
    return re.sub(rf"(?<!\w)([\"'`])(?:{forms})\1", r"\1***\1", text)
