"""The example of the linear VAE runs, at a small size, and what it prints and draws is right."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from fastdraw.cli.arguments import UsageError
from tests.scripts import EXAMPLES, load_script


def test_linear_gaussian_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_script("linear_gaussian", EXAMPLES).main(["--steps", "20", "--out", str(tmp_path / "deep" / "vae")])
    printed = capsys.readouterr().out
    assert re.findall(r"^(\S+) +-?\d+\.\d{4} +-?\d+\.\d{4}$", printed, re.MULTILINE) == ["a", "b", "t", "c", "v", "s"]
    elbo, divergence, log_likelihood = map(float, re.findall(r"-?\d+\.\d{6}", printed))
    assert divergence > 0
    assert elbo + divergence == pytest.approx(log_likelihood, abs=2e-6)
    with Image.open(tmp_path / "deep" / "vae" / "linear_gaussian.png") as picture:
        assert picture.size == (1584, 1065)


def test_linear_gaussian_learns_by_samples() -> None:
    example = load_script("linear_gaussian", EXAMPLES)
    data = example.MU + example.SIGMA * torch.randn(1000, 1, dtype=torch.float64)
    model, bounds = example.train(data, 300)
    assert bounds.shape == (301, 2)
    assert (bounds[:, 0] < bounds[:, 1]).all()
    mean, variance = data.mean(0), data.var(correction=0).item()
    best = model.optimum(mean, variance, model.log_s.exp().item())
    reached = model.elbo(data).mean()
    assert bounds[-1, 0] == reached
    assert 0 < best.elbo(data).mean() - reached < 0.3
    assert bounds[-1, 1] - reached < 0.02
    assert bounds[0, 0] < reached - 10


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--out", ""], ["--step", "5"]])
def test_linear_gaussian_refuses(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match=r"see linear_gaussian.py --help"):
        load_script("linear_gaussian", EXAMPLES).main(arguments)
