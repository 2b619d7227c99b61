"""What the commands write, on a tiny run."""

import io
import json
import math
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from fastdraw import info
from fastdraw.cli import COMMANDS, main
from fastdraw.evaluation import render_claims
from fastdraw.training import Run
from fastdraw.training.settings import fields, resolve
from tests.cli.conftest import pictures
from tests.cli.test_errors import fails
from tests.training.tiny import files, tiny, tiny_arguments

PICTURES = {"samples.png", "strip.png", "generation.gif", "attention.png", "curves.png"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_usage_and_ends_well(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: fastdraw {command}")


def test_train_help_shows_every_default_of_the_preset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--preset", "demo", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--model.hidden INT units of each LSTM (default: 256)" in text
    assert "digits that are neither trained on nor tested on (default: none)" in text
    settings = text.split("defaults of the preset demo")[1]
    assert settings.count("(default: ") == len(fields(resolve("demo")))


def test_help_needs_no_training_code() -> None:
    code = "import sys; from fastdraw.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    check = "assert not {'pydantic', 'matplotlib', 'tensorboard', 'fastdraw.models'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code + check], check=True, capture_output=True)


def test_train_saves_the_resolved_settings(run: Path) -> None:
    assert Run.open(run).settings() == tiny(steps=4)
    assert {"checkpoint.safetensors", "metrics.jsonl", "settings.json"} < set(files(run))


def test_sample_writes_its_pictures(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run), "--digits", "15", "--count", "2", "--out", str(tmp_path / "a")]) == 0
    assert pictures(tmp_path / "a") == PICTURES
    assert main(["sample", str(run), "--digits", "15", "--count", "2", "--out", str(tmp_path / "b")]) == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert (
        main(["sample", str(run), "--digits", "15", "--count", "2", "--seed", "1", "--out", str(tmp_path / "c")]) == 0
    )
    assert files(tmp_path / "a")["strip.png"] != files(tmp_path / "c")["strip.png"]
    assert "note:" not in capsys.readouterr().out


def test_sample_beyond_the_trained_length_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run), "--digits", "157", "--count", "1"]) == 0
    assert "was trained on images of up to 2 digits" in capsys.readouterr().out
    assert pictures(run / "samples" / "157") == PICTURES


def test_sample_of_a_run_without_rows_has_no_curves(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("metrics.jsonl", "samples"))
    assert main(["sample", str(folder), "--digits", "1", "--count", "1", "--out", str(tmp_path / "out")]) == 0
    assert pictures(tmp_path / "out") == PICTURES - {"curves.png"}


def test_figures_writes_pictures_and_claims(run: Path, tmp_path: Path) -> None:
    command = ["figures", str(run), "--digits", "7", "68", "--rows", "2", "--runs", "5", "--out"]
    assert main([*command, str(tmp_path / "a")]) == 0
    assert pictures(tmp_path / "a") == {"attention.png", "reconstruction.gif"} | {
        f"{figure}-{digits}.{kind}"
        for figure, kind in (("strip", "png"), ("attention", "png"), ("generation", "gif"))
        for digits in ("7", "68")
    }
    claims = json.loads((tmp_path / "a" / "claims.json").read_text())
    assert (list(claims["drawings"]), list(claims["data"])) == (["68"], ["2"])
    assert (claims["drawings"]["68"]["runs"], claims["drawings"]["68"]["steps"]) == (5, 4)
    assert claims["settings"] == json.loads((run / "settings.json").read_text())
    assert "| 68 | one by one |" in render_claims({"tiny": claims})
    with Image.open(tmp_path / "a" / "reconstruction.gif") as animation:
        assert animation.n_frames == 4  # of the longest images that were trained on
    assert main([*command, str(tmp_path / "b")]) == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_figures_of_one_digit_have_no_order(run: Path, tmp_path: Path) -> None:
    assert main(["figures", str(run), "--digits", "7", "--rows", "9", "--runs", "2", "--out", str(tmp_path)]) == 0
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert (claims["drawings"], claims["data"]) == ({}, {})


def test_reconstruct_writes_its_picture(run: Path, tmp_path: Path) -> None:
    assert main(["reconstruct", str(run), "--count", "3", "--out", str(tmp_path)]) == 0
    assert pictures(tmp_path) == {"reconstructions.png"}


@pytest.mark.usefixtures("_quick_reader")
def test_evaluate_prints_what_it_writes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--images", "20"]) == 0
    report = json.loads((run / "evaluation.json").read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert pictures(run) == {"kl_by_step.png"}
    assert report["settings"] == json.loads((run / "settings.json").read_text())
    bounds = report["test"]["by_length"]
    assert list(bounds) == list(report["accuracy"]) == ["1", "2"]
    for key in ("nll", "kl", "bound"):
        assert report["test"][key] == pytest.approx((bounds["1"][key] + bounds["2"][key]) / 2)
    assert report["test"]["bound"] == pytest.approx(report["test"]["nll"] + report["test"]["kl"])
    for share in (*report["accuracy"].values(), report["reader"]):
        assert 0 <= share["low"] <= share["value"] == share["correct"] / share["total"] <= share["high"] <= 1
    assert [share["total"] for share in report["accuracy"].values()] == [20, 20]


def test_what_was_measured_is_kept_where_nobody_reads_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastdraw.cli.evaluate.measure", lambda *_: {"test": {"by_length": {1: {"kl_by_step": [1.0]}}}})
    path = run / "evaluation.json"
    path.unlink(missing_ok=True)
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["evaluate", str(run)]) == 1
        monkeypatch.undo()
        with suppress(OSError):
            full.close()
    assert json.loads(path.read_text())["test"] == {"by_length": {"1": {"kl_by_step": [1.0]}}}


def test_a_bound_that_is_not_finite_is_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fastdraw.cli.evaluate.measure", lambda *_: {"test": {"bound": math.nan}})
    before = files(run)
    fails(["evaluate", str(run)], 1, "gives a bound that is not finite: train again, with a lower", capsys)
    assert files(run) == before


def test_a_name_that_the_terminal_does_not_know_is_escaped(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["reconstruct", str(run), "--count", "1", "--out", str(tmp_path / "zwölf")]) == 0
    assert terminal.buffer.getvalue().endswith(rb"/zw\xf6lf/reconstructions.png" + b"\n")


@pytest.mark.usefixtures("_quick_reader")
def test_demo_writes_everything_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fastdraw.cli.demo.IMAGES", 20)
    command = ["demo", *tiny_arguments(steps=4), "--out", str(tmp_path)]
    assert main(command) == 0
    assert pictures(tmp_path) == {"samples.png", "strips.png", "generation.gif", "curves.png", "attention.png"}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["accuracy"]["1"]["total"] == 20
    assert metrics["seconds"]["command"] >= metrics["seconds"]["training"] > 0
    checkpoint = files(tmp_path)["checkpoint.safetensors"]
    capsys.readouterr()
    assert main(command) == 0
    assert "has taken all its 4 steps" in capsys.readouterr().out
    assert files(tmp_path)["checkpoint.safetensors"] == checkpoint
    assert main([*command, "--steps", "5"]) == 1
    assert "holds a run of other settings" in capsys.readouterr().err


def test_info_prints_the_report_or_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert capsys.readouterr().out == info.report() + "\n"
    assert main(["info", "--table"]) == 0
    assert capsys.readouterr().out == info.table() + "\n"
