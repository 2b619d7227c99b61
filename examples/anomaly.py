"""Anomaly detection (paper 004, section 7): one digit is never trained on, and is to be told from the other nine.

    python examples/anomaly.py --digit 1 --out anomaly
    python examples/anomaly.py --root DIR --download --digit 0 1 2 3 4 5 6 7 8 9 --out anomaly

A VAE is trained on nine digits. Every test image of all ten is then scored; the higher a score, the less the image is
taken for one of the nine:

    -ELBO                 the negative bound on log p(x), with its two parts: reconstruction, -log p(x | z), and KL
    importance-weighted   the tighter bound of as many samples of z
    -ELBO - H(x)          the same above the entropy of the grey pixels: the reconstruction term is a cross-entropy of
                          them, and is never below that, whatever the model
    PCA, ink              without a deep model: the squared error of a PCA of as many dimensions that was fitted to the
                          nine digits, and the sum of the pixels

For each digit left out and each score, results.json and table.md have the area under the ROC curve, with DeLong's 95 %
interval over the test images of one trained model: 0.5 is chance; below it, the left-out digit passes for more normal
than the digits that were trained on. roc.png has the curves, scores.png the negative bounds of both kinds of images,
extremes.png the images with the lowest and the highest.

Without --root it uses the digits in the package. Run again, it goes on with the models that are in OUT.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from PIL import ImageDraw
from sklearn.decomposition import PCA
from sklearn.metrics import roc_curve
from torch import Tensor

from fastdraw.cli.arguments import Parser, count, device_argument, folder, seed_argument
from fastdraw.data import Batch, LabelledImages, load_mnist_images
from fastdraw.errors import FastdrawError
from fastdraw.evaluation import bounds_by_image
from fastdraw.evaluation.intervals import roc_area
from fastdraw.evaluation.pages import set_page, to_tile
from fastdraw.evaluation.pictures import WRITE, write_png
from fastdraw.evaluation.plots import COLOURS, TEST, TRAIN, write_figure
from fastdraw.files import write_atomically
from fastdraw.models import Model
from fastdraw.training import Settings, load_model, resolve, train_or_resume
from fastdraw.training.bound import noise_for, repeat

# A short run of the preset: its own 300 epochs at a tenth of this rate take an hour.
SHORT = {"optimiser.lr": 1e-3, "optimiser.schedule": "cosine", "evaluate_every": 500, "checkpoint_every": 500}
SCORES = {
    "bound": "−ELBO",
    "nll": "reconstruction",
    "kl": "KL",
    "importance": "importance-weighted",
    "excess": "−ELBO − H(x)",
    "pca": "PCA",
    "ink": "ink",
}
SEED = 0
BATCH = 100
SHOWN = 10
TILE = 56

Array = npt.NDArray[np.float64]


def main(argv: Sequence[str]) -> None:
    """Train without each of the digits in turn, score the test images, and write what came of it."""
    parser = Parser(prog="anomaly.py", description=__doc__)
    parser.add_argument(
        "--digit",
        metavar="DIGIT",
        type=int,
        nargs="+",
        choices=range(10),
        default=[1],
        help="to leave out, each in a run of its own (default: 1)",
    )
    parser.add_argument("--steps", metavar="INT", type=count, default=2000, help="of training (default: %(default)s)")
    parser.add_argument(
        "--samples", metavar="INT", type=count, default=16, help="of z for each score (default: %(default)s)"
    )
    seed_argument(parser, of="weights, batches and noise of training")
    parser.add_argument("--root", metavar="DIR", type=folder, help="folder that holds MNIST/raw/ (default: the sample)")
    parser.add_argument("--download", action="store_true", help="fetch MNIST into the root first where it is missing")
    parser.add_argument("--threads", metavar="INT", type=count, help="CPU threads (default: PyTorch's choice)")
    device_argument(parser)
    parser.add_argument("--out", metavar="DIR", type=folder, default=Path("anomaly"), help="default: %(default)s")
    args = parser.parse_args(argv)
    if len(set(args.digit)) < len(args.digit):
        raise FastdrawError(f"--digit must name each digit once, got {' '.join(map(str, args.digit))}")
    values = {"data.root": args.root, "data.download": args.download, "steps": args.steps, "seed": args.seed}
    values |= {"threads": args.threads, "device": args.device}
    settings = {digit: resolve("vae-mnist", SHORT | values | {"data.leave_out": (digit,)}) for digit in args.digit}
    train, test = (load_mnist_images(args.root, split, args.download) for split in ("train", "test"))
    for digit in args.digit:
        check(test, digit)

    args.out.mkdir(parents=True, exist_ok=True)
    scores, runs = {}, {}
    for digit in args.digit:
        run = args.out / f"without-{digit}"
        print(f"without the digit {digit}: {run}", flush=True)
        train_or_resume(settings[digit], run)
        model, _ = load_model(run, args.device)
        scores[digit] = model_scores(model, test, args.samples) | plain_scores(train, test, digit, model.config.latent)
        runs[str(digit)] = judge(scores[digit], test, digit)
    results = {"samples": args.samples, "without": runs, "settings": shown(settings[args.digit[0]])}
    draw_curves(scores, test, args.out / "roc.png")
    draw_scores(scores, test, args.out / "scores.png")
    draw_extremes(scores, test, args.out / "extremes.png")
    write_atomically(args.out / "results.json", (json.dumps(results, indent=2, allow_nan=False) + "\n").encode())
    write_atomically(args.out / "table.md", table(results).encode())
    print(f"wrote table.md, results.json, roc.png, scores.png and extremes.png to {args.out}")


def check(test: LabelledImages, digit: int) -> None:
    """Raises: FastdrawError: the test images are too few for an interval of the area under an ROC curve."""
    left_out = int((test.labels == digit).sum())
    if min(left_out, len(test) - left_out) < 2:
        raise FastdrawError(
            f"of {len(test)} test images {left_out} are of the digit {digit}: an ROC curve needs at least 2 that are "
            f"and 2 that are not"
        )


@torch.no_grad()
def model_scores(model: Model, images: LabelledImages, samples: int) -> dict[str, Array]:
    """What a model says of each image (N,), in nats, over samples of z: the negative bound, its two parts, the
    importance-weighted bound, and what the negative bound is above the entropy of the pixels.

    Of grey pixels the reconstruction term is a cross-entropy, which is never below that entropy, whatever the model.
    """
    generator = torch.Generator().manual_seed(SEED)
    terms = []
    for batch in batches(images):
        image, labels, lengths = repeat(batch, samples)
        noise = noise_for(model, labels, generator)
        output = model(*(tensor.to(noise.device) for tensor in (image, labels, lengths)), noise)
        terms.append(torch.stack([output.nll, output.kl.sum(0)]).view(2, -1, samples).double().mean(2).cpu())
    nll, kl = torch.cat(terms, dim=1).numpy()
    importance = bounds_by_image(model, batches(images), samples).numpy()
    pixels = images.images.flatten(1).double() / 255
    entropy = (torch.special.entr(pixels) + torch.special.entr(1 - pixels)).sum(1).numpy()
    return {"bound": nll + kl, "nll": nll, "kl": kl, "importance": importance, "excess": nll + kl - entropy}


def plain_scores(train: LabelledImages, test: LabelledImages, digit: int, size: int) -> dict[str, Array]:
    """What needs no deep model, of each test image (N,): the squared error of a PCA of that size that was fitted to the
    nine digits, and the sum of the pixels."""
    normal, pixels = flat(train.images[train.labels[:, 0] != digit]), flat(test.images)
    pca = PCA(min(size, *normal.shape), random_state=SEED).fit(normal)
    error = pixels - pca.inverse_transform(pca.transform(pixels))
    return {"pca": np.square(error).sum(1, dtype=np.float64), "ink": pixels.sum(1, dtype=np.float64)}


def judge(scores: Mapping[str, Array], test: LabelledImages, digit: int) -> dict[str, Any]:
    """How many test images there are of both kinds, and the area under the ROC curve of every score."""
    left_out = is_left_out(test, digit)
    areas = {name: roc_area(score[left_out], score[~left_out])._asdict() for name, score in scores.items()}
    return {"left_out": int(left_out.sum()), "normal": int((~left_out).sum()), "areas": areas}


def table(results: Mapping[str, Any]) -> str:
    """results.json as a page in Markdown."""
    without, settings = results["without"], results["settings"]
    lines = [
        f"Area under the ROC curve with its 95 % interval (DeLong), by the digit that was left out of training "
        f"({settings['steps']} steps of {settings['batch_size']} images, seed {settings['seed']}; "
        f"{results['samples']} samples of z for each image):",
        "",
        f"| left out | its test images | {' | '.join(SCORES.values())} |",
        "|---|---|" + "---|" * len(SCORES),
    ]
    for digit, run in without.items():
        cells = [f"{area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f})" for area in run["areas"].values()]
        lines.append(f"| {digit} | {run['left_out']} of {run['left_out'] + run['normal']} | {' | '.join(cells)} |")
    if len(without) > 1:
        means = [np.mean([run["areas"][name]["value"] for run in without.values()]) for name in SCORES]
        lines.append(f"| mean | | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return "\n".join(lines) + "\n"


def draw_curves(scores: Mapping[int, Mapping[str, Array]], test: LabelledImages, path: Path) -> None:
    """Write the ROC curves of every score, a panel for each digit that was left out."""
    figure, panels = set_panels(scores, (3.2, 4))
    for (digit, of_digit), axes in zip(scores.items(), panels, strict=True):
        left_out = is_left_out(test, digit)
        for (name, score), colour in zip(of_digit.items(), (*COLOURS, "0.5"), strict=True):
            false, true, _ = roc_curve(left_out, score)
            area = roc_area(score[left_out], score[~left_out]).value
            axes.plot(false, true, color=colour, linewidth=1.2, label=f"{SCORES[name]} {area:.3f}")
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        axes.set(title=f"left out: {digit}", xlabel="normal images above", ylabel="left-out images above", box_aspect=1)
        axes.legend(frameon=False, fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    write_figure(figure, path)


def draw_scores(scores: Mapping[int, Mapping[str, Array]], test: LabelledImages, path: Path) -> None:
    """Write histograms of the negative bound, a panel for each digit that was left out."""
    figure, panels = set_panels(scores, (2.6, 2.6))
    for (digit, of_digit), axes in zip(scores.items(), panels, strict=True):
        left_out, bound = is_left_out(test, digit), of_digit["bound"]
        bins = np.linspace(bound.min(), np.quantile(bound, 0.995), 50)
        for chosen, colour, label in ((~left_out, TRAIN, "the other nine"), (left_out, TEST, f"the digit {digit}")):
            axes.hist(bound[chosen], bins, density=True, color=colour, alpha=0.6, label=label)
        axes.set(title=f"left out: {digit}", xlabel="−ELBO in nats", yticks=[])
        axes.legend(frameon=False, fontsize=7)
    write_figure(figure, path)


def draw_extremes(scores: Mapping[int, Mapping[str, Array]], test: LabelledImages, path: Path) -> None:
    """Write the test images with the lowest and the highest negative bound; a box is around left-out digits."""
    rows, labels = [], []
    for digit, of_digit in scores.items():
        order = np.argsort(of_digit["bound"])
        for name, chosen in ((f"{digit}: lowest", order[:SHOWN]), (f"{digit}: highest", order[::-1][:SHOWN])):
            tiles = [to_tile(test.images[place] / 255, TILE) for place in chosen]
            for tile, place in zip(tiles, chosen, strict=True):
                if test.labels[place, 0] == digit:
                    ImageDraw.Draw(tile).rectangle((0, 0, tile.width - 1, tile.height - 1), outline=WRITE, width=3)
            rows.append(tiles)
            labels.append(name)
    page = set_page(
        rows, labels=labels, footer="test images by their negative bound", legend={"digit that was left out": WRITE}
    )
    write_png(page, path)


def batches(images: LabelledImages) -> Iterator[Batch]:
    """Every image once, in order."""
    for start in range(0, len(images), BATCH):
        rows = slice(start, start + BATCH)
        yield Batch(images.images[rows] / 255, images.labels[rows], images.lengths[rows])


def flat(images: Tensor) -> npt.NDArray[np.float32]:
    """Images (N, C, H, W) uint8 as vectors of values in [0, 1]."""
    return (images.flatten(1) / 255).numpy()


def is_left_out(test: LabelledImages, digit: int) -> npt.NDArray[np.bool_]:
    return (test.labels[:, 0] == digit).numpy()


def shown(settings: Settings) -> dict[str, Any]:
    """The settings but for those that differ from digit to digit or from user to user."""
    return settings.model_dump(mode="json", exclude={"data": {"root", "download", "leave_out"}})


def set_panels(scores: Mapping[int, Any], inches: tuple[float, float]) -> tuple[Figure, list[Any]]:
    """A figure with a panel of so many inches for each digit, five in a row."""
    columns = min(5, len(scores))
    rows = -(-len(scores) // columns)
    figure = Figure((inches[0] * columns, inches[1] * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels[len(scores) :]:
        axes.axis("off")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(panels[: len(scores)])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (FastdrawError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on from here")
