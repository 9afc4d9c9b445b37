"""The command `checkpoint-sa`: the schema and the stored rows, from a terminal or a script.

It uses argparse. A deploy pipeline must be able to run the commands wherever the package is
installed, also without an extra; and a probe starts them every few seconds, so they start fast.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from sqlalchemy.exc import ArgumentError, SQLAlchemyError

import checkpoint_sa
from checkpoint_sa.cli import schema, terminal
from checkpoint_sa.engine import engines
from checkpoint_sa.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import URL

DONE, DATA, USAGE, DATABASE = range(4)
INTERRUPTED = 130
"""Of Ctrl-C: 128 and the signal's number, as shells say it."""

_EPILOG = """\
exit codes:
  0  done; verify: this release works with the database's tables
  1  the schema: behind, ahead, not there, another package's, or locked by another migration;
     a value can't be read; a thread isn't there
  2  usage: an argument, the URL, a driver that isn't installed
  3  the database: can't be reached, isn't there, or refused a statement
  130  interrupted by Ctrl-C

A URL on the command line shows in the list of processes; CHECKPOINT_SA_URL doesn't.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. Errors go to standard error, without a password."""
    arguments = sys.argv[1:] if arguments is None else arguments
    terminal.prepare()
    # A person waits and sees it; without a handler Python would print it as an error.
    logging.getLogger("checkpoint_sa.slow").addHandler(logging.NullHandler())
    args = parser(arguments[0] if arguments else None).parse_args(arguments)
    try:
        args.run(args)
        sys.stdout.flush()
    except ConfigurationError as error:
        return _fail(error, args, USAGE)
    except CheckpointError as error:
        return _fail(error, args, DATA)
    except (ArgumentError, ImportError) as error:
        return _fail(error, args, USAGE)
    except KeyboardInterrupt:
        terminal.note("checkpoint-sa: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (SQLAlchemyError, OSError) as error:
        return _fail(error, args, DATABASE)
    return DONE


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser with every command.

    If `command` is a command about the schema, the parser has those commands alone: a probe starts
    `verify` every few seconds, and the other commands import LangGraph.
    """
    whole = argparse.ArgumentParser(
        prog="checkpoint-sa",
        description="LangGraph checkpoints in a database: the schema and the stored threads.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action=_Version, help="print the version of the package")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    schema.add(commands)
    if command not in {*commands.choices, "--version"}:
        for module in ("look", "clean", "move", "memory", "completion"):
            import_module(f"{__name__}.{module}").add(commands)
    return whole


class _Version(argparse.Action):
    """Prints the version; it is read only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        terminal.say(f"checkpoint-sa {checkpoint_sa.__version__}")
        parser.exit()


def _fail(error: Exception, args: argparse.Namespace, code: int) -> int:
    text = str(error)
    if "file is not a database" in text:  # SQLite doesn't say which file
        files = " or ".join(str(path) for url in _urls(args) if (path := engines.sqlite_file(url)))
        text = f"{terminal.visible(files)} isn't a database of SQLite. Check the path."
    sys.stderr.write(f"checkpoint-sa: {_without_password(text, args)}\n")
    return code


def _urls(args: argparse.Namespace) -> Iterator[URL]:
    """Yield the URLs that a command was given."""
    for given_url in (getattr(args, name, None) for name in ("url", "source", "target")):
        if given_url:
            with suppress(ConfigurationError):
                yield engines.url_of(given_url)


def _without_password(text: str, args: argparse.Namespace) -> str:
    """Hide the passwords of the given URLs in a driver's message, which may quote its arguments."""
    for url in _urls(args):
        if url.password:
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
