"""Arguments that several commands share, among them one for every setting of a run."""

import argparse
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, get_origin

from fastdraw.errors import FastdrawError

if TYPE_CHECKING:
    from fastdraw.training import Settings


class UsageError(FastdrawError):
    """Arguments that do not fit the command."""


class Parser(argparse.ArgumentParser):
    """Takes exact names only, keeps the line breaks of its epilog, and raises a UsageError instead of leaving."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def parse_settings_arguments(
    parser: Parser, argv: Sequence[str], preset: str | None
) -> tuple[argparse.Namespace, "Settings"]:
    """Add an argument for every setting, with the value that it has in the preset as the default, and parse argv.

    Returns:
        what the parser's own arguments say, and the settings.
    Raises:
        UsageError: an unknown or incomplete argument.
        FastdrawError: no such preset, or a value out of its range.
    """
    from fastdraw.training import resolve
    from fastdraw.training.settings import fields

    defaults = resolve(preset)
    group = parser.add_argument_group("settings", f"defaults of {f'the preset {preset}' if preset else 'fastdraw'}")
    for name, field in fields(defaults).items():
        value: Any = defaults
        for part in name.split("."):
            value = getattr(value, part)
        # The two that every user of the full data needs are spelled as other programs spell them.
        flag = name.removeprefix("data.") if name in ("data.root", "data.download") else name
        shown = " ".join(map(str, value)) or "none" if isinstance(value, tuple) else "none" if value is None else value
        help_text = f"{field.description or flag.rpartition('.')[2]} (default: {shown})".replace("%", "%%")
        group.add_argument(
            f"--{flag.replace('_', '-')}",
            dest=name,
            default=argparse.SUPPRESS,
            help=help_text,
            **_kind(field.annotation),
        )
    args = parser.parse_args(argv)
    overrides = {name: value for name, value in vars(args).items() if name in fields(defaults)}
    return args, resolve(preset, overrides)


def run_argument(parser: Parser) -> None:
    """Add the folder of a run."""
    parser.add_argument("run", metavar="RUN", type=folder, help="the --out folder of fastdraw train, demo or export")


def root_argument(parser: Parser) -> None:
    """Add the folder of the data."""
    parser.add_argument("--root", metavar="DIR", type=folder, help="folder of the data (default: the run's)")


def device_argument(parser: Parser) -> None:
    """Add the device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")


def seed_argument(parser: Parser, of: str = "the noise") -> None:
    """Add the seed of the noise, or of something else."""
    parser.add_argument("--seed", metavar="INT", type=seed_number, default=0, help=f"of {of} (default: %(default)s)")


def count(text: str) -> int:
    """Parse a number of things, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    if number >= 2**31:
        raise argparse.ArgumentTypeError(f"must be less than 2^31, got {number}")
    return number


def within(least: int, most: int) -> Callable[[str], int]:
    """A parser of numbers from least to most."""

    def whole(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must lie in {least}..{most}, got {number}")
        return number

    return whole


def folder(text: str) -> Path:
    """Parse a folder; an empty text, as an unset shell variable leaves it, does not stand for the current one."""
    if not text:
        raise argparse.ArgumentTypeError("must name a folder, got an empty text")
    return Path(text)


def path(text: str) -> Path:
    """Parse a file or a folder, as `folder` does."""
    if not text:
        raise argparse.ArgumentTypeError("must name a file or a folder, got an empty text")
    return Path(text)


def seed_number(text: str) -> int:
    """Parse a seed, 0 to 2^63 - 1."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"must lie in 0..2^63-1, got {number}")
    return number


def _kind(annotation: Any) -> dict[str, Any]:
    if annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(annotation) is tuple:
        kind, *others = get_args(annotation)
        return {"nargs": "+" if Ellipsis in others else 1 + len(others), "metavar": kind.__name__.upper()}
    if get_origin(annotation) is Literal:
        return {"metavar": "{" + ",".join(get_args(annotation)) + "}"}
    if isinstance(annotation, types.UnionType):
        annotation = get_args(annotation)[0]
    if annotation is Path:
        return {"metavar": "PATH", "type": path}
    return {"metavar": annotation.__name__.upper()}
