"""What the scripts that keep results have in common: what is kept is of no machine, and runs are kept short."""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fastdraw.errors import FastdrawError
from fastdraw.files import write_atomically
from fastdraw.training import Run

DOCS = Path(__file__).parents[1] / "docs" / "results"
ROWS = 200  # of a run's metrics
OF_THE_MACHINE = ("root", "download")  # settings of the data
ABSOLUTE = re.compile(r"^(~|/|[A-Za-z]:[\\/])")


def origin() -> dict[str, str]:
    """The commit and the day on which results are kept."""
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True, cwd=DOCS).strip()
    return {"kept_at_commit": commit, "kept_on": datetime.now(timezone.utc).date().isoformat()}


def kept_run(folder: Path, model: str, seed: int, seconds: float) -> dict[str, Any]:
    """Settings and metrics of a run, with the model and the seed that a table has it under.

    Raises:
        FastdrawError: there is no run, or it is broken.
    """
    run = Run.open(folder)
    settings = run.settings().model_dump(mode="json", exclude={"data": set(OF_THE_MACHINE)})
    of_run = {"model": model, "seed": seed, "seconds": seconds, "settings": settings}
    return of_run | {"rows": thinned(run.metrics())}


def thinned(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """At most `ROWS` of a run's rows, spread evenly over those of each split and with its last, to six digits."""
    splits = {split: [row for row in rows if row["split"] == split] for split in ("train", "test")}
    kept = []
    for of_split in splits.values():
        count = min(len(of_split), ROWS // len(splits))
        kept += [of_split[len(of_split) * place // count - 1] for place in range(1, count + 1)]
    short = [{name: float(f"{x:.6g}") if isinstance(x, float) else x for name, x in row.items()} for row in kept]
    return sorted(short, key=lambda row: row["step"])


def read_file(path: Path) -> bytes:
    """Read a file.

    Raises:
        FastdrawError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise FastdrawError(f"cannot read {path}: {error.strerror}") from error


def to_json(values: Any) -> bytes:
    """Values as JSON.

    Raises:
        FastdrawError: a text in them is a path of this machine.
    """
    _check_paths(values)
    # A row of metrics or a list of numbers takes one line, so that a change of it does.
    text = json.dumps(values, indent=1, allow_nan=False)
    return re.sub(r"\{[^{}\[\]]*\}|\[[^{}\[\]]*\]", lambda found: " ".join(found[0].split()), text).encode() + b"\n"


def write_files(files: Mapping[str, bytes], target: Path) -> None:
    """Write files by their names in a folder, which is made where it is missing."""
    for name, content in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target / name, content)


def _check_paths(values: Any) -> None:
    if isinstance(values, str) and ABSOLUTE.match(values):
        raise FastdrawError(f"a path of this machine would be kept: {values}")
    for inner in values.values() if isinstance(values, dict) else values if isinstance(values, list) else ():
        _check_paths(inner)
