"""Every mistake ends as one line on stderr, with its status, and changes no file."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from fastdraw.cli import main
from tests.training.test_checkpoint import TENSORS
from tests.training.tiny import files, tiny_arguments


def fails(arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command that must fail with this status and one line in which `message` is found."""
    capsys.readouterr()
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert re.fullmatch(r"fastdraw: error: [^\n]+\n", error), error
    assert re.search(message, error), error


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("", 2, "required: COMMAND"),
        ("tran", 2, "invalid choice: 'tran'"),
        ("train", 2, "required: --out"),
        ("train --out OUT --hidden 3", 2, "unrecognized arguments: --hidden 3"),
        ("train --out OUT --step 3", 2, "unrecognized arguments: --step 3"),
        ("train --out OUT --data.lengths 1 0", 2, "--data.lengths: expected 4 arguments"),
        ("train --out OUT --preset", 2, "--preset: expected one argument"),
        ("train --out OUT --preset Demo", 1, "no preset 'Demo': expected one of aligndraw, conv-vae-celeba, "),
        ("train --out OUT --model.hidden 0", 1, "setting model.hidden: .*, got '0'"),
        ("train --out OUT --model.hidden x", 1, "setting model.hidden: .*, got 'x'"),
        ("train --out OUT --download", 1, "--root DIR"),
        ("train --out OUT --device cuda:99", 1, "no device cuda:99: this machine shows"),
        ("train --out RUN", 1, "already holds a run: go on with fastdraw resume"),
        ("resume OUT", 1, "OUT is no folder"),
        ("resume EMPTY", 1, "EMPTY holds no settings.json"),
        ("resume RUN --steps 3", 1, "is at step 4 already: --steps must be at least that, got 3"),
        ("resume RUN --steps 0", 2, "must be at least 1, got 0"),
        ("sample RUN", 1, "run is told digits: give --digits"),
        ("sample RUN --digits 1a7", 1, "character 2, 'a', is no digit"),
        ("sample RUN --digits 1²7", 1, "character 2, '²', is no digit"),
        ("sample RUN --digits 12345", 1, "1 to 4 digits, got 5"),
        ("sample RUN --digits=", 1, "1 to 4 digits, got 0"),
        ("sample RUN --digits 1 --count 0", 2, "must be at least 1, got 0"),
        ("sample RUN --digits 1 --device tpu", 1, "no device 'tpu'"),
        ("sample EMPTY --digits 1", 1, "EMPTY holds no settings.json"),
        ("sample RUN --digits 1 --out RUN/settings.json", 1, "settings.json"),
        ("reconstruct OUT", 1, "OUT is no folder"),
        ("reconstruct RUN --root OUT", 1, "t10k-images-idx3-ubyte is missing"),
        ("figures OUT", 1, "OUT is no folder"),
        ("figures RUN --root OUT", 1, "t10k-images-idx3-ubyte is missing"),
        ("figures RUN --digits 7 6a", 1, "character 2, 'a', is no digit"),
        ("figures RUN --digits", 2, "--digits: expected at least one argument"),
        ("figures RUN --runs 1", 1, "--runs must be at least 2, which an interval takes, got 1"),
        ("figures RUN --rows 0", 2, "must be at least 1, got 0"),
        ("evaluate OUT", 1, "OUT is no folder"),
        ("evaluate RUN --root OUT", 1, "images-idx3-ubyte is missing"),
        ("demo --out OUT --model.labels none", 1, "the demo draws rows of digits that it is told"),
        ("demo --out RUN", 1, "holds a run of other settings"),
        ("demo --out OUT --preset demo", 2, "unrecognized arguments: --preset"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else str(value),
)
def test_mistake_is_one_line_and_harms_nothing(
    run: Path, tmp_path: Path, arguments: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "EMPTY"
    empty.mkdir()
    before = files(run)
    places = {"RUN": str(run), "OUT": str(tmp_path / "OUT"), "EMPTY": str(empty)}
    words = [re.sub("RUN|OUT|EMPTY", lambda name: places[name[0]], word) for word in arguments.split()]
    fails(words, status, message, capsys)
    assert files(run) == before
    assert [path.name for path in tmp_path.rglob("*")] == ["EMPTY"]


@pytest.mark.parametrize(
    ("backend", "message"),
    [("cuda", "the backend 'cuda' was asked for and cannot run"), ("fast", "FASTDRAW_BACKEND: backend must be one of")],
)
def test_backend_that_cannot_run_is_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], backend: str, message: str
) -> None:
    monkeypatch.setattr("fastdraw.dispatch._forced", [backend])
    fails(["sample", str(run), "--digits", "1"], 1, message, capsys)


def test_digits_beyond_the_positions_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    one_digit = tiny_arguments(**{"steps": 1, "model.positions": 1, "data.lengths": (1, 0, 0, 0)})
    assert main(["train", *one_digit, "--out", str(folder)]) == 0
    fails(["sample", str(folder), "--digits", "12"], 1, "12 are 2 digits, and the model knows 1 position", capsys)


def test_missing_data_leaves_no_run_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(["train", "--root", str(tmp_path), "--out", str(tmp_path / "run")], 1, "is missing.*--download", capsys)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_line(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    checkpoint = (folder / "checkpoint.safetensors").read_bytes()
    # A shell's limit on the size of a file fails a write as a full disk does.
    command = [sys.executable, "-m", "fastdraw.cli", "resume", str(folder), "--steps", "9"]
    result = subprocess.run(["sh", "-c", 'ulimit -f 2; exec "$@"', "sh", *command], capture_output=True, text=True)
    assert result.returncode == 1
    assert re.fullmatch(r"fastdraw: error: cannot write [^\n]*File too large[^\n]*\n", result.stderr)
    assert (folder / "checkpoint.safetensors").read_bytes() == checkpoint


@pytest.mark.parametrize(
    ("command", "damage"),
    [
        (command, damage)
        for command in ("resume", "sample", "reconstruct", "figures", "evaluate")
        for damage in ("truncated", "random", "foreign", "missing", "settings", "other-size")
        # A run that was stopped before its first checkpoint starts again.
        if (command, damage) != ("resume", "missing")
    ],
)
def test_broken_run_is_refused_by_every_command(
    run: Path, tmp_path: Path, command: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    settings, checkpoint = folder / "settings.json", folder / "checkpoint.safetensors"
    settings.write_bytes((run / "settings.json").read_bytes())
    checkpoint.write_bytes((run / "checkpoint.safetensors").read_bytes())
    match damage:
        case "truncated":
            checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
        case "random":
            checkpoint.write_bytes(os.urandom(5000))
        case "foreign":
            save_file(TENSORS, checkpoint, {"format": "pt"})
        case "missing":
            checkpoint.unlink()
        case "settings":
            settings.write_text(settings.read_text()[:-30])
        case "other-size":
            settings.write_text(settings.read_text().replace('"hidden": 16', '"hidden": 17'))
    before = files(folder)
    expected = {
        "truncated": "checkpoint.safetensors is damaged",
        "random": "checkpoint.safetensors is damaged",
        "foreign": "is no fastdraw checkpoint",
        "missing": "has no checkpoint yet",
        "settings": "settings.json: ",
        "other-size": r"is \(.*expected \(.*other settings",
    }
    fails([command, str(folder), *(["--digits", "1"] if command == "sample" else [])], 1, expected[damage], capsys)
    assert files(folder) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    fails(["train", *tiny_arguments(), "--out", str(tmp_path / "run")], 1, "Permission denied", capsys)


def test_file_in_the_place_of_a_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    fails(["train", *tiny_arguments(), "--out", str(tmp_path / "file")], 1, "cannot make the folder", capsys)
    assert files(tmp_path) == {"file": b"mine"}
