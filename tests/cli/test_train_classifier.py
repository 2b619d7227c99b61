"""fastdraw train-classifier: what it writes, what it holds out, and how it says no."""

import json
import re
from pathlib import Path

import pytest
import torch

from fastdraw.cli import main, train_classifier
from fastdraw.data import LabelledImages, MultiDigits, load_cells
from fastdraw.evaluation import load_classifier
from tests.cli.test_errors import fails

TINY = ["--width", "0.02", "--steps", "2", "--batch-size", "4", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _few_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_classifier, "TEST_IMAGES", 5)


@pytest.fixture
def _digits_for_house_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multi-digit MNIST in place of SVHN: 40 train images, of which every tenth is a white one, and 12 test images."""

    def load_svhn(root: Path, split: str) -> LabelledImages:
        count = {"train": 40, "test": 12}[split]
        image, labels, lengths = MultiDigits(load_cells(None, "test"), [1, 1, 1, 1], count, seed=0).mixed_batch(0)
        image = (255 * image).byte()
        image[9::10] = 255 if split == "train" else image[9::10]
        return LabelledImages(image, labels, lengths)

    monkeypatch.setattr("fastdraw.data.svhn.load_svhn", load_svhn)


def test_mnist_is_learned_from_train_and_measured_on_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "judge"
    assert main(["train-classifier", "--source", "mnist", *TINY, "--seed", "3", "--out", str(out)]) == 0
    assert load_classifier(out).config.multiplier == 0.02
    metrics = json.loads((out / "metrics.json").read_text())
    assert {name: share["given"]["total"] for name, share in metrics["test"].items()} == {
        "1": 5, "2": 5, "3": 5, "4": 5, "all": 20,
    }  # fmt: skip
    assert metrics["test"]["4"]["digits"]["total"] == 20
    assert metrics["training"]["seed"] == 3
    assert re.search(r"test, 2 digits, 5 images: predicted [\d.]+%, given [\d.]+%, digits", capsys.readouterr().out)


@pytest.mark.usefixtures("_digits_for_house_numbers")
def test_svhn_holds_out_every_nth_train_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("fastdraw.evaluation.classifier.augment", lambda images, _: seen.append(images) or images)
    out = tmp_path / "judge"
    command = ["train-classifier", "--source", "svhn", "--root", str(tmp_path), *TINY, "--batch-size", "100"]
    assert main([*command, "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["holdout"]["all"]["given"]["total"] == 4
    assert metrics["test"]["all"]["given"]["total"] == 12
    assert not (torch.cat(seen) == 1).flatten(1).all(1).any()
    assert len(torch.cat(seen).unique(dim=0)) > 30
    assert main([*command, "--out", str(tmp_path / "more"), "--holdout", "2"]) == 0
    metrics = json.loads((tmp_path / "more" / "metrics.json").read_text())
    assert metrics["holdout"]["all"]["given"]["total"] == 20


@pytest.mark.usefixtures("_digits_for_house_numbers")
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("--out OUT", 2, "required: --source"),
        ("--source mnist", 2, "required: --out"),
        ("--source cifar --out OUT", 2, "invalid choice: 'cifar'"),
        ("--source mnist --out OUT --kind resnet", 2, "invalid choice: 'resnet'"),
        ("--source mnist --out OUT --width 0", 1, "--width: Input should be greater than 0, got 0.0"),
        ("--source mnist --out OUT --dropout 1", 1, "--dropout: Input should be less than 1, got 1.0"),
        ("--source mnist --out OUT --device tpu", 1, "no device 'tpu'"),
        ("--source mnist --out OUT --root OUT", 1, "train-images-idx3-ubyte is missing"),
        ("--source svhn --out OUT", 1, "give it as --root DIR"),
        ("--source svhn --out OUT --root OUT --holdout 1", 1, "--holdout must lie in 2..40, .* got 1"),
        ("--source svhn --out OUT --root OUT --holdout 41", 1, "--holdout must lie in 2..40, .* got 41"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else str(value),
)
def test_mistakes_are_one_line_and_write_nothing(
    tmp_path: Path, arguments: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("OUT", str(tmp_path / "OUT")) for word in arguments.split()]
    fails(["train-classifier", *words], status, message, capsys)
    assert not list(tmp_path.iterdir())


def test_a_classifier_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    fails(["train-classifier", "--source", "mnist", "--out", str(tmp_path)], 1, "already holds a classifier", capsys)
