"""Where what is made of a data set is kept for the next time."""

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fastdraw.files import WriteError


def cache_places(root: Path, name: str) -> list[Path]:
    """Where a cache may lie: beside the data, or in the user's own folder under a name that tells roots apart."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    mark = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    places = [root / f".fastdraw-{name}"]
    if home.is_absolute():  # a user of a container may have no home
        places.append(home / "fastdraw" / f"{mark}-{name}")
    return places


def keep(places: Sequence[Path], write: Callable[[Path], None], otherwise: str) -> None:
    """Have `write` write to the first of the places where it can; where there is none, say so and `otherwise`.

    `write` says that it cannot by an OSError or a WriteError.
    """
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            # The superuser could write into a folder that is marked read-only, and should not.
            if place.parent.stat().st_mode & 0o222:
                return write(place)
        except (OSError, WriteError):
            continue
    folders = " or ".join(str(place.parent) for place in places)
    print(f"note: nothing in {folders} can be written: {otherwise}", file=sys.stderr)
