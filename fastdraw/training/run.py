"""The folder of a run: its settings, its one checkpoint and its metrics."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastdraw.errors import FastdrawError
from fastdraw.files import write_atomically
from fastdraw.training.settings import Settings, parse_settings

MODEL = "model.safetensors"  # of `save_model`
NUMBER = (int, float)
ROW: dict[str, Any] = {"step": int, "split": str, "loss": NUMBER, "nll": NUMBER, "kl": NUMBER, "seconds": NUMBER}


class Run:
    """RUN/settings.json, checkpoint.safetensors, metrics.jsonl and tensorboard/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings_path = folder / "settings.json"
        self.checkpoint_path = folder / "checkpoint.safetensors"
        self.metrics_path = folder / "metrics.jsonl"
        self.tensorboard_path = folder / "tensorboard"

    @classmethod
    def create(cls, folder: Path) -> "Run":
        """A new run; nothing is written before its settings are saved.

        Raises:
            FastdrawError: the folder already holds a run, or a model that would no longer be found in it.
        """
        run = cls(folder)
        if (folder / MODEL).exists():
            raise FastdrawError(f"{folder} holds a saved model: give another --out")
        if any(path.exists() for path in (run.settings_path, run.checkpoint_path, run.metrics_path)):
            raise FastdrawError(
                f"{folder} already holds a run: go on with fastdraw resume {folder}, or give another --out"
            )
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Find a run that exists.

        Raises:
            FastdrawError: there is no such folder, or it holds no run.
        """
        run = cls(folder)
        if not run.settings_path.is_file():
            what = "holds no settings.json" if folder.is_dir() else "is no folder"
            raise FastdrawError(f"{folder} {what}: expected the --out folder of fastdraw train")
        return run

    def settings(self) -> Settings:
        """Read the settings.

        Raises:
            FastdrawError: settings.json cannot be read or is not valid.
        """
        try:
            return parse_settings(self.settings_path.read_text("utf-8"))
        except (FastdrawError, UnicodeDecodeError, OSError) as error:
            raise FastdrawError(f"{self.settings_path}: {error}") from None

    def save_settings(self, settings: Settings) -> None:
        """Write the settings, atomically.

        Raises:
            FastdrawError: they cannot be written.
        """
        write_atomically(self.settings_path, (settings.model_dump_json(indent=2) + "\n").encode())

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, but for a last one that is not whole, as a killed run may leave it.

        Raises:
            FastdrawError: any other line is no row.
        """
        if not self.metrics_path.exists():
            return []
        lines = self.metrics_path.read_text("utf-8", errors="replace").splitlines()
        rows = []
        for number, line in enumerate(lines, 1):
            row = _parse_row(line)
            if row is not None:
                rows.append(row)
            elif number < len(lines):
                raise FastdrawError(f"{self.metrics_path}: line {number} is no row of metrics: mend it or take it out")
        return rows

    def metrics_of_training(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl of a run that is trained, at least one of them of a test.

        Raises:
            FastdrawError: there is none, or as `metrics`.
        """
        rows = self.metrics()
        if not any(row["split"] == "test" for row in rows):
            raise FastdrawError(
                f"{self.folder} is trained, but its metrics.jsonl is gone or empty, or without a test: "
                f"train it again in another folder"
            )
        return rows

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder where it is missing and keep other processes from training in it.

        Raises:
            FastdrawError: the folder cannot be made, or another process trains in it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise FastdrawError(f"cannot make the folder {self.folder}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FastdrawError(f"another process trains in {self.folder}: wait for it, or stop it") from None
            except OSError:
                pass  # some network disks know no locks
            yield
        finally:
            os.close(descriptor)


def _parse_row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and all(isinstance(row.get(key), kind) for key, kind in ROW.items()) else None


class MetricsFile:
    """metrics.jsonl, open for more rows after those up to `step`; later ones, of steps to be taken again, are dropped.

    A row: step, split ("train" or "test"), loss, nll, kl (nats per image), refinement (of a multi-stage VAE),
    grad_norm, lr (both null for test), seconds.
    """

    def __init__(self, run: Run, step: int) -> None:
        kept = [row for row in run.metrics() if row["step"] <= step]
        self.seconds: float = kept[-1]["seconds"] if kept else 0.0
        write_atomically(run.metrics_path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = run.metrics_path.open("a", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; it is in the file when this returns."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Wait until the rows are on the disk, so that no checkpoint is newer than its rows."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
