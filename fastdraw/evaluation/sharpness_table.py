"""The claim of paper 003 as a table: a VAE is less sharp than a residual VAE, and that than a multi-stage VAE.

Means, intervals and differences are kept as JSON, and the page is rendered from them, the verdict with it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator

from fastdraw.evaluation.intervals import Estimate, crossed_mean, difference, nested_mean, ratio
from fastdraw.evaluation.kept import Part, settings_rows, table_head, table_row
from fastdraw.evaluation.sharpness import HAZE, HIGH, Values

Model = Literal["conv-vae", "residual-vae", "multistage-vae", "three-stage-vae"]

MODELS: Mapping[Model, str] = {
    "conv-vae": "VAE",
    "residual-vae": "residual",
    "multistage-vae": "multi-stage",
    "three-stage-vae": "three-stage",
}
CLAIM: Sequence[tuple[Model, Model]] = (("conv-vae", "residual-vae"), ("residual-vae", "multistage-vae"))
PAIRS = (*CLAIM, ("conv-vae", "multistage-vae"), ("multistage-vae", "three-stage-vae"))
SHARPNESS = {"gradient_energy": "gradient energy", "high_frequency_power": "high-frequency power"}
LIKENESS = {"ms_ssim": "MS-SSIM to the original"}
WITHOUT_HAZE = {"ms_ssim_cut": f"MS-SSIM, below {HAZE} black"}
DISTANCE = {"l1": "l1 to the original", "l2": "l2 to the original"}
MEASURES = SHARPNESS | LIKENESS | WITHOUT_HAZE | DISTANCE
# What the claim is judged by, where more of it is better.
JUDGED = {"reconstructed": SHARPNESS | LIKENESS, "prior": SHARPNESS}
KINDS = {"reconstructed": "Reconstructions of held-out images", "prior": "Samples from the prior"}

NOTES = {
    "reconstructed": [],
    "prior": ["Sharpness says nothing of whether a sample looks like an image of the data: samples.png shows that."],
}


class RunValues(NamedTuple):
    """What was measured on one trained model, for each image.

    Attributes:
        stages: of reconstructions, by stage, coarse first: sharpness, and of the last all `MEASURES`.
        prior: sharpness of samples from the prior.
    """

    model: Model
    seed: int
    steps: int
    seconds: float
    stages: list[Values]
    prior: Values


class RunMeans(Part):
    """Means over the images of one trained model, with its seed, steps and seconds of training."""

    model: Model
    seed: int
    steps: int
    seconds: float
    reconstructed: dict[str, float]
    prior: dict[str, float]


class Measured(Part):
    """Images of one kind: the mean of each measure, and of sharpness that mean over the one of real images."""

    means: dict[str, Estimate]
    ratios: dict[str, Estimate]


class Of(Part):
    """What a model makes: the stages of its reconstructions, coarse first, and samples from the prior."""

    stages: list[Measured] = Field(min_length=1)
    prior: Measured

    @property
    def reconstructed(self) -> Measured:
        return self.stages[-1]


class Comparison(Part):
    """How much more of each measure the second of two models has than the first."""

    first: Model
    second: Model
    reconstructed: dict[str, Estimate]
    prior: dict[str, Estimate]


class Results(Part):
    """What the page is made of.

    Attributes:
        data: what was trained on, as it is to stand in the heading.
        real: sharpness of the held-out images.
        settings: of each model, as sections of values.
    """

    data: str
    real: dict[str, Estimate]
    models: dict[Model, Of] = Field(min_length=1)
    comparisons: list[Comparison]
    runs: list[RunMeans]
    settings: dict[Model, dict[str, Any]]

    @model_validator(mode="after")
    def _check(self) -> "Results":
        names = [(run.model, run.seed) for run in self.runs]
        for model, seed in names:
            if names.count((model, seed)) > 1:
                raise ValueError(f"{model}, seed {seed} is there twice")
        if {model for model, _ in names} != self.models.keys():
            raise ValueError(f"there are runs of {sorted({model for model, _ in names})}, models {sorted(self.models)}")
        expected = [pair for pair in PAIRS if set(pair) <= self.models.keys()]
        compared = [(comparison.first, comparison.second) for comparison in self.comparisons]
        if compared != expected:
            raise ValueError(f"comparisons must be {expected}, got {compared}")
        self._check_measures()
        return self

    def _check_measures(self) -> None:
        found: dict[str, Mapping[str, Any]] = {"real": self.real}
        for kind in KINDS:
            for model, of_model in self.models.items():
                found[f"{model}, {kind}"] = getattr(of_model, kind).means
            for comparison in self.comparisons:
                found[f"{comparison.second} - {comparison.first}, {kind}"] = getattr(comparison, kind)
            for run in self.runs:
                found[f"{run.model}, seed {run.seed}, {kind}"] = getattr(run, kind)
        for name, measured in found.items():
            expected = MEASURES if name.endswith("reconstructed") else SHARPNESS
            if measured.keys() != expected.keys():
                raise ValueError(f"{name} must have the measures {list(expected)}, got {list(measured)}")


def summarise(
    data: str, real: Values, runs: Sequence[RunValues], settings: Mapping[Model, Mapping[str, Any]]
) -> Results:
    """Turn what was measured on each image into means with intervals over images and runs.

    Args:
        real: sharpness of the originals of all reconstructions, in their order.
    """
    targets = {measure: crossed_mean(values[None]) for measure, values in real.items()}
    models: dict[Model, Of] = {}
    for model in MODELS:
        own = [run for run in runs if run.model == model]
        if own:
            stages = [_reconstructed([run.stages[stage] for run in own], real) for stage in range(len(own[0].stages))]
            means = {measure: nested_mean(values) for measure, values in _stacked([run.prior for run in own]).items()}
            ratios = {measure: ratio(mean, targets[measure]) for measure, mean in means.items()}
            models[model] = Of(stages=stages, prior=Measured(means=means, ratios=ratios))
    return Results(
        data=data,
        real=targets,
        models=models,
        comparisons=[
            _compared(first, second, runs, models) for first, second in PAIRS if {first, second} <= models.keys()
        ],
        runs=[
            RunMeans(
                model=run.model,
                seed=run.seed,
                steps=run.steps,
                seconds=run.seconds,
                reconstructed={measure: float(values.mean()) for measure, values in run.stages[-1].items()},
                prior={measure: float(values.mean()) for measure, values in run.prior.items()},
            )
            for run in runs
        ],
        settings={model: dict(values) for model, values in settings.items()},
    )


def verdict(results: Results, kind: str, measure: str) -> bool | None:
    """Whether every step of `CLAIM` is a rise whose interval lies above 0; None where a model was not measured."""
    steps = [_difference(results, kind, pair, measure) for pair in CLAIM]
    return None if None in steps else all(step is not None and step.low > 0 for step in steps)


def render_sharpness(results: Results) -> str:
    """The results as Markdown: the verdict first, what it costs, then all that it rests on, and how it was made."""
    images = next(iter(results.real.values())).samples
    seeds = sorted({run.seed for run in results.runs})
    lines = [
        f"# How sharp images of a VAE, a residual and a multi-stage VAE are, on {results.data}",
        "",
        f"What the last stage makes of z: the mean of q(z | x) of {images} held-out images, or a draw from the prior.",
        "",
        "- gradient energy: mean squared difference of horizontal neighbours plus that of vertical ones",
        f"- high-frequency power: part of the mean squared pixel above {HIGH} cycles per pixel, by a cosine transform",
        "- MS-SSIM: structural similarity to the original, by torchmetrics, in as many of its scales as fit the image",
        f"- MS-SSIM, below {HAZE} black: the same once all pixels below {HAZE} are 0 in both images, as on a flat",
        "  ground it is low for a haze that is hardly seen; no part of the claim",
        "- l1, l2: mean over pixels and channels of the difference to the original, and of its square",
        "",
        "LPIPS is not among them, as the weights of its network do not come with any library that fastdraw needs.",
        "",
        f"Intervals are of 95 %, over images and over {len(seeds)} training runs of each model. Runs redraw the same",
        "images, and differences are taken image by image: Student's t over images and over runs, added as squares.",
        "Samples are each run's own: Student's t of the means of the runs. Each interval stands for itself.",
    ]
    if len(seeds) == 1:
        lines.append("**With one run of each model they are over images alone and say nothing of another run.**")
    lines += ["", "## Does the claim hold?", "", *_claim(results), "", *_too_sharp(results)]
    lines += ["", "## What it costs", "", *_cost(results)]
    for kind, title in KINDS.items():
        measures = MEASURES if kind == "reconstructed" else SHARPNESS
        lines += ["", f"## {title}", "", "Below a mean, that mean over the one of real images.", *NOTES[kind], ""]
        lines += table_head(["", *measures.values()])
        lines.append(_measured_row("real images", Measured(means=results.real, ratios={}), measures))
        for model, of_model in results.models.items():
            lines.append(_measured_row(MODELS[model], getattr(of_model, kind), measures))
    lines += ["", "## What each stage makes", ""]
    lines += ["Stage 1 of the residual VAE is not among them: no loss compares it with an image, and it is none.", ""]
    lines += table_head(["", "stage", *SHARPNESS.values()])
    for model, of_model in results.models.items():
        for number, stage in enumerate(of_model.stages, 1):
            if model != "residual-vae" or stage is of_model.reconstructed:
                lines.append(_measured_row(f"{MODELS[model]} | {number}", stage, SHARPNESS))
    lines += ["", "## Differences", "", *table_head(["", "", *MEASURES.values()])]
    for kind, title in KINDS.items():
        for comparison in results.comparisons:
            pair = f"{MODELS[comparison.second]} - {MODELS[comparison.first]}"
            found = getattr(comparison, kind)
            cells = [_signed(found[measure]) if measure in found else "" for measure in MEASURES]
            lines.append(table_row([title, pair, *cells]))
    return "\n".join([*lines, "", *_origin(results)]) + "\n"


def _claim(results: Results) -> list[str]:
    lines = []
    for kind, title in KINDS.items():
        verdicts = {name: verdict(results, kind, measure) for measure, name in JUDGED[kind].items()}
        if None in verdicts.values():
            lines.append(f"- {title}: not all of the three models are measured yet.")
            continue
        words = {True: "**holds**", False: "**does not hold**"}
        by = {word: [name for name, holds in verdicts.items() if holds is which] for which, word in words.items()}
        parts = [f"{word} by {_and(names)}" for word, names in by.items() if names]
        lines.append(f"- {title}: VAE < residual < multi-stage {'; it '.join(parts)}.")
    pairs = PAIRS[:3]
    lines += ["", *table_head(["", "", *(f"{MODELS[first]} < {MODELS[second]}" for first, second in pairs)])]
    for kind, title in KINDS.items():
        for measure, name in JUDGED[kind].items():
            steps = [_difference(results, kind, pair, measure) for pair in pairs]
            lines.append(table_row([title, name, *(_step(step, "yes", "no, more") for step in steps)]))
    return lines


def _too_sharp(results: Results) -> list[str]:
    found = [
        f"{MODELS[model]}, {title[0].lower()}{title[1:]}, {SHARPNESS[measure]}: {_interval(factor)}"
        for kind, title in KINDS.items()
        for model, of_model in results.models.items()
        for measure, factor in getattr(of_model, kind).ratios.items()
        if factor.low > 1
    ]
    if not found:
        return ["None of them is sharper than real images are."]
    return [
        "Sharper than real images, which is no gain, are, as times their value:",
        "",
        *(f"- {line}" for line in found),
    ]


def _cost(results: Results) -> list[str]:
    against: tuple[Model, Model] = ("conv-vae", "multistage-vae")
    lines = ["Distance of reconstructions to their originals; the VAE is trained on l2, the last stage on l1.", ""]
    lines += table_head(["", *(f"{MODELS[first]} to {MODELS[second]}" for first, second in (*CLAIM, against))])
    for measure, name in DISTANCE.items():
        steps = [_difference(results, "reconstructed", pair, measure) for pair in (*CLAIM, against)]
        lines.append(table_row([name, *(_step(step, "farther", "closer", shown=True) for step in steps)]))
    return lines


def _origin(results: Results) -> list[str]:
    measures = [f"{name}, {kind}" for kind in ("redrawn", "prior") for name in SHARPNESS.values()]
    lines = ["## How it was made", "", *table_head(["", "seed", "steps", "minutes of training", *measures])]
    for run in results.runs:
        means = [f"{of_kind[measure]:.4g}" for of_kind in (run.reconstructed, run.prior) for measure in SHARPNESS]
        lines.append(table_row([MODELS[run.model], str(run.seed), str(run.steps), f"{run.seconds / 60:.1f}", *means]))
    return [*lines, "", *settings_rows(results.settings)]


def _measured_row(name: str, measured: Measured, measures: Mapping[str, str]) -> str:
    cells = []
    for measure in measures:
        cell = _interval(measured.means[measure]) if measure in measured.means else ""
        factor = measured.ratios.get(measure)
        cells.append(cell + (f"<br>{_interval(factor)} of real" if factor else ""))
    return table_row([name, *cells])


def _difference(results: Results, kind: str, pair: tuple[Model, Model], measure: str) -> Estimate | None:
    for comparison in results.comparisons:
        if (comparison.first, comparison.second) == pair:
            found: Estimate = getattr(comparison, kind)[measure]
            return found
    return None


def _step(found: Estimate | None, rise: str, fall: str, shown: bool = False) -> str:
    if found is None:
        return "not measured yet"
    word = rise if found.low > 0 else fall if found.high < 0 else "not told apart"
    return f"{word}, {_signed(found)}" if shown else word


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + [names[-1]])


def _interval(found: Estimate) -> str:
    return f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g})"


def _signed(found: Estimate) -> str:
    return f"{found.value:+.3g} ({found.low:+.3g} to {found.high:+.3g})"


def _reconstructed(runs: Sequence[Values], real: Values) -> Measured:
    stacked = _stacked(runs)
    ratios = {}
    for measure, originals in real.items():
        values, target = stacked[measure], originals.mean()
        factor = values.mean() / target
        # Linear in both means, so that an image that is sharp itself, and redrawn so, widens nothing.
        ratios[measure] = crossed_mean(factor + (values - factor * originals) / target)
    return Measured(means={measure: crossed_mean(values) for measure, values in stacked.items()}, ratios=ratios)


def _compared(first: Model, second: Model, runs: Sequence[RunValues], models: Mapping[Model, Of]) -> Comparison:
    by_seed = [{run.seed: run for run in runs if run.model == model} for model in (first, second)]
    shared = [seed for seed in by_seed[0] if seed in by_seed[1]]
    less, more = (_stacked([of_model[seed].stages[-1] for seed in shared]) for of_model in by_seed)
    return Comparison(
        first=first,
        second=second,
        reconstructed={measure: crossed_mean(more[measure] - less[measure]) for measure in more},
        prior={
            measure: difference(mean, models[first].prior.means[measure])
            for measure, mean in models[second].prior.means.items()
        },
    )


def _stacked(runs: Sequence[Values]) -> Values:
    return {measure: torch.stack([run[measure] for run in runs]) for measure in runs[0]}
