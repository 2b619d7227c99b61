"""fastdraw reproduce: a table as a whole, at a tiny size, that goes on where it was stopped."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from fastdraw.cli import main
from fastdraw.cli.arguments import UsageError
from fastdraw.cli.reproduce import table2
from fastdraw.evaluation import save_classifier
from fastdraw.evaluation.table2 import Results, render_table2
from fastdraw.models.classifier import ClassifierConfig, DigitClassifier
from fastdraw.training import Run, resolve, train
from fastdraw.training.checkpoint import read_checkpoint
from tests.training.tiny import tiny, tiny_arguments

MODELS = ("rnnDRAW", "seqDRAW", "seqDRAW-cur")


@pytest.fixture
def judge(tmp_path: Path) -> Path:
    save_classifier(DigitClassifier(ClassifierConfig(multiplier=0.02)).eval(), {}, tmp_path / "judge")
    return tmp_path / "judge"


def command(judge: Path, out: Path, *more: str) -> list[str]:
    settings = tiny_arguments(steps=5, **{"data.lengths": (1, 1, 1, 0)})
    common = ["--classifier", str(judge), "--seeds", "0", "3", "--images", "12", "--out", str(out)]
    return ["reproduce", "table2", "--data", "mnist", "--size", "small", *common, *settings, *more]


def test_table2_trains_judges_and_goes_on(judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(command(judge, out)) == 0
    results = Results.read(out / "results.json")
    assert [(run.model, run.seed) for run in results.runs] == [(model, seed) for seed in (0, 3) for model in MODELS]
    assert {counts.images for run in results.runs for counts in (*run.prior.values(), *run.reconstructed.values())} == {
        12
    }
    assert results.classifier.keys() == {1, 2, 3}
    assert (out / "table2.md").read_text() == render_table2(results)
    assert str(tmp_path) not in (out / "results.json").read_text()
    with Image.open(out / "curves.png") as picture:
        assert len(set(picture.convert("L").tobytes())) > 1

    settings = [Run.open(out / f"{model}-3").settings() for model in MODELS]
    assert [chosen.model.labels for chosen in settings] == ["last", "digits", "digits"]
    assert [chosen.curriculum.kind for chosen in settings] == ["none", "none", "cumulative"]
    assert {chosen.seed for chosen in settings} == {3}

    checkpoint = out / "seqDRAW-3" / "checkpoint.safetensors"
    before = read_checkpoint(checkpoint)
    checkpoint.unlink()
    assert main(command(judge, out)) == 0  # trains that one alone, from its start
    after = read_checkpoint(checkpoint)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    again = Results.read(out / "results.json")
    assert [(run.prior, run.reconstructed) for run in again.runs] == [
        (run.prior, run.reconstructed) for run in results.runs
    ]
    assert "seqDRAW-cur-0 has taken all its 5 steps" in capsys.readouterr().out


def test_small_is_laid_over_the_paper_s_sizes() -> None:
    paper, small = (resolve(f"seqdraw-cur-mnist{more}") for more in ("", "+small-mnist"))
    assert (paper.model.hidden, small.model.hidden) == (400, 256)
    assert paper.curriculum.kind == small.curriculum.kind == "cumulative"


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (["--seed", "1"], 2, "give --seeds"),
        (["--classifier", "nowhere"], 1, "nowhere/config.json is missing"),
        (["--data.lengths", "1", "1", "0", "0"], 1, "length 3"),
        ([], 1, "holds a run of other settings"),
    ],
    ids=["one-seed", "no-classifier", "length-not-trained", "other-settings"],
)
def test_what_cannot_be_reproduced_is_said_in_a_line(
    judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], status: int, words: str
) -> None:
    if "other settings" in words:
        train(tiny(steps=2), tmp_path / "out" / "rnnDRAW-0")
    assert main(command(judge, tmp_path / "out", *more)) == status
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data cifar", "argument --data: invalid choice: 'cifar'"),
        ("--size huge", "argument --size: invalid choice: 'huge'"),
        ("--seeds 0 -1", r"argument --seeds: must lie in 0..2\^63-1, got -1"),
        ("--seeds 0 1 0", "--seeds must differ, got 0 1 0"),
    ],
)
def test_arguments_that_make_no_table(tmp_path: Path, arguments: str, message: str) -> None:
    out = tmp_path / "table"
    with pytest.raises(UsageError, match=message):
        table2.main(["--classifier", str(tmp_path), "--out", str(out), *arguments.split()])
    assert not out.exists()
