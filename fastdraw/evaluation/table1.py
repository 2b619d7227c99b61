"""Table 1 of paper 001: reconstruction loss and KL on MNIST's test set, by the size of z and the weight of the KL.

The losses are kept as JSON, and the page is rendered from them, so that figures and text cannot drift apart.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import Field, model_validator
from torch import Tensor

from fastdraw.evaluation.kept import Part, settings_rows, table_head, table_row
from fastdraw.evaluation.latent import ACTIVE, active_units
from fastdraw.evaluation.losses import Losses

CLOSE = 0.03  # of the paper's figure
MEASURES = {"bce": "BCE", "kl": "KL", "loss": "BCE + beta KL"}
SOURCE = "Xue, Variational Autoencoder for Image Generation, Table 1"


class Row(NamedTuple):
    """A row of the table: the size of z and the weight of the KL."""

    latent: int
    beta: float

    def folder(self, seed: int) -> str:
        """The name of a run's folder."""
        return f"n{self.latent}-beta{self.beta:g}" + (f"-seed{seed}" if seed else "")


class Figures(NamedTuple):
    """Nats per image."""

    bce: float
    kl: float
    loss: float


PAPER: Mapping[Row, Figures] = {
    Row(1, 1): Figures(156.82, 4.22, 161.04),
    Row(2, 1): Figures(137.70, 6.80, 144.49),
    Row(64, 1): Figures(76.23, 23.80, 100.03),
    Row(64, 0.1): Figures(59.18, 77.68, 66.94),
    Row(64, 0.5): Figures(69.50, 34.30, 86.65),
    Row(64, 2): Figures(87.29, 15.46, 118.20),
    Row(64, 10): Figures(143.37, 3.69, 180.22),
}


class Mean(Part):
    """A mean over images in nats, and its standard error."""

    value: float
    error: float = Field(ge=0)


class Split(Part):
    """The losses on one split, each image once with one sample of z; loss is bce + beta kl."""

    images: int = Field(ge=2)
    bce: Mean
    kl: Mean
    loss: Mean


class RunLosses(Part):
    """One trained model.

    Attributes:
        latent, beta: its row.
        seed, epochs, steps, seconds: of its training.
        test, train: losses on the whole of both splits.
        kl_by_dimension: on the test split, the mean of each number of z in nats.
        active: how many numbers of z are active units on the test images.
    """

    latent: int = Field(ge=1)
    beta: float = Field(ge=0)
    seed: int = Field(ge=0)
    epochs: int = Field(ge=1)
    steps: int = Field(ge=1)
    seconds: float = Field(ge=0)
    test: Split
    train: Split
    kl_by_dimension: list[float]
    active: int = Field(ge=0)

    @property
    def row(self) -> Row:
        return Row(self.latent, self.beta)

    @property
    def name(self) -> str:
        return self.row.folder(self.seed)


class Results(Part):
    """What Table 1 is made of.

    Attributes:
        settings: that all runs share, as sections of values.
        versions: of what they were measured with.
        runs: of rows of the table.
    """

    settings: dict[str, Any]
    versions: dict[str, str]
    runs: list[RunLosses] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> "Results":
        for run in self.runs:
            if run.row not in PAPER:
                raise ValueError(f"{run.name} is no row of the table")
            if [other.name for other in self.runs].count(run.name) > 1:
                raise ValueError(f"{run.name} is there twice")
            if len(run.kl_by_dimension) != run.latent or run.active > run.latent:
                raise ValueError(
                    f"{run.name} has {run.latent} numbers of z, not {len(run.kl_by_dimension)} of which {run.active} "
                    f"are active"
                )
            sums = {"kl": (run.test.kl.value, math.fsum(run.kl_by_dimension))}
            for split in ("test", "train"):
                losses: Split = getattr(run, split)
                sums[f"{split} loss"] = (losses.loss.value, losses.bce.value + run.beta * losses.kl.value)
            for name, (value, parts) in sums.items():
                if not math.isclose(value, parts, rel_tol=1e-4):
                    raise ValueError(f"{run.name}: its {name} is {value:g}, and the sum of its parts {parts:g}")
        return self


def split_losses(losses: Losses, beta: float) -> Split:
    """The means over the images of a split."""
    kl = losses.kl.double().sum(1)
    return Split(images=len(kl), bce=_mean(losses.nll), kl=_mean(kl), loss=_mean(losses.nll.double() + beta * kl))


def run_losses(
    row: Row, *, seed: int, epochs: int, steps: int, seconds: float, test: Losses, train: Losses
) -> RunLosses:
    """What is kept of one trained model, from its losses on the images of both splits."""
    return RunLosses(
        latent=row.latent,
        beta=row.beta,
        seed=seed,
        epochs=epochs,
        steps=steps,
        seconds=seconds,
        test=split_losses(test, row.beta),
        train=split_losses(train, row.beta),
        kl_by_dimension=test.kl.double().mean(0).tolist(),
        active=active_units(test.mu[None]),
    )


def difference(ours: float, paper: float) -> float:
    """How much larger a loss is than the paper's, as a share of the paper's."""
    return ours / paper - 1


def verdict(run: RunLosses) -> str:
    """Whether BCE and KL are both within 3 % of the paper's, or the loss is lower at equal beta, which is better."""
    paper = PAPER[run.row]
    close = all(
        abs(difference(mean.value, figure)) <= CLOSE
        for mean, figure in ((run.test.bce, paper.bce), (run.test.kl, paper.kl))
    )
    lower = run.test.loss.value < paper.loss
    if close:
        return "within 3 %" + (", and better" if lower else "")
    return "better" if lower else "missed"


def summary(run: RunLosses) -> str:
    """The losses on the test images beside the paper's, in a line."""
    figures = [
        f"{title} {getattr(run.test, measure).value:.2f} (paper {getattr(PAPER[run.row], measure):.2f})"
        for measure, title in MEASURES.items()
    ]
    return f"{', '.join(figures)}: {verdict(run)}"


def render_table1(results: Results) -> str:
    """The results as Markdown: losses beside the paper's, the gap between train and test, then how it was made."""
    runs = sorted(results.runs, key=lambda run: (list(PAPER).index(run.row), run.seed))
    reached = sum(verdict(run) != "missed" for run in runs)
    lines = [
        "# Table 1 on MNIST",
        "",
        f"Nats per image of the whole test set ({runs[0].test.images} images), each image taken once with one sample",
        "of z: the mean and its standard error over images, then the paper's figure and how far ours is from it. BCE",
        "is summed over the 784 pixels. The goal is a BCE and a KL that are both within 3 % of the paper's, or better:",
        "at equal beta the loss, BCE + beta KL, is what is minimised, so the lower loss is the better model, whichever",
        f"of its parts is higher. **{reached} of {len(runs)} runs reach it.**",
        "",
        *table_head(["n", "beta", "seed", *MEASURES.values(), "goal"]),
        *(table_row([*_of_run(run), *_cells(run), verdict(run)]) for run in runs),
        "",
        f"Paper: {SOURCE}; one figure a cell, seed, number of samples and spread not given.",
        "",
        "## Train and test",
        "",
        f"The loss on all {runs[0].train.images} train images, measured in the same way, and how much larger it is on",
        "the test images. A number of z is active where the variance of its mean over the test images is above",
        f"{ACTIVE:g} (Burda et al. 2016).",
        "",
        *table_head(
            ["n", "beta", "seed", "train BCE", "train KL", "train loss", "test loss", "gap", "active numbers of z"]
        ),
        *(table_row([*_of_run(run), *_gap(run), f"{run.active} of {run.latent}"]) for run in runs),
        "",
        "## How it was made",
        "",
        *table_head(["n", "beta", "seed", "epochs", "steps", "minutes of training"]),
        *(table_row([*_of_run(run), str(run.epochs), str(run.steps), f"{run.seconds / 60:.1f}"]) for run in runs),
        "",
        f"Measured with {', '.join(f'{name} {version}' for name, version in results.versions.items())}.",
        "",
        *settings_rows({"of all runs": results.settings}),
    ]
    return "\n".join(lines) + "\n"


def _mean(values: Tensor) -> Mean:
    values = values.double()
    return Mean(value=values.mean().item(), error=values.std().item() / math.sqrt(len(values)))


def _of_run(run: RunLosses) -> list[str]:
    return [str(run.latent), f"{run.beta:g}", str(run.seed)]


def _cells(run: RunLosses) -> list[str]:
    cells = []
    for measure in MEASURES:
        mean: Mean = getattr(run.test, measure)
        paper: float = getattr(PAPER[run.row], measure)
        apart = difference(mean.value, paper)
        word = "within 3 %" if abs(apart) <= CLOSE else "lower" if apart < 0 else "higher"
        cells.append(f"**{mean.value:.2f}** ± {mean.error:.2f}<br>paper {paper:.2f}<br>{100 * apart:+.1f} %: {word}")
    return cells


def _gap(run: RunLosses) -> list[str]:
    train, test = run.train, run.test
    apart = test.loss.value - train.loss.value
    share = difference(test.loss.value, train.loss.value)
    return [
        *(_shown(mean) for mean in (train.bce, train.kl, train.loss, test.loss)),
        f"{apart:+.2f} ({100 * share:+.1f} %)",
    ]


def _shown(mean: Mean) -> str:
    return f"{mean.value:.2f} ± {mean.error:.2f}"
