"""The page of paper 003's claim: made-up images whose verdict is known, and results that cannot be."""

import copy
import json
import re

import pytest
import torch

from fastdraw.errors import FastdrawError
from fastdraw.evaluation.sharpness_table import (
    MODELS,
    Results,
    RunValues,
    render_sharpness,
    summarise,
    verdict,
)

IMAGES = 40
SETTINGS = {model: {"model": {"refiners": number}, "steps": 500} for number, model in enumerate(MODELS)}


def made_up(levels, models=tuple(MODELS), seeds=(0, 1, 2), likeness=None):
    """Results whose sharpness is `levels` times that of real images, by model, and MS-SSIM `likeness`, or the same.

    Images differ by a factor of four in sharpness, and runs by a hundredth.
    """
    generator = torch.Generator().manual_seed(0)
    real = {
        "gradient_energy": torch.linspace(0.04, 0.16, IMAGES).double(),
        "high_frequency_power": torch.linspace(0.01, 0.04, IMAGES).double(),
    }
    likeness = likeness or levels
    runs = []
    for seed in seeds:
        for model in models:
            factor = levels[model] * (1 + 0.005 * torch.randn(IMAGES, generator=generator) + 0.01 * (seed - 1))
            last = {measure: values * factor for measure, values in real.items()}
            coarse = {measure: values / 2 for measure, values in last.items()}
            prior = {measure: values.flip(0) for measure, values in last.items()}
            last["ms_ssim"] = likeness[model] * torch.linspace(0.7, 0.9, IMAGES).double()
            last["ms_ssim_cut"] = last["ms_ssim"] + 0.1
            last |= {"l1": (2 - likeness[model]) * real["gradient_energy"], "l2": real["gradient_energy"]}
            stages = [last] if model == "conv-vae" else [coarse, last]
            runs.append(RunValues(model, seed, 500, 90.0, stages, prior))
    return summarise("MNIST", real, runs, {model: SETTINGS[model] for model in models})


def levels(*values):
    return dict(zip(MODELS, values, strict=True))


RISING = levels(0.5, 0.7, 0.9, 0.9)
LEVEL = levels(0.5, 0.7, 0.7, 0.9)
FALLING = levels(0.9, 0.7, 0.5, 0.5)


def claim(results):
    """The two lines of the verdict."""
    return [line for line in render_sharpness(results).splitlines() if "VAE < residual < multi-stage" in line]


def cells(page, section, row):
    """The cells of the row that starts so, in a section of the page."""
    part = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    (found,) = [line for line in part.splitlines() if line.startswith(f"| {row} |")]
    return found.removeprefix(f"| {row} | ").removesuffix(" |").split(" | ")


def test_a_claim_that_holds_is_said_to_hold():
    reconstructions, samples = claim(made_up(RISING))
    assert reconstructions == (
        "- Reconstructions of held-out images: VAE < residual < multi-stage **holds** by gradient energy, "
        "high-frequency power and MS-SSIM to the original."
    )
    assert samples == (
        "- Samples from the prior: VAE < residual < multi-stage **holds** by gradient energy and high-frequency power."
    )
    page = render_sharpness(made_up(RISING))
    for kind in ("Reconstructions of held-out images", "Samples from the prior"):
        assert cells(page, "Does the claim hold?", f"{kind} | gradient energy") == ["yes", "yes", "yes"]


@pytest.mark.parametrize(
    ("sharpness", "second_step", "whole"),
    [(LEVEL, "not told apart", "yes"), (FALLING, "no, more", "no, more")],
    ids=["level", "falling"],
)
def test_a_claim_that_does_not_hold_is_said_not_to(sharpness, second_step, whole):
    results = made_up(sharpness)
    for line in claim(results):
        assert "VAE < residual < multi-stage **does not hold** by gradient energy" in line
        assert "**holds**" not in line
    page = render_sharpness(results)
    for kind in ("Reconstructions of held-out images", "Samples from the prior"):
        found = cells(page, "Does the claim hold?", f"{kind} | high-frequency power")
        assert found[1:] == [second_step, whole]
    assert verdict(results, "reconstructed", "ms_ssim") is False
    assert verdict(results, "prior", "gradient_energy") is False


def test_measures_that_disagree_are_told_apart():
    reconstructions, samples = claim(made_up(RISING, likeness=LEVEL))
    assert reconstructions == (
        "- Reconstructions of held-out images: VAE < residual < multi-stage **holds** by gradient energy and "
        "high-frequency power; it **does not hold** by MS-SSIM to the original."
    )
    assert "does not" not in samples


def test_a_model_that_is_not_measured_yet_leaves_the_claim_open():
    results = made_up(RISING, models=("conv-vae", "residual-vae"))
    assert [line for line in render_sharpness(results).splitlines() if "not all of the three" in line] == [
        f"- {kind}: not all of the three models are measured yet."
        for kind in ("Reconstructions of held-out images", "Samples from the prior")
    ]
    page = render_sharpness(results)
    found = cells(page, "Does the claim hold?", "Samples from the prior | gradient energy")
    assert found == ["yes", "not measured yet", "not measured yet"]
    assert verdict(results, "prior", "gradient_energy") is None
    assert "three-stage" not in page


def test_means_ratios_and_differences_are_those_of_the_images():
    results = made_up(RISING)
    vae, residual = results.models["conv-vae"], results.models["residual-vae"]
    assert results.real["gradient_energy"].value == pytest.approx(0.1)
    assert vae.reconstructed.means["gradient_energy"].value == pytest.approx(0.05, rel=0.01)
    assert vae.reconstructed.ratios["high_frequency_power"].value == pytest.approx(0.5, rel=0.01)
    assert [stage.ratios["gradient_energy"].value for stage in residual.stages] == pytest.approx([0.35, 0.7], rel=0.01)
    assert residual.prior.ratios["gradient_energy"].value == pytest.approx(0.7, rel=0.01)
    (comparison,) = [c for c in results.comparisons if (c.first, c.second) == ("conv-vae", "residual-vae")]
    for found, of in ((comparison.reconstructed, "reconstructed"), (comparison.prior, "prior")):
        of_both = [getattr(model, of).means["gradient_energy"].value for model in (vae, residual)]
        assert found["gradient_energy"].value == pytest.approx(of_both[1] - of_both[0])
    page = render_sharpness(results)
    shown = cells(page, "Reconstructions of held-out images", "VAE")[0]
    assert re.fullmatch(r"0\.0\d+ \(0\.0\d+ to 0\.0\d+\)<br>0\.\d+ \(0\.4\d+ to 0\.5\d*\) of real", shown)
    assert cells(page, "What it costs", "l1 to the original")[2].startswith("closer, -0.04 (")
    assert cells(page, "What it costs", "l2 to the original")[2] == "not told apart, +0 (+0 to +0)"


def test_stages_that_are_images_are_shown():
    part = render_sharpness(made_up(RISING)).split("## What each stage makes")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([\w-]+) \| (\d) \|.*<br>([\d.]+) \(", part, re.MULTILINE)
    assert [row[:2] for row in rows] == [
        ("VAE", "1"),
        ("residual", "2"),
        *((model, stage) for model in ("multi-stage", "three-stage") for stage in "12"),
    ]


def test_pairing_by_image_tells_apart_what_means_do_not():
    """Images differ by a factor of four; two models by a tenth on each of them."""
    results = made_up(levels(0.7, 0.77, 0.8, 0.9))
    means = [results.models[m].reconstructed.means["gradient_energy"] for m in ("conv-vae", "residual-vae")]
    assert means[0].high > means[1].low
    steps = cells(
        render_sharpness(results), "Does the claim hold?", "Reconstructions of held-out images | gradient energy"
    )
    assert steps[0] == "yes"


def test_runs_of_one_seed_alone_are_compared_by_seed():
    """While seeds are being trained, the first models have one more run; it is left out of what is paired."""
    whole = made_up(RISING)
    generator = torch.Generator().manual_seed(1)
    extra = {measure: torch.rand(IMAGES, generator=generator).double() for measure in whole.real}
    stages = [extra | {name: torch.rand(IMAGES).double() for name in ("ms_ssim", "ms_ssim_cut", "l1", "l2")}]
    runs = [RunValues("conv-vae", 9, 500, 90.0, stages, extra)]
    real = {measure: torch.linspace(0.04, 0.16, IMAGES).double() for measure in whole.real}
    both = [
        RunValues(model, 0, 500, 90.0, [stages[0] | {"l2": torch.full((IMAGES,), value).double()}], extra)
        for model, value in (("conv-vae", 0.25), ("residual-vae", 0.75))
    ]
    found = summarise("MNIST", real, [*both, *runs], SETTINGS).comparisons[0].reconstructed["l2"]
    assert found[:3] == pytest.approx((0.5, 0.5, 0.5))


def test_what_is_sharper_than_real_images_is_named():
    page = render_sharpness(made_up(levels(0.5, 0.7, 1.2, 0.9)))
    named = [line for line in page.splitlines() if line.startswith("- multi-stage, ")]
    assert len(named) == 4
    assert named[0].startswith("- multi-stage, reconstructions of held-out images, gradient energy: 1.2")
    assert "None of them is sharper" not in page
    assert "None of them is sharper than real images are." in render_sharpness(made_up(RISING))


def test_one_run_of_each_is_said_to_say_little():
    words = "**With one run of each model they are over images alone and say nothing of another run.**"
    assert words in render_sharpness(made_up(RISING, seeds=(4,)))
    assert words not in render_sharpness(made_up(RISING))


def test_runs_and_settings_stand_below():
    page = render_sharpness(made_up(RISING))
    found = cells(page, "How it was made", "three-stage | 2 | 500 | 1.5")
    assert float(found[0]) == pytest.approx(0.09, rel=0.02)
    assert cells(page, "How it was made", "model.refiners") == ["0", "1", "2", "3"]


def test_every_table_has_as_many_cells_in_each_row():
    blocks = [block.splitlines() for block in render_sharpness(made_up(RISING)).split("\n\n") if block.startswith("|")]
    assert len(blocks) == 8
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1, block


def test_results_survive_their_file(tmp_path):
    results = made_up(RISING)
    (tmp_path / "results.json").write_text(results.model_dump_json())
    again = Results.read(tmp_path / "results.json")
    assert again == results
    assert render_sharpness(again) == render_sharpness(results)


def changed(path, value):
    values = copy.deepcopy(VALUES)
    *parents, key = path
    place = values
    for name in parents:
        place = place[name]
    place[key] = value
    return values


VALUES = json.loads(made_up(RISING).model_dump_json())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (changed(["runs", 0, "seed"], 1), "conv-vae, seed 1 is there twice"),
        (changed(["runs", 0, "model"], "vae"), r"runs\.0\.model: Input should be 'conv-vae'"),
        (changed(["runs"], VALUES["runs"][:3]), r"there are runs of \['conv-vae', .*\], models \['conv-vae', .*'three"),
        (changed(["comparisons"], VALUES["comparisons"][1:]), r"comparisons must be .*, got \[\('residual-vae', 'mult"),
        (changed(["models"], {}), "models: Dictionary should have at least 1 item"),
        (changed(["models", "conv-vae", "stages"], []), r"models\.conv-vae\.stages: List should have at least 1 item"),
        (changed(["real", "gradient_energy"], [1, 2]), r"real\.gradient_energy\.2: Field required"),
        (changed(["real", "gradient_energy", 0], float("nan")), r"real\.gradient_energy\.0: .* finite number"),
        (changed(["real", "l1"], [1, 1, 1, 9]), r"real must have the measures \['gradient_energy', .*\], got .*'l1'\]"),
        (changed(["models", "conv-vae", "stages", 0, "means"], {}), r"conv-vae, reconstructed must have .*, got \[\]"),
        (
            changed(["comparisons", 0, "prior"], {}),
            r"residual-vae - conv-vae, prior must have the measures .*, got \[\]",
        ),
        (changed(["runs", 1, "prior"], {}), r"residual-vae, seed 0, prior must have the measures .*, got \[\]"),
        (changed(["faces"], 3), "faces: Extra inputs are not permitted"),
    ],
    ids=[
        "twice",
        "model",
        "runs",
        "comparisons",
        "no-models",
        "no-stages",
        "interval",
        "nan",
        "more",
        "none",
        "difference",
        "run",
        "extra",
    ],
)
def test_results_that_cannot_be_are_refused(tmp_path, values, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(values))

    with pytest.raises(FastdrawError, match=f"results.json: {message}"):
        Results.read(path)
