"""The command line: fastdraw COMMAND. A user's mistake ends as one line on stderr, status 1 (of usage: 2)."""

import importlib
import io
import os
import re
import sys
from collections.abc import Sequence

from fastdraw.cli.arguments import Parser, UsageError
from fastdraw.errors import FastdrawError

COMMANDS = {
    "train": "train a model by a preset or by settings",
    "resume": "go on with a run that was stopped",
    "sample": "draw digits with a trained model",
    "reconstruct": "show test images or your own beside what the model makes of them",
    "interpolate": "show the way from one image to another",
    "embed": "write the codes of images to a file, and show where they lie",
    "traverse": "show what each number of a code does to an image",
    "figures": "make the figures of the seqDRAW paper, and measure what it claims about them",
    "evaluate": "measure the test bound and how well the drawn digits can be read",
    "export": "write the model of a run alone, to be kept or passed on",
    "train-classifier": "train the network that judges drawn digit sequences",
    "demo": "train on the digits in this package, draw and test, in a few minutes",
    "data": "show what a model is trained on, prepared as it is for training",
    "info": "show versions, devices and what can run here",
    "reproduce": "train, draw and measure all that a table of a paper compares",
}
INTERRUPTED = 130
NO_MEMORY = "allocate memory|out of memory|Storage size calculation overflowed"  # in the words of torch


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 for an error, 2 for wrong usage, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    # Threads that wait soon sleep instead of spinning on, which a busy machine pays for dearly. Read as torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # A name that the locale knows may be one that the terminal does not.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _check_text(argv)
        parser = Parser(
            prog="fastdraw",
            description="Recurrent attention models and variational auto-encoders that draw images.",
            epilog="commands:\n" + "\n".join(f"  {name:17} {text}" for name, text in COMMANDS.items()),
        )
        parser.add_argument(
            "command", metavar="COMMAND", choices=COMMANDS, help="one of those below; COMMAND --help says more"
        )
        # Everything after the command is the command's own.
        command = parser.parse_args(argv[:1]).command
        importlib.import_module(f"fastdraw.cli.{command.replace('-', '_')}").main(argv[1:])
    except UsageError as error:
        return _fail(error, 2)
    except FastdrawError as error:
        return _fail(error, 1)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search(NO_MEMORY, str(error)):
            raise
        return _fail("not enough memory for a model, a batch or a count of this size: make it smaller", 1)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error, 1)
    except KeyboardInterrupt as stop:
        print(f"fastdraw: {stop if stop.args else 'stopped'}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _check_text(argv: Sequence[str]) -> None:
    # What the locale cannot decode arrives as surrogates, which neither settings.json nor TensorBoard can hold.
    for word in argv:
        if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
            raise UsageError(
                f"argument {word!r} is no text in the encoding of this locale: rename it, or set LC_ALL=C.UTF-8"
            )


def _fail(error: object, status: int) -> int:
    print(f"fastdraw: error: {' '.join(str(error).split())}", file=sys.stderr)
    return status
