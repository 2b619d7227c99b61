"""What tables of papers have in common: results are kept as JSON, and Markdown is rendered from them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fastdraw.errors import FastdrawError

Kind = TypeVar("Kind", bound="Part")


class Part(BaseModel):
    """Results, or a part of them: no unknown names, no infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def read(cls: type[Kind], path: Path) -> Kind:
        """Read results that were written as JSON.

        Raises:
            FastdrawError: there is no such file, or it holds something else; what is wrong first.
        """
        try:
            return cls.model_validate(json.loads(path.read_text("utf-8")))
        except OSError as error:
            raise FastdrawError(f"cannot read {path}: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            raise FastdrawError(f"{path}: {place and place + ': '}{message}") from None
        except ValueError as error:
            raise FastdrawError(f"{path} is no JSON: {error}") from None


def table_head(cells: Sequence[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [table_row(cells), "|---" * len(cells) + "|"]


def table_row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def settings_rows(settings: Mapping[Any, Mapping[str, Any]]) -> list[str]:
    """A Markdown table of sections of values, a column for each name."""
    flat = {name: _flat(values) for name, values in settings.items()}
    names = list(dict.fromkeys(name for values in flat.values() for name in values))
    return [
        *table_head(["setting", *flat]),
        *(table_row([name, *(f"{values.get(name, '')}" for values in flat.values())]) for name in names),
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found
