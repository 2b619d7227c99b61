"""The example of anomaly detection: what is told apart with certainty, what cannot be, and what it writes."""

import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastdraw import ops
from fastdraw.data import LabelledImages
from fastdraw.errors import FastdrawError
from fastdraw.evaluation.intervals import roc_area
from fastdraw.models import Vae, VaeConfig
from fastdraw.training import Run
from fastdraw.training.sources import held_out_source, training_source
from tests.examples.conftest import NOISE
from tests.scripts import EXAMPLES, ROOT

SMALL = ["--steps", "3", "--samples", "2", "--threads", "1", "--device", "cpu"]
PICTURES = ("roc.png", "scores.png", "extremes.png")


@pytest.fixture(scope="module")
def written(anomaly, mixed, tmp_path_factory) -> Path:
    """What the example leaves for the digits that nothing tells from the others, and that anything tells from them."""
    out = tmp_path_factory.mktemp("anomaly")
    anomaly.main(["--root", str(mixed), "--digit", "8", str(NOISE), "--out", str(out), *SMALL])
    return out


def test_noise_is_told_from_digits_and_digits_with_labels_by_lot_are_not(written) -> None:
    without = json.loads((written / "results.json").read_text())["without"]
    for name in ("bound", "nll", "importance", "pca", "ink"):
        assert without[str(NOISE)]["areas"][name]["value"] > 0.999, name
        assert without[str(NOISE)]["areas"][name]["low"] > 0.85, name
    for name, area in without["8"]["areas"].items():
        assert area["low"] < 0.5 < area["high"], name


def test_every_picture_is_written_and_the_table_is_what_the_results_give(anomaly, mixed, written) -> None:
    text = (written / "results.json").read_text()
    results = json.loads(text)
    assert str(mixed) not in text + (written / "table.md").read_text()
    assert (written / "table.md").read_text() == anomaly.table(results)
    assert [row.split(" | ")[0] for row in anomaly.table(results).splitlines()[4:]] == ["| 8", "| 9", "| mean"]
    assert sum(results["without"]["8"][kind] for kind in ("left_out", "normal")) == 300
    assert (results["samples"], results["settings"]["steps"]) == (2, 3)
    for name in PICTURES:
        image = Image.open(written / name)
        assert len(image.convert("L").getcolors()) > 10, name


def test_a_digit_that_is_left_out_is_in_no_batch_of_its_run(written) -> None:
    settings = Run.open(written / "without-8").settings()
    for source in (training_source(settings), held_out_source(settings, 50)):
        labels = torch.cat([source.batch(index).labels for index in range(50)])
        assert set(labels.unique().tolist()) == set(range(10)) - {8}


def test_the_same_command_goes_on_and_writes_the_same(anomaly, mixed, written, capsys) -> None:
    before = {path.name: path.read_bytes() for path in written.iterdir() if path.is_file()}
    anomaly.main(["--root", str(mixed), "--digit", "8", str(NOISE), "--out", str(written), *SMALL])
    assert "has taken all its 3 steps" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in written.iterdir() if path.is_file()} == before


def digits(count: int) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 1, 4, 3), dtype=torch.uint8, generator=generator)
    return LabelledImages(images, torch.arange(count)[:, None] % 10, torch.ones(count, dtype=torch.int64))


def test_scores_of_a_model_are_the_parts_of_its_bound(anomaly) -> None:
    torch.manual_seed(0)
    model, images = Vae(VaeConfig(latent=2, hidden=(5,), height=4, width=3)), digits(250)
    scores = anomaly.model_scores(model, images, 400)

    pixels = images.images / 255
    with torch.no_grad():
        mu, log_sigma = model.posterior(pixels)
        torch.testing.assert_close(torch.from_numpy(scores["kl"]).float(), ops.gaussian_kl(mu, log_sigma))
        nll = torch.stack([model(pixels, None, None, model.noise(250)).nll for _ in range(400)])
    error = nll.std(0) / math.sqrt(200)
    assert ((nll.mean(0) - torch.from_numpy(scores["nll"])).abs() < 5 * error).all()
    assert np.array_equal(scores["bound"], scores["nll"] + scores["kl"])
    # Weighing samples makes the bound tighter, and a cross-entropy is at least the entropy.
    assert 0 < (scores["bound"] - scores["importance"]).mean() < scores["bound"].mean()
    assert (scores["excess"] > scores["kl"]).all()
    grey = images.images.flatten(1).double().numpy() / 255
    inner = np.clip(grey, 1e-300, 1 - 1e-16)
    entropy = -(inner * np.log(inner) + (1 - inner) * np.log1p(-inner)).sum(1)
    assert scores["bound"] - scores["excess"] == pytest.approx(entropy, abs=1e-9)


def test_scores_without_a_model_are_those_of_the_nine_digits_plane(anomaly) -> None:
    train, test = digits(60), digits(40)
    scores = anomaly.plain_scores(train, test, 3, 2)
    normal = train.images[train.labels[:, 0] != 3].flatten(1).double().numpy() / 255
    pixels = test.images.flatten(1).double().numpy() / 255
    axes = np.linalg.svd(normal - normal.mean(0), full_matrices=False)[2][:2]
    apart = pixels - normal.mean(0)
    assert scores["pca"] == pytest.approx(((apart - apart @ axes.T @ axes) ** 2).sum(1), rel=1e-4)
    assert scores["ink"] == pytest.approx(pixels.sum(1), rel=1e-5)


def test_the_left_out_digit_is_the_one_that_should_score_higher(anomaly) -> None:
    test, rng = digits(200), np.random.default_rng(0)
    left_out = test.labels[:, 0].numpy() == 4
    found = anomaly.judge({"right": left_out + 0.1 * rng.random(200), "wrong": -1.0 * left_out}, test, 4)
    assert (found["left_out"], found["normal"]) == (20, 180)
    assert (found["areas"]["right"]["value"], found["areas"]["wrong"]["value"]) == (1, 0)
    assert found["areas"]["right"]["low"] == pytest.approx(roc_area(np.ones(20), np.zeros(180)).low)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--digit", "3", "5", "3"], r"--digit must name each digit once, got 3 5 3"),
        (["--digit", "10"], r"invalid choice: 10 .*; see anomaly.py --help"),
        (["--steps", "0"], r"--steps: must be at least 1, got 0; see anomaly.py --help"),
        (["--root", "nowhere"], r"nowhere/MNIST/raw/train-images-idx3-ubyte is missing"),
        (["--download"], r"download needs a folder"),
    ],
)
def test_bad_arguments_end_in_one_line_before_anything_is_written(
    anomaly, arguments, message, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FastdrawError, match=message) as caught:
        anomaly.main([*arguments, "--out", "out"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_too_few_images_of_a_digit_are_refused(anomaly) -> None:
    test = digits(19)
    anomaly.check(test, 8)
    with pytest.raises(FastdrawError, match="of 19 test images 1 are of the digit 9: an ROC curve needs at least 2"):
        anomaly.check(test, 9)


def test_runs_of_other_settings_are_left_alone(anomaly, mixed, written) -> None:
    with pytest.raises(FastdrawError, match=r"without-8 holds a run of other settings: give another --out"):
        anomaly.main(["--root", str(mixed), "--digit", "8", "--out", str(written), *SMALL, "--steps", "4"])


@pytest.mark.parametrize("name", ["anomaly", "compression"])
def test_a_mistake_ends_a_script_with_one_line(name, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", [f"{name}.py", "--images", "none"])
    with pytest.raises(SystemExit, match=rf"^error: .*; see {name}.py --help$"):
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_the_kept_table_is_what_its_results_give(anomaly) -> None:
    kept = ROOT / "docs" / "results" / "anomaly"
    results = json.loads((kept / "results.json").read_text())
    assert (kept / "table.md").read_text() == anomaly.table(results)
    assert list(results["without"]) == [str(digit) for digit in range(10)]
    for name in PICTURES:
        assert (kept / name).exists()


def test_what_the_page_says_of_the_kept_figures_holds() -> None:
    results = json.loads((ROOT / "docs" / "results" / "anomaly" / "results.json").read_text())
    areas = {digit: run["areas"] for digit, run in results["without"].items()}
    value = {name: {digit: of_digit[name]["value"] for digit, of_digit in areas.items()} for name in areas["1"]}
    # The 1 passes for normal, in every score, and there is least ink in it.
    assert all(area["high"] < 0.5 for area in areas["1"].values())
    assert areas["1"]["bound"]["high"] < 0.15
    assert min(value["ink"], key=value["ink"].get) == "1"
    assert areas["9"]["bound"]["low"] < 0.5 < areas["9"]["bound"]["high"]
    order = sorted(value["bound"], key=value["bound"].get, reverse=True)
    assert (set(order[:2]), set(order[2:7]), order[7:]) == ({"0", "2"}, {"8", "6", "5", "3", "4"}, ["7", "9", "1"])
    assert max(value["kl"].values()) < 0.7
    for digit, of_digit in areas.items():
        assert of_digit["nll"]["value"] == pytest.approx(of_digit["bound"]["value"], abs=0.02)
        assert of_digit["importance"]["value"] <= of_digit["bound"]["value"]
        assert of_digit["excess"]["value"] >= of_digit["bound"]["value"]
        assert (of_digit["pca"]["high"] < of_digit["bound"]["low"]) == (digit not in "179")
    assert areas["1"]["pca"]["low"] > areas["1"]["bound"]["high"]
    gains = {digit: value["excess"][digit] - value["bound"][digit] for digit in areas}
    assert max(gains, key=gains.get) == "1"
