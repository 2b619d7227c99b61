"""fastdraw reproduce table1: the whole of it at a tiny size, which goes on where it was stopped."""

import struct
from pathlib import Path

import pytest
import torch

from fastdraw.cli import main
from fastdraw.cli.arguments import UsageError
from fastdraw.cli.reproduce import table1
from fastdraw.data.mnist import load_mnist
from fastdraw.evaluation.table1 import PAPER, Results, render_table1
from fastdraw.training import Run, resolve
from fastdraw.training.checkpoint import read_checkpoint
from tests.cli.conftest import pictures

TRAIN, TEST, BATCH = 100, 40, 32
STEPS = 10  # 3 epochs of 100 images in batches of 32
FIGURES = {"fig3.png", "fig4.png", "fig5.png", "beta.png", "redrawn.png"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of the packaged digits in a folder of their own."""
    raw = tmp_path_factory.mktemp("digits") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, name, count in (("train", "train", TRAIN), ("test", "t10k", TEST)):
        for kind, values in zip(("images-idx3", "labels-idx1"), load_mnist(None, split), strict=True):
            head = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, count, *values.shape[1:])
            (raw / f"{name}-{kind}-ubyte").write_bytes(head + values[:count].tobytes())
    return raw.parents[1]


def command(digits: Path, out: Path, *more: str) -> list[str]:
    small = ["--model.hidden", "8", "--batch-size", str(BATCH), "--device", "cpu", "--threads", "1"]
    return ["reproduce", "table1", "--epochs", "3", "--root", str(digits), "--out", str(out), *small, *more]


@pytest.fixture(scope="module")
def table(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished table."""
    out = tmp_path_factory.mktemp("tables") / "table"
    assert main(command(digits, out)) == 0
    return out


def test_table1_trains_measures_and_draws(table: Path) -> None:
    results = Results.read(table / "results.json")
    assert [run.row for run in results.runs] == list(PAPER)
    assert {(run.seed, run.epochs, run.steps) for run in results.runs} == {(0, 3, STEPS)}
    assert {(run.test.images, run.train.images) for run in results.runs} == {(TEST, TRAIN)}
    assert (table / "table1.md").read_text() == render_table1(results)
    assert str(table.parent) not in (table / "results.json").read_text()
    assert pictures(table) == FIGURES
    for row in PAPER:
        run = Run.open(table / row.folder(0))
        settings = run.settings()
        assert (settings.model.latent, settings.beta, settings.model.hidden) == (row.latent, row.beta, (8,))
        tested = [metric["step"] for metric in run.metrics() if metric["split"] == "test"]
        assert tested == [4, 8, STEPS]


def test_table1_goes_on_where_it_was_stopped(digits: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Results.read(table / "results.json")
    first, stopped = (table / name / "checkpoint.safetensors" for name in ("n1-beta1", "n64-beta10"))
    kept, learned = first.read_bytes(), read_checkpoint(stopped)
    stopped.unlink()
    (table / "results.json").unlink()

    assert main(command(digits, table)) == 0  # trains the last alone, from its start
    assert first.read_bytes() == kept
    assert all(torch.equal(tensor, learned[name]) for name, tensor in read_checkpoint(stopped).items())
    after = Results.read(table / "results.json")
    assert [run.test for run in after.runs] == [run.test for run in before.runs]
    said = capsys.readouterr().out
    assert f"n2-beta1 has taken all its {STEPS} steps" in said
    assert f"n64-beta10 has taken all its {STEPS} steps" not in said
    assert f"BCE {after.runs[0].test.bce.value:.2f} (paper 156.82), KL" in said


def test_of_all_mnist_settings_are_those_of_the_preset() -> None:
    preset = resolve(table1.PRESET)
    overrides = table1._of_epochs(preset, 300, 60_000, 10_000)
    assert resolve(table1.PRESET, overrides) == preset


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (["--seed", "1"], 2, "--seed cannot be given: a table takes several seeds: give --seeds"),
        (["--beta", "1"], 2, "--beta cannot be given: the table has several weights of the KL"),
        (["--model.latent", "2"], 2, "--model.latent cannot be given: the table has several sizes of z"),
        (["--steps", "2"], 2, "--steps cannot be given: a table counts in epochs: give --epochs"),
        (["--data.source", "binarised"], 1, "the table is of cross-entropies on all digits: leave data"),
        (["--data.leave-out", "3"], 1, "the table is of cross-entropies on all digits: leave data"),
        (["--model.likelihood", "gaussian"], 1, "the table is of cross-entropies on all digits: leave data"),
        (["--root", "nowhere"], 1, "nowhere/MNIST/raw/train-images-idx3-ubyte is missing"),
    ],
    ids=["seed", "beta", "latent", "steps", "source", "leave-out", "likelihood", "root"],
)
def test_what_cannot_be_reproduced_is_said_in_a_line(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], status: int, words: str
) -> None:
    assert main(command(digits, tmp_path / "out", *more)) == status
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_runs_of_other_settings_are_left_alone(digits: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (table / "results.json").read_bytes()
    assert main(command(digits, table, "--epochs", "4")) == 1
    assert "n1-beta1 holds a run of other settings: give another --out" in capsys.readouterr().err
    assert (table / "results.json").read_bytes() == before


def test_a_run_that_lost_its_metrics(digits: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = table / "n1-beta1" / "metrics.jsonl"
    kept = metrics.read_bytes()
    metrics.unlink()
    try:
        assert main(command(digits, table)) == 1
    finally:
        metrics.write_bytes(kept)
    assert "is trained, but its metrics.jsonl is gone or empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--epochs 0", "argument --epochs: must be at least 1, got 0"),
        ("--seeds 0 -1", r"argument --seeds: must lie in 0..2\^63-1, got -1"),
        ("--seeds 0 1 0", "--seeds must differ, got 0 1 0"),
    ],
)
def test_arguments_that_make_no_table(tmp_path: Path, arguments: str, message: str) -> None:
    out = tmp_path / "table"
    with pytest.raises(UsageError, match=message):
        table1.main(["--out", str(out), *arguments.split()])
    assert not out.exists()
