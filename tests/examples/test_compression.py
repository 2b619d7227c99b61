"""The example of compression: the coder against what it promises, rates and distortions, and what it writes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fastdraw import ops
from fastdraw.errors import FastdrawError
from fastdraw.models import Vae, VaeConfig
from fastdraw.training import train
from tests.scripts import EXAMPLES, ROOT, load_script
from tests.training.tiny import tiny

SMALL = ["--images", "60", "--threads", "1", "--device", "cpu"]
Coder = load_script("compression", EXAMPLES).Coder


@st.composite
def fitted_and_sent(draw):
    """Whole numbers to fit a coder to and others to send, in some dimensions; the others may lie beyond the first."""
    size = draw(st.integers(1, 4))
    row = st.lists(st.integers(-5, 5), min_size=size, max_size=size)
    wider = st.lists(st.integers(-9, 9), min_size=size, max_size=size)
    fitted, sent = draw(st.lists(row, min_size=1, max_size=20)), draw(st.lists(wider, min_size=1, max_size=20))
    return np.asarray(fitted, float), np.asarray(sent, float)


@given(fitted_and_sent(), st.sampled_from([1.0, 0.25, 3.0]))
def test_what_is_read_is_what_was_written(arrays, step) -> None:
    fitted, sent = (values * step for values in arrays)
    coder = Coder(fitted, step)
    symbols = coder.symbols(sent)

    assert np.array_equal(coder.decode(coder.encode(symbols), len(sent)), symbols)
    within = sent.clip(fitted.min(0), fitted.max(0))
    assert coder.vectors(symbols) == pytest.approx(within, abs=1e-9)


def bits(coder, symbols):
    """What each row of symbols (N, Z) costs (N,), but for the whole bytes of a file."""
    costs = [-np.log2(np.asarray(counts) / sum(counts)) for counts in coder.counts]
    return sum(cost[column] for cost, column in zip(costs, symbols.T, strict=True))


@pytest.mark.parametrize("spread", [0.2, 1.0, 30.0])
def test_a_file_is_as_long_as_frequencies_promise(spread) -> None:
    """But for its last byte, and its first symbol, which finds no number to grow from."""
    vectors = np.random.default_rng(0).normal(0, spread, (300, 6))
    coder = Coder(vectors, 1.0)
    promised = bits(coder, coder.symbols(vectors)).sum()
    assert promised > 200
    assert abs(8 * len(coder.encode(coder.symbols(vectors))) - promised) < 8 + math.log2(600)
    # As short as the entropy of the multiples allows, but for the one by which each is counted more.
    entropy = 0.0
    for column in np.rint(vectors).T:
        shares = np.unique(column, return_counts=True)[1] / 300
        entropy -= 300 * (shares * np.log2(shares)).sum()
    assert entropy <= promised < 1.2 * entropy


def test_a_symbol_costs_what_its_frequency_says() -> None:
    coder = Coder(np.asarray([[0.0], [0.0], [0.0], [2.0], [2.0]]), 1.0)
    # Counted once more than they came: 4, 1 and 3 of 8.
    assert bits(coder, np.asarray([[0], [1], [2]])) == pytest.approx([1, 3, math.log2(8 / 3)])
    assert coder.symbols(np.asarray([[-7.0], [0.6], [1.4], [99.0]])).tolist() == [[0], [1], [1], [2]]


def test_each_dimension_is_rounded_to_its_own_step() -> None:
    rng = np.random.default_rng(0)
    vectors, step = rng.uniform(-40, 40, (5000, 2)), np.asarray([1.0, 4.0])
    coder = Coder(vectors, step)
    error = coder.vectors(coder.symbols(vectors)) - vectors
    assert (np.abs(error) <= step / 2).all()
    # At sqrt(12) standard deviations it is as strong a noise as sampling.
    assert error.std(0) * math.sqrt(12) == pytest.approx(step, rel=0.02)


def test_files_are_of_fifty_vectors(compression) -> None:
    vectors = np.random.default_rng(0).normal(0, 10, (120, 3))
    coder = Coder(vectors, 1.0)
    bits, read = compression.send(coder, vectors)
    symbols = coder.symbols(vectors)
    sizes = [len(coder.encode(symbols[start : start + 50])) for start in (0, 50, 100)]
    assert bits == pytest.approx(8 * sum(sizes) / 120)
    assert np.array_equal(read, coder.vectors(symbols))


@pytest.fixture
def model() -> Vae:
    torch.manual_seed(0)
    return Vae(VaeConfig(latent=3, hidden=(8,), height=6, width=5))


def test_rate_is_the_kl_in_bits_and_distortion_what_the_decoder_makes_of_samples(compression, model) -> None:
    with torch.no_grad():
        model.encoder[-1].bias[:3] += torch.tensor([1.0, 0.5, -1.0])
        model.encoder[-1].bias[3:] -= 1
    test = torch.rand(400, 1, 6, 5)
    found = compression.measure_vae(model, test, test)[0]["sampled"]

    with torch.no_grad():
        mu, log_sigma = model.posterior(test)
        outputs = [model(test, None, None, model.noise(400)) for _ in range(200)]
    assert found["bits"] == pytest.approx(ops.gaussian_kl(mu, log_sigma).mean().item() / math.log(2), rel=1e-5)
    assert found["interval"][0] < found["bits"] < found["interval"][1]
    nll = torch.stack([output.nll.mean() for output in outputs])
    assert abs(found["nll"] - nll.mean()) < 5 * nll.std()
    mse = torch.stack([(model.expected(output.canvas) - test).square().mean() for output in outputs])
    assert abs(found["mse"] - mse.mean()) < 5 * mse.std()
    assert found["psnr"] == pytest.approx(-10 * math.log10(found["mse"]))


def test_a_finer_step_costs_more_bits_and_decodes_to_what_the_mean_does(compression, model, monkeypatch) -> None:
    with torch.no_grad():
        model.encoder[-1].weight[:3] *= 20
        model.encoder[-1].bias[3:] -= 1
    monkeypatch.setattr(compression, "STEPS", (0.001, 0.1, 1.0, math.sqrt(12)))
    test = torch.rand(300, 1, 6, 5)
    found, image = compression.measure_vae(model, test, test)
    bits = [point["bits"] for point in found["coded"]]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] > bits[-1] + 10
    with torch.no_grad():
        mean = model.expected(model.decode(model.posterior(test)[0])[-1])
    assert found["coded"][0]["mse"] == pytest.approx((mean - test).square().mean().item(), rel=1e-4)
    assert found["coded"][-1]["mse"] == pytest.approx((image - test).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("count", [1, 49, 50, 51, 120])
def test_images_come_back_from_their_sheet(compression, count) -> None:
    images = torch.rand(count, 1, 4, 3)
    sheet = compression.to_sheet(images)
    assert sheet.shape == (4 * math.ceil(count / 50), 3 * min(count, 50))
    assert torch.equal(sheet[:4, :3], images[0, 0])
    assert torch.equal(compression.from_sheet(sheet, images), images)


def test_files_without_loss_hold_every_pixel(compression) -> None:
    images = torch.randint(256, (60, 1, 28, 28)) / 255
    sheet = compression.to_sheet(images)
    assert torch.equal(compression.opened(compression.packed(sheet, "PNG")), sheet)
    # Noise cannot be packed: all its bits are there.
    assert compression.measure_lossless(images)["zlib, all together"] > 8 * 784


def test_equal_images_have_a_finite_ratio(compression) -> None:
    images = torch.rand(3, 1, 4, 4)
    assert compression.distortion_of(images, images)["psnr"] == 100
    assert compression.distortion_of(images * 0, images * 0 + 0.1)["psnr"] == pytest.approx(20, abs=1e-5)


@pytest.fixture(scope="module")
def written(compression, mixed, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("compression")
    compression.main(["--root", str(mixed), "--beta", "8", "0.5", "--steps", "3", "--out", str(out), *SMALL])
    return out


def test_every_file_is_written_and_the_table_is_what_the_results_give(compression, mixed, written) -> None:
    text = (written / "results.json").read_text()
    results = json.loads(text)
    assert str(mixed) not in text + (written / "table.md").read_text()
    assert (written / "table.md").read_text() == compression.table(results)
    assert [(point["beta"], point["steps"]) for point in results["vae"]] == [(0.5, 3), (8, 3)]
    assert results["images"] == 60
    for name in ("rate_distortion.png", "reconstructions.png"):
        assert len(Image.open(written / name).convert("L").getcolors()) > 10


def test_what_it_is_compared_with_pays_for_quality_and_for_headers(written) -> None:
    lossy = json.loads((written / "results.json").read_text())["lossy"]
    for name, points in lossy.items():
        by_rate = sorted(points, key=lambda point: point["bits"])
        assert [point["psnr"] for point in by_rate] == sorted(point["psnr"] for point in points), name
    for sheet, file in zip(lossy["JPEG, one sheet"], lossy["JPEG, a file each"], strict=True):
        assert file["bits"] > sheet["bits"] + 8 * 100


def test_runs_that_are_there_are_taken(compression, written, tmp_path) -> None:
    compression.main(["--runs", str(written), "--out", str(tmp_path), *SMALL])
    for name in ("results.json", "table.md"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", ".", "--beta", "1"], r"--runs takes runs that are trained: leave out --beta and --steps"),
        (["--runs", ".", "--steps", "5"], r"--runs takes runs that are trained"),
        (["--runs", "."], r"\. holds no folder n64-beta\*: give the --out folder of fastdraw reproduce table1"),
        (["--beta", "1", "1.0000001"], r"--beta must be numbers that differ in six digits, got 1.0 1.0000001"),
        (["--beta", "-1"], r"setting beta: .*greater than or equal to 0, got -1.0"),
        (["--beta", "nan"], r"setting beta: .*, got nan"),
        (["--images", "1"], r"--images: must lie in 2\.\.10000, got 1"),
        (["--root", "nowhere"], r"nowhere/MNIST/raw/train-images-idx3-ubyte is missing"),
    ],
)
def test_bad_arguments_end_in_one_line_before_anything_is_written(
    compression, arguments, message, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FastdrawError, match=message) as caught:
        compression.main([*arguments, "--out", "out"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_runs_of_another_model_are_refused(compression, tmp_path) -> None:
    train(tiny(steps=1), tmp_path / "n64-beta1")
    with pytest.raises(FastdrawError, match=r"n64-beta1 is no run of a VAE on single digits: give runs of the preset"):
        compression.main(["--runs", str(tmp_path), "--out", str(tmp_path / "out"), *SMALL])


def test_the_kept_table_is_what_its_results_give(compression) -> None:
    kept = ROOT / "docs" / "results" / "compression"
    results = json.loads((kept / "results.json").read_text())
    assert (kept / "table.md").read_text() == compression.table(results)
    for name in ("rate_distortion.png", "reconstructions.png"):
        assert (kept / name).exists()


def test_what_the_page_says_of_the_kept_figures_holds(compression) -> None:
    results = json.loads((ROOT / "docs" / "results" / "compression" / "results.json").read_text())
    vaes = results["vae"]
    assert [point["beta"] for point in vaes] == list(compression.BETAS)[: len(vaes)]
    assert {point["steps"] for point in vaes} == {70_313}
    coded = [point["coded"][-1] for point in vaes]
    for point, coder in zip((point["sampled"] for point in vaes), coded, strict=True):
        assert point["bits"] < coder["bits"] < point["bits"] + 8
        assert point["psnr"] - 0.6 < coder["psnr"] < point["psnr"]
    pca, sheet, files = results["lossy"].values()
    for coder in coded:
        assert all(point["psnr"] < coder["psnr"] for point in pca if point["bits"] < 2 * coder["bits"])
    alike = min(coded, key=lambda point: abs(point["psnr"] - sheet[0]["psnr"]))
    assert abs(alike["psnr"] - sheet[0]["psnr"]) < 0.2
    assert sheet[0]["bits"] > 4 * alike["bits"]
    assert files[0]["bits"] > 2 * 8 * 50 + sheet[0]["bits"]
    assert max(point["psnr"] for of_model in vaes for point in of_model["coded"]) < 25
    assert results["lossless"]["zlib, all together"] < sheet[-2]["bits"] < sheet[-1]["bits"]
