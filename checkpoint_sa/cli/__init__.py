"""The command `checkpoint-sa`: the schema, and what is stored, from a terminal or a script.

On argparse: the commands of a deploy pipeline must run wherever the package is installed, without
an extra that an image may lack, and a probe starts them every few seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from checkpoint_sa import engines
from checkpoint_sa.cli import clean, completion, look, move, schema
from checkpoint_sa.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, DATA, USAGE, DATABASE = range(4)

_EPILOG = """\
exit codes:
  0  done; verify: the database is at this release's revision
  1  the schema: behind, ahead, not there, another package's, or locked by another migration;
     a value can't be read; a thread isn't there
  2  usage: an argument, the URL, a driver that isn't installed
  3  the database: can't be reached, or refused a statement

A URL on the command line shows in the list of processes; CHECKPOINT_SA_URL doesn't.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. Errors go to standard error, without a password."""
    given = parser().parse_args(arguments)
    try:
        given.run(given)
        sys.stdout.flush()
    except ConfigurationError as error:
        return _fail(error, given, USAGE)
    except CheckpointError as error:
        return _fail(error, given, DATA)
    except (ArgumentError, ImportError) as error:
        return _fail(error, given, USAGE)
    except BrokenPipeError:  # who read our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (SQLAlchemyError, OSError) as error:
        return _fail(error, given, DATABASE)
    return DONE


def parser() -> argparse.ArgumentParser:
    """Return the parser with every command."""
    whole = argparse.ArgumentParser(
        prog="checkpoint-sa",
        description="LangGraph checkpoints in a database: the schema, and what is stored.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    schema.add(commands)
    look.add(commands)
    clean.add(commands)
    move.add(commands)
    completion.add(commands)
    return whole


def _fail(error: Exception, given: argparse.Namespace, code: int) -> int:
    sys.stderr.write(f"checkpoint-sa: {_without_password(str(error), given)}\n")
    return code


def _without_password(text: str, given: argparse.Namespace) -> str:
    """Hide passwords in what a driver says, in case one quotes what it was given."""
    for url in (getattr(given, name, None) for name in ("url", "source", "target")):
        try:
            password = engines.url_of(url).password if url else None
        except ConfigurationError:
            continue
        for form in {password, quote(password), quote_plus(password)} if password else ():
            text = text.replace(form, "***")
    return text
