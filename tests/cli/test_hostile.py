"""Numbers far out of range, texts that are no text, spoiled metrics, and two processes in one folder: one line each."""

import json
import shutil
from pathlib import Path

import pytest

from fastdraw.cli import main
from fastdraw.errors import FastdrawError
from fastdraw.training import Run
from tests.cli.test_errors import fails
from tests.training.tiny import files, tiny_arguments


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("--model.n-read 1000000", 1, "not enough memory"),
        ("--model.n-read 1000000 --model.hidden 1000000", 1, "not enough memory"),
        ("--model.hidden 100000000000000000000000", 1, "setting model.hidden: .*1000000"),
        ("--batch-size 4611686018427387904", 1, "setting batch_size: .*less than 2147483648"),
        ("--threads 100000", 1, "setting threads: .*1024"),
        ("--device cuda:99999999999", 1, "setting device: "),
        ("--data.lengths 1e308 1e308 0 0", 1, "lengths must be weights .* finite sum"),
        ("--root ~nobody-of-that-name/mnist", 1, "a user whom this machine does not know"),
        ("--root \udcff", 2, "is no text in the encoding"),
        ("--out=", 2, "--out: must name a folder"),
        ("--root=", 2, "--root: must name a file or a folder, got an empty text"),
        ("--refinement.features=", 2, "--refinement.features: must name a file or a folder, got an empty text"),
    ],
)
def test_setting_out_of_all_bounds(
    tmp_path: Path, arguments: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(["train", *tiny_arguments(), "--out", str(tmp_path / "run"), *arguments.split()], status, message, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("sample RUN --digits 1 --seed 99999999999999999999", 2, r"--seed: must lie in 0\.\.2\^63-1"),
        ("reconstruct RUN --seed -1", 2, "--seed: must lie in 0"),
        ("sample RUN --digits 1 --count 2000000000", 1, "not enough memory"),
        ("sample RUN --digits 1 --count 99999999999999999999", 2, r"--count: must be less than 2\^31"),
        ("sample RUN --digits 1 --device cuda:99999999999999999999", 1, "no device 'cuda:9999"),
        ("sample RUN --digits 1 --out=", 2, "--out: must name a folder"),
    ],
)
def test_count_and_seed_out_of_all_bounds(
    run: Path, arguments: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(run)
    fails(arguments.replace("RUN", str(run)).split(), status, message, capsys)
    assert files(run) == before


@pytest.mark.parametrize(
    "line",
    [
        "",
        "5",
        "[]",
        "null",
        "{}",
        '{"step": 1}',
        '{"step": "1", "seconds": 1}',
        "[" * 100_000,
        '{"step": ' + 5000 * "9",
    ],
    ids=lambda line: line[:20],
)
def test_spoiled_metrics_are_refused_and_kept(
    run: Path, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    metrics = folder / "metrics.jsonl"
    spoiled = f"{line}\n{metrics.read_text()}"
    metrics.write_text(spoiled)
    fails(["resume", str(folder), "--steps", "5"], 1, "metrics.jsonl: line 1 is no row of metrics", capsys)
    assert metrics.read_text() == spoiled


def test_half_a_row_at_the_end_is_dropped(run: Path, tmp_path: Path) -> None:
    rows = (run / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(rows + '{"step": 5, "split"')
    assert Run(tmp_path).metrics() == [json.loads(row) for row in rows.splitlines()]


def test_demo_that_lost_its_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["demo", *tiny_arguments(steps=1), "--out", str(tmp_path / "run")]
    assert main(["train", "--preset", "demo", *command[1:]]) == 0
    (tmp_path / "run" / "metrics.jsonl").unlink()
    fails(command, 1, "metrics.jsonl is gone or empty", capsys)


def test_metrics_of_training_have_a_test(run: Path, tmp_path: Path) -> None:
    rows = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(row for row in rows if '"train"' in row))
    with pytest.raises(FastdrawError, match=f"{tmp_path} is trained, but its metrics.jsonl is .* without a test"):
        Run(tmp_path).metrics_of_training()


def test_two_processes_do_not_train_in_one_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, new = tmp_path / "run", tmp_path / "new"
    shutil.copytree(run, folder)
    before = files(folder)
    # A lock belongs to a descriptor, so that this process can stand for two.
    with Run(folder).locked(), Run(new).locked():
        fails(["resume", str(folder), "--steps", "5"], 1, "another process trains in", capsys)
        fails(["train", *tiny_arguments(), "--out", str(new)], 1, "another process trains in", capsys)
    assert files(folder) == before
    assert files(new) == {}
