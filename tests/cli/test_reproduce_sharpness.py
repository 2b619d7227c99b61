"""fastdraw reproduce sharpness: all of it at a tiny size, going on where it was stopped, and what it refuses."""

from pathlib import Path

import pytest
import torch

from fastdraw.cli import main
from fastdraw.cli.arguments import UsageError
from fastdraw.cli.reproduce import sharpness
from fastdraw.cli.reproduce.sharpness import PRESETS, STAGES
from fastdraw.evaluation.sharpness_table import MODELS, read_results, render_sharpness
from fastdraw.training import Run, resolve, train
from fastdraw.training.checkpoint import read_checkpoint
from tests.cli.conftest import pictures
from tests.training.tiny import tiny

TINY = {
    "model.widths": (3, 3),
    "model.latent": 3,
    "model.refiner-width": 3,
    "model.blocks": 1,
    "steps": 3,
    "batch-size": 4,
    "log-every": 1,
    "evaluate-every": 2,
    "checkpoint-every": 2,
    "test-batches": 1,
    "device": "cpu",
    "threads": 1,
}
KINDS = [(0, "last"), (1, "last"), (1, "first"), (2, "first")]  # refiners, and what the likelihood is of, by model


def command(out: Path, *more: str) -> list[str]:
    settings = []
    for name, value in TINY.items():
        settings += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return ["reproduce", "sharpness", "--seeds", "0", "3", "--images", "12", "--out", str(out), *settings, *more]


def test_sharpness_trains_measures_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(command(out)) == 0
    results = read_results(out / "results.json")
    assert [(run.model, run.seed, run.steps) for run in results.runs] == [(m, s, 3) for s in (0, 3) for m in MODELS]
    assert {model: len(of_model.stages) for model, of_model in results.models.items()} == {
        "conv-vae": 1,
        "residual-vae": 2,
        "multistage-vae": 2,
        "three-stage-vae": 3,
    }
    assert {estimate.samples for estimate in results.real.values()} == {12}
    page = (out / "sharpness.md").read_text()
    assert page == render_sharpness(results)
    assert page.startswith("# How sharp images of a VAE, a residual and a multi-stage VAE are, on MNIST\n")
    for name in ("results.json", "sharpness.md"):
        assert str(tmp_path) not in (out / name).read_text()
    assert pictures(out) == {"curves.png", "rows.png", "stages.png", "samples.png"}

    settings = [Run.open(out / f"{model}-3").settings() for model in MODELS]
    assert [(chosen.model.refiners, chosen.model.likelihood_of) for chosen in settings] == KINDS
    assert {chosen.seed for chosen in settings} == {3}

    checkpoint = out / "residual-vae-3" / "checkpoint.safetensors"
    before = read_checkpoint(checkpoint)
    checkpoint.unlink()
    assert main(command(out)) == 0  # trains that one alone, from its start
    after = read_checkpoint(checkpoint)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    again = read_results(out / "results.json")
    assert (again.models, again.comparisons, again.real) == (results.models, results.comparisons, results.real)
    assert "three-stage-vae-0 has taken all its 3 steps" in capsys.readouterr().out


@pytest.mark.parametrize("size", sharpness.SIZES)
@pytest.mark.parametrize("data", sharpness.DATA)
def test_every_size_of_all_data_has_its_models(data: str, size: str) -> None:
    settings = [resolve(sharpness._preset(name, data, size), STAGES.get(m, {})) for m, name in PRESETS.items()]
    assert [(chosen.model.refiners, chosen.model.likelihood_of) for chosen in settings] == KINDS
    assert {chosen.data.source for chosen in settings} == {"digits" if data == "mnist" else "celeba"}
    paper = resolve(sharpness._preset("conv-vae", data, "paper"))
    assert (settings[0].steps < paper.steps) == (size == "small")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--data svhn", "argument --data: invalid choice: 'svhn'"),
        ("--size huge", "argument --size: invalid choice: 'huge'"),
        ("--seeds 0 1 0", "--seeds must differ, got 0 1 0"),
        ("--seed 1", "--seed cannot be given: the claim takes several seeds: give --seeds"),
        ("--data.source digits", "--data.source cannot be given: --data chooses it"),
        ("--images 0", "argument --images: must be at least 1, got 0"),
        ("--images 1", "--images must be at least 2, which an interval takes, got 1"),
        ("--model.refiners 3", "--model.refiners cannot be given: it tells the models apart"),
        ("--model.likelihood-of first", "--model.likelihood-of cannot be given: it tells the models apart"),
    ],
)
def test_arguments_that_make_no_table(tmp_path: Path, more: str, message: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=message):
        sharpness.main(["--out", str(out), *more.split()])
    assert not out.exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--root", "nowhere"], "t10k-images-idx3-ubyte is missing"),
        (["--model.likelihood", "bernoulli"], "model.refiners need model.likelihood gaussian"),
        ([], "holds a run of other settings"),
    ],
    ids=["no-data", "bernoulli", "other-settings"],
)
def test_what_cannot_be_reproduced_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    if "other settings" in words:
        train(tiny(steps=2), tmp_path / "out" / "conv-vae-0")
    assert main(command(tmp_path / "out", *more)) == 1
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
