"""What scripts that keep results in docs/results have in common: whole files, JSON without the paths of a machine."""

import json
import re
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fastdraw.errors import FastdrawError
from fastdraw.files import write_atomically

DOCS = Path(__file__).parents[1] / "docs" / "results"
ABSOLUTE = re.compile(r"^(~|/|[A-Za-z]:[\\/])")


def origin() -> dict[str, str]:
    """The commit that results are kept at, and the day."""
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True, cwd=DOCS).strip()
    return {"kept_at_commit": commit, "kept_on": datetime.now(timezone.utc).date().isoformat()}


def read(path: Path) -> bytes:
    """Read a file.

    Raises:
        FastdrawError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise FastdrawError(f"cannot read {path}: {error.strerror}") from error


def as_json(values: Any) -> bytes:
    """Values as JSON in which a row of metrics takes one line, so that a change of it does.

    Raises:
        FastdrawError: a path of this machine is among them.
    """
    _check_paths(values)
    text = json.dumps(values, indent=1, allow_nan=False)
    return re.sub(r"\{[^{}\[\]]*\}|\[[^{}\[\]]*\]", lambda found: " ".join(found[0].split()), text).encode() + b"\n"


def write(files: Mapping[str, bytes], target: Path) -> None:
    """Write files by their names in a folder, which is made where it is missing."""
    for name, content in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target / name, content)


def _check_paths(values: Any) -> None:
    if isinstance(values, str) and ABSOLUTE.match(values):
        raise FastdrawError(f"a path of this machine would be kept: {values}")
    for inner in values.values() if isinstance(values, dict) else values if isinstance(values, list) else ():
        _check_paths(inner)
