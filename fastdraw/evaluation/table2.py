"""Table II of paper 000: how many drawn numbers a classifier reads as they were asked for, of three models.

The counts are kept as JSON, and the table is rendered from them, so that figures and text cannot drift apart.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator
from scipy.stats import norm

from fastdraw.evaluation.kept import Part, settings_rows, table_head, table_row
from fastdraw.evaluation.reader import Accuracy, proportion

Model = Literal["rnnDRAW", "seqDRAW", "seqDRAW-cur"]
Length = Annotated[int, Field(ge=1)]

# In %, of lengths 1, 2 and 3.
PAPER: Mapping[Model, Sequence[float]] = {
    "rnnDRAW": (81.25, 7.55, 6.60),
    "seqDRAW": (81.02, 7.66, 6.50),
    "seqDRAW-cur": (81.65, 7.82, 6.80),
}
PAPER_CLASSIFIER = 78
SOURCE = (
    "Sun, Xu, Deng and Tan, Multi-digit Image Synthesis Using Recurrent Conditional Variational Autoencoder, Table II: "
    "SVHN, of test images that were reconstructed; how many runs, and whether the length was predicted, it does not say"
)
MEASURES = {
    "predicted_length": "length and all digits",
    "given_length": "all digits, length given",
    "digits": "each digit, length given",
}
DRAWN = {"prior": "Samples from the prior", "reconstructed": "Reconstructions of test images"}


class Counts(Part):
    """How many of `images` images of one length were read right.

    Attributes:
        predicted_length: the length that the classifier saw, and all digits.
        given_length: all digits, the length being told.
        digits: of all their digits, the length being told.
    """

    images: int = Field(ge=1)
    predicted_length: int = Field(ge=0)
    given_length: int = Field(ge=0)
    digits: int = Field(ge=0)


class RunCounts(Part):
    """One trained model: its seed, steps and seconds of training, and counts by length for `DRAWN`."""

    model: Model
    seed: int
    steps: int
    seconds: float
    prior: dict[Length, Counts]
    reconstructed: dict[Length, Counts]


class Results(Part):
    """What Table II is made of.

    Attributes:
        data: what was trained on, as it is to stand in the heading.
        classifier: counts on real held-out images, by length.
        settings: of each model, as sections of values.
        runs: of all models and seeds.
    """

    data: str
    classifier: dict[Length, Counts]
    settings: dict[Model, dict[str, Any]]
    runs: list[RunCounts] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> "Results":
        kinds = {"classifier": self.classifier}
        for run in self.runs:
            name = f"{run.model}, seed {run.seed}"
            if [(other.model, other.seed) for other in self.runs].count((run.model, run.seed)) > 1:
                raise ValueError(f"{name} is there twice")
            kinds |= {f"{name}, {kind}": getattr(run, kind) for kind in DRAWN}
        for name, by_length in kinds.items():
            if by_length.keys() != self.classifier.keys():
                raise ValueError(f"{name} has lengths {list(by_length)}, the classifier {list(self.classifier)}")
            for length, counts in by_length.items():
                if max(counts.predicted_length, counts.given_length, counts.digits / length) > counts.images:
                    raise ValueError(f"{name}, length {length}: more right than there are among {counts.images} images")
        return self


class Comparison(NamedTuple):
    """How much larger one share is than another, z of the pooled two-proportion test, and its two-sided p."""

    difference: float
    z: float
    p: float


def two_proportions(first: Accuracy, second: Accuracy) -> Comparison | None:
    """Test two shares of independent images; None if all images or none are right, where there is nothing to test."""
    pooled = (first.correct + second.correct) / (first.total + second.total)
    if pooled in (0, 1):
        return None
    error = math.sqrt(pooled * (1 - pooled) * (1 / first.total + 1 / second.total))
    z = (first.value - second.value) / error
    return Comparison(first.value - second.value, z, float(2 * norm.sf(abs(z))))


def render_table2(results: Results) -> str:
    """The results as Markdown: the classifier first, then drawings beside the paper's figures, then how it was made."""
    lengths = sorted(results.classifier)
    heads = [f"L = {length}" for length in lengths]
    lines = [
        f"# Table II on {results.data}",
        "",
        "Shares of images that a classifier reads right, with 95 % Wilson intervals. Drawings of all seeds are pooled;",
        "*seeds* is the range over single ones: it says more than an interval about what another training run gives.",
        "Intervals take all drawings, and all digits of one, for independent. Those of reconstructions are too narrow,",
        "as every run redraws the same test images.",
        "",
        "## The classifier on real held-out images",
        "",
        f"The paper's reads {PAPER_CLASSIFIER} % of its test images. Its mistakes count against the drawings too.",
        "",
        *table_head(
            ["", *(f"{head} ({results.classifier[n].images} images)" for head, n in zip(heads, lengths, strict=True))]
        ),
    ]
    for measure, title in MEASURES.items():
        lines.append(table_row([title, *(_percent(_pooled([results.classifier[n]], n, measure)) for n in lengths)]))
    for kind, title in DRAWN.items():
        lines += ["", f"## {title}", "", *table_head(["model", "read right", *heads])]
        for model in _models(results):
            lines += _model_rows(results, model, kind, lengths)
    lines += [
        "",
        f"Paper: {SOURCE}.",
        "",
        *_comparison(results, lengths),
        "",
        "## How it was made",
        "",
        *table_head(["model", "seed", "steps", "minutes of training"]),
        *(table_row([run.model, str(run.seed), str(run.steps), f"{run.seconds / 60:.1f}"]) for run in results.runs),
        "",
        *settings_rows(results.settings),
    ]
    return "\n".join(lines) + "\n"


def _models(results: Results) -> list[Model]:
    return [model for model in PAPER if any(run.model == model for run in results.runs)]


def _model_rows(results: Results, model: Model, kind: str, lengths: Sequence[int]) -> list[str]:
    runs = [getattr(run, kind) for run in results.runs if run.model == model]
    rows = []
    for measure, title in MEASURES.items():
        cells = []
        for length in lengths:
            single = [_pooled([run[length]], length, measure).value for run in runs]
            cells.append(
                f"{_percent(_pooled([run[length] for run in runs], length, measure))}"
                f"<br>seeds {100 * min(single):.1f} to {100 * max(single):.1f}"
            )
        rows.append(table_row([f"**{model}**", title, *cells]))
    paper = dict(enumerate(PAPER[model], 1))
    rows.append(
        table_row([model, "*the paper's, on SVHN*", *(f"{paper[n]:.2f} %" if n in paper else "" for n in lengths)])
    )
    return rows


def _comparison(results: Results, lengths: Sequence[int]) -> list[str]:
    lines = [
        "## seqDRAW-cur against rnnDRAW",
        "",
        "Length and all digits: the difference of the pooled shares in points, and z and p of the two-proportion test.",
        "The test takes every drawing for independent, which reconstructions of the same test images are not, and",
        "knows nothing of the spread between training runs.",
        "",
        *table_head(["", *(f"L = {length}" for length in lengths)]),
    ]
    for kind, title in DRAWN.items():
        cells = []
        for length in lengths:
            shares = [
                _pooled([getattr(run, kind)[length] for run in results.runs if run.model == model], length)
                for model in ("seqDRAW-cur", "rnnDRAW")
                if model in _models(results)
            ]
            test = two_proportions(*shares) if len(shares) == 2 else None
            cells.append(f"{100 * test.difference:+.1f}, z = {test.z:.2f}, p = {test.p:.2g}" if test else "no test")
        lines.append(table_row([title, *cells]))
    return lines


def _pooled(counts: Sequence[Counts], length: int, measure: str = "predicted_length") -> Accuracy:
    total = sum(part.images for part in counts) * (length if measure == "digits" else 1)
    return proportion(sum(getattr(part, measure) for part in counts), total)


def _percent(share: Accuracy) -> str:
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"
