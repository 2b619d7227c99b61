"""Compression (paper 004, section 7): what a beta-VAE keeps of a digit, by the bits that it spends.

    python examples/compression.py --out compression
    python examples/compression.py --runs TABLE1 --out compression     # TABLE1: --out of fastdraw reproduce table1

A VAE is trained for each beta, or those of Table 1 with n = 64 are taken. For each, on test images:

    rate          the KL of q(z | x) from the prior. Where sender and receiver share random numbers, one sample of
                  q(z | x) can be sent in little more bits than that (Harsha et al. 2010); and where x itself is sent
                  after z, the bits of z beyond the KL come back (bits-back: Hinton and van Camp 1993). Nothing is sent.
    distortion    of what the decoder makes of that sample: -log p(x | z), mean squared error, PSNR
    a real coder  the mean of q(z | x), rounded to multiples of a step and written by asymmetric numeral systems with
                  the frequencies that the multiples have over training images, 50 images to a file; read and decoded
                  again. A dimension's step is a multiple of the standard deviation of q over training images; at
                  sqrt(12) rounding is as strong a noise as sampling.

Beside them, of the same images: a PCA of as many dimensions through the same coder; JPEG, of each image, where the
header alone is longer than a coded digit, and of all images on one sheet; without loss PNG, likewise, and zlib of all
pixels together. The weights and frequencies of VAE and PCA are not counted: the receiver has them.

Writes rate_distortion.png, reconstructions.png, results.json and table.md. Without --root it uses the digits in the
package. Run again, it goes on with the models that are in OUT.
"""

import io
import json
import math
import sys
import zlib
from argparse import Namespace
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor

from fastdraw import ops
from fastdraw.cli.arguments import Parser, UsageError, count, device_argument, folder, seed_argument, within
from fastdraw.data import load_mnist_images
from fastdraw.errors import FastdrawError
from fastdraw.evaluation.intervals import mean
from fastdraw.evaluation.pictures import image_rows
from fastdraw.evaluation.plots import COLOURS, write_figure
from fastdraw.files import write_atomically
from fastdraw.models import Vae
from fastdraw.training import Run, load_model, resolve, train_or_resume

# A short run of the preset: its own 300 epochs at a tenth of this rate take an hour.
SHORT = {"optimiser.lr": 1e-3, "optimiser.schedule": "cosine", "evaluate_every": 500, "checkpoint_every": 500}
SHORT_STEPS = 2000
BETAS = (0.1, 0.5, 1.0, 2.0, 10.0)
STEPS = (1.0, 2.0, math.sqrt(12))  # in standard deviations of q; with the last, rounding is as noisy as sampling
PCA_STEPS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
QUALITIES = (1, 10, 30, 60, 90)
FITTED = 10_000  # training images that the coders are fitted to
GROUP = 50  # images in a file of the coder
COLUMNS = 50  # of images on a sheet
SEED = 0
SHOWN = 10

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Point = dict[str, Any]  # a rate and its distortion


def main(argv: Sequence[str]) -> None:
    """Train or load a VAE for each beta, measure them and what they are compared with, and write what came of it."""
    parser = Parser(prog="compression.py", description=__doc__)
    parser.add_argument("--runs", metavar="DIR", type=folder, help="take the runs n64-beta* that are there")
    betas = " ".join(f"{beta:g}" for beta in BETAS)
    parser.add_argument("--beta", metavar="FLOAT", type=float, nargs="+", help=f"to train with (default: {betas})")
    parser.add_argument("--steps", metavar="INT", type=count, help=f"of training (default: {SHORT_STEPS})")
    parser.add_argument(
        "--images", metavar="INT", type=within(2, 10_000), default=2000, help="to test on (default: %(default)s)"
    )
    seed_argument(parser, of="weights, batches and noise of training")
    parser.add_argument(
        "--root", metavar="DIR", type=folder, help="folder that holds MNIST/raw/ (default: the runs', or the sample)"
    )
    parser.add_argument("--download", action="store_true", help="fetch MNIST into the root first where it is missing")
    parser.add_argument("--threads", metavar="INT", type=count, help="CPU threads (default: PyTorch's choice)")
    device_argument(parser)
    parser.add_argument("--out", metavar="DIR", type=folder, default=Path("compression"), help="default: %(default)s")
    args = parser.parse_args(argv)
    if args.runs and (args.beta or args.steps):
        raise UsageError("--runs takes runs that are trained: leave out --beta and --steps, or --runs")
    if args.threads:
        torch.set_num_threads(args.threads)

    runs = find_runs(args.runs) if args.runs else train_runs(args)
    args.out.mkdir(parents=True, exist_ok=True)  # before minutes of measuring
    results, rows = measure(runs, args)
    draw_curves(results, args.out / "rate_distortion.png")
    image_rows({name: image[:SHOWN] for name, image in rows.items()}, args.out / "reconstructions.png")
    write_atomically(args.out / "results.json", (json.dumps(results, indent=2, allow_nan=False) + "\n").encode())
    write_atomically(args.out / "table.md", table(results).encode())
    print(f"wrote table.md, results.json, rate_distortion.png and reconstructions.png to {args.out}")


def find_runs(where: Path) -> list[Path]:
    """The folders of Table 1's runs with n = 64."""
    found = [path for path in where.glob("n64-beta*") if path.is_dir()]
    if not found:
        raise FastdrawError(f"{where} holds no folder n64-beta*: give the --out folder of fastdraw reproduce table1")
    return found


def train_runs(args: Namespace) -> list[Path]:
    """Train with each beta, or go on with it, and return the folders of the runs."""
    values = {"data.root": args.root, "data.download": args.download, "steps": args.steps or SHORT_STEPS}
    values |= SHORT | {"seed": args.seed, "threads": args.threads, "device": args.device}
    betas = args.beta or BETAS
    settings = {args.out / f"n64-beta{beta:g}": resolve("vae-mnist", values | {"beta": beta}) for beta in betas}
    if len(settings) < len(betas):
        raise UsageError(f"--beta must be numbers that differ in six digits, got {' '.join(map(str, betas))}")
    for run, of_run in settings.items():
        print(f"training with beta {of_run.beta:g}: {run}", flush=True)
        train_or_resume(of_run, run)
    return list(settings)


def measure(runs: Sequence[Path], args: Namespace) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What results.json holds, and what some of the codes make of the test images, under their names."""
    loaded = sorted(((run, *load_model(run, args.device)) for run in runs), key=lambda found: found[2].beta)
    for run, model, settings in loaded:
        if not isinstance(model, Vae) or settings.data.source != "digits":
            raise FastdrawError(f"{run} is no run of a VAE on single digits: give runs of the preset vae-mnist")
    data = settings.data.at(args.root)
    fitted, tested = (load_mnist_images(data.root, split, args.download).images for split in ("train", "test"))
    train, test = fitted[:FITTED] / 255, tested[: args.images] / 255

    vaes, rows = [], {"data": test}
    for run, model, settings in loaded:
        print(f"measuring beta {settings.beta:g}: {run}", flush=True)
        of_model, image = measure_vae(model, train, test)
        vaes.append({"beta": settings.beta, "steps": Run.open(run).metrics()[-1]["step"], **of_model})
        rows[caption(f"beta {settings.beta:g}", of_model["coded"][-1])] = image

    print("measuring what they are compared with", flush=True)
    size, rate = settings.model.latent, vaes[len(vaes) // 2]["coded"][-1]["bits"]
    pca, sheets = measure_pca(train, test, size), measure_jpeg(test, len(test))
    nearest, image = min(pca, key=lambda found: abs(found[0]["bits"] - rate))
    rows |= {caption("PCA", nearest): image, caption("JPEG sheet", sheets[0][0]): sheets[0][1]}
    lossy = {
        f"PCA of {size}, same coder": pca,
        "JPEG, one sheet": sheets,
        "JPEG, a file each": measure_jpeg(test, 1),
    }
    return {
        "images": len(test),
        "pixels": test[0].numel(),
        "vae": vaes,
        "lossy": {name: [point for point, _ in found] for name, found in lossy.items()},
        "lossless": measure_lossless(test),
        "settings": settings.model_dump(mode="json", exclude={"beta": True, "data": {"root", "download"}}),
    }, rows


class Coder:
    """Rounds vectors (N, Z) to multiples of a step in each dimension, and writes the multiples as bytes.

    A multiple costs -log2 of its frequency over the vectors that the coder is fitted to, each counted once more than it
    came; one that lies beyond all of these is moved to the nearest of them.

    Args:
        vectors (M, Z): to fit to.
        step: one for all dimensions, or one for each (Z,).
    """

    def __init__(self, vectors: Floats, step: float | Floats) -> None:
        multiples = np.rint(vectors / step).astype(np.int64)
        self.step, self.low, self.high = step, multiples.min(0), multiples.max(0)
        self.counts = [(np.bincount(column) + 1).tolist() for column in (multiples - self.low).T]
        self.starts = [[0, *accumulate(counts)] for counts in self.counts]

    def symbols(self, vectors: Floats) -> Integers:
        """Multiples (N, Z), counted from the lowest of each dimension."""
        return np.clip(np.rint(vectors / self.step).astype(np.int64), self.low, self.high) - self.low

    def vectors(self, symbols: Integers) -> Floats:
        """The rounded vectors (N, Z)."""
        return (symbols + self.low) * self.step

    def encode(self, symbols: Integers) -> bytes:
        """Asymmetric numeral systems (Duda 2013) with one whole number of any size as the state."""
        state = 1
        for row in reversed(symbols.tolist()):
            for symbol, counts, starts in zip(reversed(row), reversed(self.counts), reversed(self.starts), strict=True):
                whole, rest = divmod(state, counts[symbol])
                state = whole * starts[-1] + starts[symbol] + rest
        return state.to_bytes((state.bit_length() + 7) // 8, "big")

    def decode(self, data: bytes, number: int) -> Integers:
        """The symbols (number, Z) that were encoded."""
        state, rows = int.from_bytes(data, "big"), []
        for _ in range(number):
            row = []
            for counts, starts in zip(self.counts, self.starts, strict=True):
                whole, rest = divmod(state, starts[-1])
                symbol = bisect_right(starts, rest) - 1
                state = whole * counts[symbol] + rest - starts[symbol]
                row.append(symbol)
            rows.append(row)
        return np.asarray(rows, np.int64)


def send(coder: Coder, vectors: Floats) -> tuple[float, Floats]:
    """Write vectors (N, Z) to files and read them: the bits of a vector, and what was read."""
    symbols = coder.symbols(vectors)
    groups = [symbols[start : start + GROUP] for start in range(0, len(symbols), GROUP)]
    files = [coder.encode(group) for group in groups]
    read = np.concatenate([coder.decode(data, len(group)) for data, group in zip(files, groups, strict=True)])
    return 8 * sum(map(len, files)) / len(vectors), coder.vectors(read)


@torch.no_grad()
def measure_vae(model: Vae, train: Tensor, test: Tensor) -> tuple[dict[str, Any], Tensor]:
    """Rate and distortion of samples of q(z | x) and of the coder, and what this decodes at the last of its steps.

    Args:
        train, test (N, C, H, W): in [0, 1].
    """
    (train_mu, train_log_sigma), (mu, log_sigma) = (model.posterior(x.to(model.device)) for x in (train, test))
    noise = torch.randn(mu.shape, generator=torch.Generator().manual_seed(SEED)).to(mu.device)
    z, kl = ops.sample_kl(mu, log_sigma, noise)
    bits = mean(kl / math.log(2))
    sampled = {"bits": bits.value, "interval": bits[1:3], **decoded_from(model, z, test)[0]}

    sigma = train_log_sigma.double().exp().square().mean(0).sqrt().cpu().numpy()
    coded = []
    for step in STEPS:
        cost, vectors = send(Coder(train_mu.double().cpu().numpy(), step * sigma), mu.double().cpu().numpy())
        distortion, image = decoded_from(model, torch.from_numpy(vectors).to(mu), test)
        coded.append({"step": step, "bits": cost, **distortion})
    return {"sampled": sampled, "coded": coded}, image


def decoded_from(model: Vae, z: Tensor, test: Tensor) -> tuple[Point, Tensor]:
    """The distortion of what a model decodes z (N, Z) to, and those images (N, C, H, W)."""
    canvas = model.decode(z)[-1]
    nll = mean(model.negative_log_likelihood(canvas, test.to(canvas.device)))
    image = model.expected(canvas).cpu()
    return {"nll": nll.value, "nll_interval": nll[1:3], **distortion_of(image, test)}, image


def measure_pca(train: Tensor, test: Tensor, size: int) -> list[tuple[Point, Tensor]]:
    """Rate and distortion of a PCA that is fitted to the training images, through the same coder at several steps, and
    what it decodes."""
    fitted, pixels = (images.flatten(1).double().numpy() for images in (train, test))
    pca = PCA(min(size, *fitted.shape), random_state=SEED).fit(fitted)
    vectors, found = pca.transform(fitted), []
    for step in PCA_STEPS:
        bits, read = send(Coder(vectors, step), pca.transform(pixels))
        image = torch.from_numpy(pca.inverse_transform(read)).float().clamp(0, 1).view_as(test)
        found.append(({"setting": f"step {step:g}", "bits": bits, **distortion_of(image, test)}, image))
    return found


def measure_jpeg(test: Tensor, group: int) -> list[tuple[Point, Tensor]]:
    """Rate and distortion of sheets of so many images at several qualities, and what is decoded."""
    parts, found = test.split(group), []
    for quality in QUALITIES:
        files = [packed(to_sheet(part), "JPEG", quality=quality) for part in parts]
        image = torch.cat([from_sheet(opened(data), part) for data, part in zip(files, parts, strict=True)])
        bits = 8 * sum(map(len, files)) / len(test)
        found.append(({"setting": f"quality {quality}", "bits": bits, **distortion_of(image, test)}, image))
    return found


def measure_lossless(test: Tensor) -> dict[str, float]:
    """Bits of an image where all pixels are kept."""
    sizes = {
        "PNG, one sheet": len(packed(to_sheet(test), "PNG")),
        "PNG, a file each": sum(len(packed(image[0], "PNG")) for image in test),
        "zlib, all together": len(zlib.compress(to_bytes(test).tobytes(), 9)),
    }
    return {name: 8 * size / len(test) for name, size in sizes.items()}


def distortion_of(image: Tensor, test: Tensor) -> Point:
    """Squared error of a pixel, averaged over images (N, C, H, W) in [0, 1], its interval over images, and PSNR in dB,
    100 at most."""
    error = mean((image.double() - test.double()).square().flatten(1).mean(1))
    return {"mse": error.value, "mse_interval": error[1:3], "psnr": -10 * math.log10(max(error.value, 1e-10))}


def to_bytes(image: Tensor) -> npt.NDArray[np.uint8]:
    return (image * 255).round().byte().numpy()


def packed(image: Tensor, kind: str, **options: int) -> bytes:
    """The file of a grey image (H, W)."""
    data = io.BytesIO()
    Image.fromarray(to_bytes(image)).save(data, kind, optimize=True, **options)
    return data.getvalue()


def opened(data: bytes) -> Tensor:
    """The grey image (H, W) of a file."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)))) / 255


def to_sheet(images: Tensor) -> Tensor:
    """Grey images (N, 1, H, W) side by side, in rows; the last row ends in black."""
    columns, (height, width) = min(len(images), COLUMNS), images.shape[2:]
    black = images.new_zeros(-len(images) % columns, 1, height, width)
    tiles = torch.cat([images, black]).view(-1, columns, height, width)
    return tiles.transpose(1, 2).reshape(-1, columns * width)


def from_sheet(sheet: Tensor, like: Tensor) -> Tensor:
    """Images of the shape of `like` (N, 1, H, W) from their sheet."""
    columns, (height, width) = min(len(like), COLUMNS), like.shape[2:]
    tiles = sheet.view(-1, height, columns, width).transpose(1, 2)
    return tiles.reshape(-1, 1, height, width)[: len(like)]


def caption(name: str, point: Mapping[str, float]) -> str:
    return f"{name}: {point['bits']:.0f} bits, {point['psnr']:.1f} dB"


def table(results: Mapping[str, Any]) -> str:
    """results.json as a page in Markdown."""
    pixels = results["pixels"]

    def cells(point: Mapping[str, float], *names: str) -> str:
        shown = {"nll": "{:.1f}", "mse": "{:.4f}", "psnr": "{:.1f}"}
        values = [f"{point['bits']:.1f}", f"{point['bits'] / pixels:.3f}"]
        return " | ".join(values + [shown[name].format(point[name]) for name in names])

    lines = [
        f"Means over {results['images']} test images; 95 % intervals are in results.json. The coder's step is sqrt(12) "
        "standard deviations.",
        "",
        "| beta | steps of training | KL, bits | bits per pixel | −log p(x given z), nats | MSE | PSNR, dB | "
        "coder, bits | bits per pixel | −log p(x given z), nats | MSE | PSNR, dB |",
        "|" + "---|" * 12,
        *(
            f"| {point['beta']:g} | {point['steps']} | {cells(point['sampled'], 'nll', 'mse', 'psnr')} | "
            f"{cells(point['coded'][-1], 'nll', 'mse', 'psnr')} |"
            for point in results["vae"]
        ),
        "",
        "| compared with | | bits | bits per pixel | MSE | PSNR, dB |",
        "|" + "---|" * 6,
        *(
            f"| {name} | {point['setting']} | {cells(point, 'mse', 'psnr')} |"
            for name, points in results["lossy"].items()
            for point in points
        ),
        *(f"| {name} | lossless | {cells({'bits': bits})} | 0 | |" for name, bits in results["lossless"].items()),
    ]
    return "\n".join(lines) + "\n"


def draw_curves(results: Mapping[str, Any], path: Path) -> None:
    """Write distortion against rate: -log p(x | z) of the VAEs, and PSNR beside what they are compared with."""
    pixels, vaes = results["pixels"], results["vae"]
    figure = Figure((12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    sampled = [of_model["sampled"] for of_model in vaes]
    series = {"VAE, KL of a sample": sampled}
    series |= {
        f"VAE, coder, step {step:.1f} sigma": [of_model["coded"][place] for of_model in vaes]
        for place, step in enumerate(STEPS)
    }
    styles = dict(zip(series, ("-o", ":", "--", "-."), strict=True))
    for name, points in series.items():
        rate = [point["bits"] / pixels for point in points]
        for axes, key in ((left, "nll"), (right, "psnr")):
            axes.plot(rate, [point[key] for point in points], styles[name], color=COLOURS[0], markersize=4, label=name)
    for of_model, point in zip(vaes, sampled, strict=True):
        left.annotate(f"  beta {of_model['beta']:g}", (point["bits"] / pixels, point["nll"]), fontsize=8, va="bottom")
    for (name, points), colour in zip(results["lossy"].items(), COLOURS[1:], strict=False):
        rate = [point["bits"] / pixels for point in points]
        right.plot(rate, [point["psnr"] for point in points], "-s", color=colour, markersize=4, label=name)
    for (name, bits), style in zip(results["lossless"].items(), ("-", "--", ":"), strict=True):
        right.axvline(bits / pixels, color="0.6", linestyle=style, linewidth=1, label=f"{name}, lossless")
    right.set_xscale("log")
    left.set(title="beta-VAE", xlabel="bits per pixel", ylabel="$-\\log p(x|z)$, nats per image")
    right.set(title="beside other codes", xlabel="bits per pixel", ylabel="PSNR, dB")
    for axes in (left, right):
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    write_figure(figure, path)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (FastdrawError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on from here")
