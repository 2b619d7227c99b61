"""Files that are whole or not there: a reader never sees half of one, whatever stops the writer."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fastdraw.errors import FastdrawError


class WriteError(FastdrawError):
    """A file could not be written."""


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Replace the file at `path` by `data`, whole or in parts; on any failure the old file stays as it was.

    Raises:
        WriteError: the disk is full, the folder is missing or may not be written.
    """
    # A fixed name: what a killed process left behind is overwritten by the next write, never collected.
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            file.writelines((data,) if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        # The new name itself survives a power cut only once the folder is on the disk too.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}; what was there before is unharmed") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
