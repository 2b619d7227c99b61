"""The commands on a tiny run of every kind of model and data."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdraw.cli import main
from fastdraw.cli.drawing import wish_for
from fastdraw.data.captions import encode
from fastdraw.evaluation import save_classifier
from fastdraw.models.classifier import ClassifierConfig, DigitClassifier
from fastdraw.training import Run
from tests.cli.conftest import pictures
from tests.cli.test_errors import fails
from tests.data.svhn import house_numbers, write_svhn
from tests.training.tiny import files, tiny_arguments

CAPTION = "the digit 7 is at the top left of the image ."
WHOLE = {"model.n_read": 0, "model.n_write": 0}
CAPTIONED = {"data.source": "captions", "model.symbols": 22, "model.height": 60, "model.width": 60}
KINDS: dict[str, dict[str, Any]] = {
    "rnn": {"model.labels": "last"},
    "align": {**CAPTIONED, "model.labels": "words", "model.steps_per_image": 3},
    "seq-captions": {**CAPTIONED, "model.positions": 12, "model.steps_per_image": 3},
    "plain": {
        **WHOLE,
        "data.source": "binarised",
        "model.labels": "none",
        "model.steps_per_image": 3,
        "model.height": 28,
        "model.width": 28,
    },
    "plain-mnist": {"model.labels": "none"},
    "svhn": {"data.source": "svhn", "data.channels": 3, "model.channels": 3},
    "plain-svhn": {**WHOLE, "data.source": "svhn", "model.labels": "none", "model.steps_per_image": 2},
}
TOLD = {
    kind: ["--caption", CAPTION] if "captions" in values.values() else ["--digits", "15"]
    for kind, values in KINDS.items()
    if values.get("model.labels") != "none"
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of every kind."""
    folder = tmp_path_factory.mktemp("kinds")
    for seed, split in enumerate(("train", "test")):
        write_svhn(folder / "data", split, house_numbers(6, seed, (1, 2)))
    made = {}
    for kind, values in KINDS.items():
        made[kind] = folder / kind
        arguments = tiny_arguments(**{"steps": 1, "batch_size": 2, **values})
        root = ["--root", str(folder / "data")] if values.get("data.source") == "svhn" else []
        assert main(["train", *arguments, *root, "--out", str(made[kind])]) == 0
    return made


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    save_classifier(DigitClassifier(ClassifierConfig(multiplier=0.02)).eval(), {}, tmp_path / "judge")
    return tmp_path / "judge"


@pytest.mark.parametrize("kind", KINDS)
def test_sample_draws_what_the_model_is_told(runs: dict[str, Path], kind: str, tmp_path: Path) -> None:
    command = ["sample", str(runs[kind]), *TOLD.get(kind, []), "--count", "2", "--out", str(tmp_path)]
    assert main(command) == 0
    attends = kind in ("align", "seq-captions", "svhn")
    expected = {"samples.png", "strip.png", "generation.gif", "curves.png"} | ({"attention.png"} if attends else set())
    assert pictures(tmp_path) == expected


@pytest.mark.parametrize(
    ("kind", "folder"),
    [("rnn", "15"), ("align", "the-digit-7-is-at-the-top-left-of-the-image"), ("plain", "")],
)
def test_sample_names_its_folder_after_what_was_asked(runs: dict[str, Path], kind: str, folder: str) -> None:
    assert main(["sample", str(runs[kind]), *TOLD.get(kind, []), "--count", "1"]) == 0
    assert "samples.png" in pictures(runs[kind] / "samples" / folder)


def test_a_wish_is_labels_and_their_names(runs: dict[str, Path]) -> None:
    wishes = {
        kind: wish_for(Run.open(runs[kind]).settings(), runs[kind], digits, caption)
        for kind, digits, caption in (
            ("rnn", "157", None),
            ("align", None, f" {CAPTION} "),
            ("plain-mnist", None, None),
        )
    }
    assert (wishes["rnn"].labels.tolist(), wishes["rnn"].names, wishes["rnn"].text) == ([1, 5, 7], list("157"), "157")
    assert torch.equal(wishes["align"].labels, encode(CAPTION))
    assert (wishes["align"].names, wishes["align"].text) == (CAPTION.split(), CAPTION)
    # As many steps as the longest image that was trained on takes.
    assert (wishes["plain-mnist"].labels.shape, wishes["plain-mnist"].names, wishes["plain-mnist"].text) == (
        (2,),
        [],
        "",
    )


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("rnn", [], "rnn is told digits: give --digits"),
        ("rnn", ["--caption", CAPTION], "rnn is told digits: .* no --caption"),
        ("rnn", ["--digits", "1", "--caption", CAPTION], "rnn is told digits: .* no --caption"),
        ("align", [], "align is told a caption: give --caption"),
        ("align", ["--digits", "7"], "align is told a caption: .* no --digits"),
        ("align", ["--caption", ""], "a caption needs words"),
        ("align", ["--caption", "the cat"], "no word 'cat'"),
        ("seq-captions", ["--caption", f"{CAPTION} ."], "are 13 words, and the model knows 12 position"),
        ("plain", ["--digits", "7"], "plain is told nothing .*: give neither"),
        ("plain", ["--caption", CAPTION], "plain is told nothing .*: give neither"),
    ],
)
def test_sample_refuses_what_the_model_is_not_told(
    runs: dict[str, Path], kind: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(runs[kind])
    fails(["sample", str(runs[kind]), *arguments], 1, message, capsys)
    assert files(runs[kind]) == before


@pytest.mark.parametrize("kind", ["align", "seq-captions", "plain", "plain-mnist", "plain-svhn"])
def test_figures_are_of_models_that_are_told_numbers(
    runs: dict[str, Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(runs[kind])
    fails(["figures", str(runs[kind])], 1, f"{kind} is told no numbers: see .* fastdraw sample", capsys)
    assert files(runs[kind]) == before


@pytest.mark.parametrize("kind", ["rnn", "svhn"])
def test_figures_of_every_model_that_is_told_numbers(runs: dict[str, Path], kind: str, tmp_path: Path) -> None:
    command = ["figures", str(runs[kind]), "--digits", "15", "--rows", "1", "--runs", "3", "--out", str(tmp_path)]
    assert main(command) == 0
    attention = {"attention.png", "attention-15.png"} if kind == "svhn" else set()
    assert pictures(tmp_path) == {"strip-15.png", "generation-15.gif", "reconstruction.gif"} | attention
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert (claims["drawings"]["15"]["attention"] is None) == (kind == "rnn")


@pytest.mark.parametrize("kind", KINDS)
def test_reconstruct_redraws_every_kind(runs: dict[str, Path], kind: str, tmp_path: Path) -> None:
    assert main(["reconstruct", str(runs[kind]), "--count", "5", "--out", str(tmp_path)]) == 0
    assert pictures(tmp_path) == {"reconstructions.png"}


@pytest.mark.usefixtures("_quick_reader")
@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_measures_every_kind(runs: dict[str, Path], kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(runs[kind]), "--images", "5", "--importance", "3"]) == 0
    report = json.loads((runs[kind] / "evaluation.json").read_text())
    assert json.loads(capsys.readouterr().out) == report
    settings = Run.open(runs[kind]).settings()
    bounds = report["test"]["by_length"]
    assert list(bounds) == {"captions": ["12"], "binarised": ["1"]}.get(settings.data.source, ["1", "2"])
    for length, bound in bounds.items():
        assert len(bound["kl_by_step"]) == (settings.model.steps_per_image or 2 * int(length))
        assert sum(bound["kl_by_step"]) == pytest.approx(bound["kl"], rel=1e-4)
        assert bound["importance_weighted"]["samples"] == 3
        assert bound["importance_weighted"]["bound"] < bound["bound"] + 5 * bound["importance_weighted"]["error"]
    assert ("accuracy" in report) == ("reader" in report) == (kind == "rnn")
    assert "classifier" not in report
    assert "kl_by_step.png" in pictures(runs[kind])


@pytest.mark.usefixtures("_quick_reader")
@pytest.mark.parametrize("kind", ["rnn", "svhn"])
def test_evaluate_has_a_classifier_read_digits(runs: dict[str, Path], kind: str, tmp_path: Path) -> None:
    channels = Run.open(runs[kind]).settings().data.channels
    classifier = DigitClassifier(ClassifierConfig(multiplier=0.02, channels=channels)).eval()
    save_classifier(classifier, {}, tmp_path / "judge")
    assert main(["evaluate", str(runs[kind]), "--images", "8", "--classifier", str(tmp_path / "judge")]) == 0
    counts = json.loads((runs[kind] / "evaluation.json").read_text())["classifier"]
    images = 6 if kind == "svhn" else 8  # house numbers of a length, all that there are
    expected = {"real": images, "prior": 8, "reconstructed": images}
    found = {length: {what: count["images"] for what, count in of.items()} for length, of in counts.items()}
    assert found == {"1": expected, "2": expected}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("align", "align is told no digits, so no classifier can read"),
        ("plain-mnist", "plain-mnist is told no digits, so no classifier can read"),
        ("svhn", "reads up to 4 digits from images of 1 x 32 x 64, and the model draws up to 2 on 3 x 32 x 64"),
    ],
)
def test_evaluate_refuses_a_classifier_that_does_not_fit(
    runs: dict[str, Path], kind: str, message: str, classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(runs[kind])
    fails(["evaluate", str(runs[kind]), "--classifier", str(classifier)], 1, message, capsys)
    assert files(runs[kind]) == before


def test_evaluate_refuses_a_classifier_of_shorter_numbers(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_classifier(DigitClassifier(ClassifierConfig(multiplier=0.02, longest=1)).eval(), {}, tmp_path)
    fails(["evaluate", str(runs["rnn"]), "--classifier", str(tmp_path)], 1, "reads up to 1 digits", capsys)


def test_evaluate_without_the_classifier_that_was_named_is_one_line(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(runs["rnn"]), "--classifier", str(tmp_path / "none")]
    fails(command, 1, "config.json is missing: .* fastdraw train-classifier", capsys)


def test_house_numbers_without_a_root_leave_no_run_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = tiny_arguments(**{"data.source": "svhn"})
    fails(["train", *arguments, "--out", str(tmp_path / "run")], 1, "SVHN does not come with fastdraw.*--root", capsys)
    assert list(tmp_path.iterdir()) == []
