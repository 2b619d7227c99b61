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
from fastdraw.cli.arguments import Parser, UsageError, count, device_argument, folder, seed_argument
from fastdraw.data import load_mnist_images
from fastdraw.errors import FastdrawError
from fastdraw.evaluation.intervals import mean
from fastdraw.evaluation.pages import set_page, to_tile
from fastdraw.evaluation.plots import COLOURS
from fastdraw.files import write_atomically
from fastdraw.models import Vae
from fastdraw.training import Run, Settings, load_model, resolve, train_or_resume

# A short run of the preset: its own 300 epochs at a tenth of this rate take an hour.
SHORT = {"optimiser.lr": 1e-3, "optimiser.schedule": "cosine", "evaluate_every": 500, "checkpoint_every": 500}
SHORT_STEPS = 2000
BETAS = (0.1, 0.5, 1.0, 2.0, 10.0)
AS_SAMPLING = math.sqrt(12)
STEPS = (1.0, 2.0, AS_SAMPLING)  # in standard deviations of q
PCA_STEPS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
QUALITIES = (1, 10, 30, 60, 90)
FITTED = 10_000  # training images that the coders are fitted to
GROUP = 50  # images in a file of the coder
COLUMNS = 50  # of images on a sheet
SEED = 0
TILE, SHOWN = 84, 10
DPI = 100

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def main(argv: Sequence[str]) -> None:
    """Train or load a VAE for each beta, measure them and what they are compared with, and write what came of it."""
    parser = Parser(prog="compression.py", description=__doc__)
    parser.add_argument("--runs", metavar="DIR", type=folder, help="take the runs n64-beta* that are there")
    betas = " ".join(f"{beta:g}" for beta in BETAS)
    parser.add_argument("--beta", metavar="FLOAT", type=float, nargs="+", help=f"to train with (default: {betas})")
    parser.add_argument("--steps", metavar="INT", type=count, help=f"of training (default: {SHORT_STEPS})")
    parser.add_argument(
        "--images", metavar="INT", type=count, default=2000, help="test images, at most (default: %(default)s)"
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
    if args.images < 2:
        raise FastdrawError(f"--images must be at least 2, which an interval takes, got {args.images}")
    if args.threads:
        torch.set_num_threads(args.threads)

    if args.runs:
        folders = find_runs(args.runs)
    else:
        values = {"data.root": args.root, "data.download": args.download, "steps": args.steps or SHORT_STEPS}
        values |= {"seed": args.seed, "threads": args.threads, "device": args.device}
        folders = train_all(args.beta or BETAS, SHORT | values, args.out)
    loaded = sorted(((run, *load_vae(run, args.device)) for run in folders), key=lambda found: found[2].beta)
    data = loaded[0][2].data.at(args.root)
    train, test = (load_mnist_images(data.root, split, args.download).images for split in ("train", "test"))
    results, rows = measure_all(loaded, train[:FITTED] / 255, test[: args.images] / 255)

    args.out.mkdir(parents=True, exist_ok=True)
    draw_curves(results, args.out / "rate_distortion.png")
    draw_rows(rows, args.out / "reconstructions.png")
    write_atomically(args.out / "results.json", (json.dumps(results, indent=2, allow_nan=False) + "\n").encode())
    write_atomically(args.out / "table.md", table(results).encode())
    print(f"wrote table.md, results.json, rate_distortion.png and reconstructions.png to {args.out}")


def find_runs(where: Path) -> list[Path]:
    """The folders of Table 1's runs with n = 64.

    Raises:
        FastdrawError: there is none.
    """
    found = [path for path in where.glob("n64-beta*") if path.is_dir()]
    if not found:
        raise FastdrawError(f"{where} holds no folder n64-beta*: give the --out folder of fastdraw reproduce table1")
    return found


def train_all(betas: Sequence[float], values: Mapping[str, Any], out: Path) -> list[Path]:
    """Train with each beta, or go on with it, and return the folders of the runs.

    Raises:
        FastdrawError: a beta is no finite number above 0 or comes twice, or as `train_or_resume`.
    """
    if len(set(betas)) < len(betas) or not all(0 < beta < math.inf for beta in betas):
        raise FastdrawError(f"--beta must be finite numbers above 0, none twice, got {' '.join(map(str, betas))}")
    settings = {out / f"n64-beta{beta:g}": resolve("vae-mnist", {**values, "beta": beta}) for beta in betas}
    for run, of_run in settings.items():
        print(f"training with beta {of_run.beta:g}: {run}", flush=True)
        train_or_resume(of_run, run)
    return list(settings)


def load_vae(run: Path, device: str) -> tuple[Vae, Settings]:
    """Load as `load_model` a VAE of single digits.

    Raises:
        FastdrawError: as `load_model`, or the run is of another kind of model or of other data.
    """
    model, settings = load_model(run, device)
    if not isinstance(model, Vae) or settings.data.source != "digits":
        raise FastdrawError(f"{run} is no run of a VAE on single digits: give runs of the preset vae-mnist")
    return model, settings


def measure_all(
    loaded: Sequence[tuple[Path, Vae, Settings]], train: Tensor, test: Tensor
) -> tuple[dict[str, Any], list[tuple[str, Tensor]]]:
    """What results.json holds, and what some of the codes make of the test images, under their names.

    Args:
        loaded: the folder, model and settings of each run.
        train, test (N, C, H, W): in [0, 1].
    """
    vaes, rows = [], [("data", test)]
    for run, model, settings in loaded:
        print(f"measuring beta {settings.beta:g}: {run}", flush=True)
        of_model, image = measure_vae(model, train, test)
        vaes.append({"beta": settings.beta, "steps": Run.open(run).metrics()[-1]["step"], **of_model})
        rows.append((caption(f"beta {settings.beta:g}", as_noisy_as_sampling(of_model)), image))

    print("measuring what they are compared with", flush=True)
    _, model, settings = loaded[len(loaded) // 2]
    size, rate = model.config.latent, as_noisy_as_sampling(vaes[len(loaded) // 2])["bits"]
    pca, sheets, files = measure_pca(train, test, size), jpeg_sheets(test), jpeg_files(test)
    nearest, image = min(pca, key=lambda found: abs(found[0]["bits"] - rate))
    rows += [(caption("PCA", nearest), image), (caption("JPEG sheet", sheets[0][0]), sheets[0][1])]
    lossy = {f"PCA of {size}, same coder": pca, "JPEG, one sheet": sheets, "JPEG, a file each": files}
    results = {
        "images": len(test),
        "pixels": test[0].numel(),
        "vae": vaes,
        "lossy": {name: [point for point, _ in found] for name, found in lossy.items()},
        "lossless": measure_lossless(test),
        "settings": shown(settings),
    }
    return results, rows


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

    def bits(self, symbols: Integers) -> Floats:
        """What each vector costs (N,), but for the whole bytes of a file."""
        costs = [-np.log2(np.asarray(counts) / sum(counts)) for counts in self.counts]
        return sum((cost[column] for cost, column in zip(costs, symbols.T, strict=True)), np.zeros(len(symbols)))

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


def send(coder: Coder, vectors: Floats) -> tuple[dict[str, float], Floats]:
    """Write vectors (N, Z) to files and read them: bits of a vector, written and by frequency, and what was read."""
    symbols = coder.symbols(vectors)
    groups = [symbols[start : start + GROUP] for start in range(0, len(symbols), GROUP)]
    files = [coder.encode(group) for group in groups]
    read = np.concatenate([coder.decode(data, len(group)) for data, group in zip(files, groups, strict=True)])
    written = 8 * sum(map(len, files)) / len(vectors)
    return {"bits": written, "information": float(coder.bits(symbols).mean())}, coder.vectors(read)


@torch.no_grad()
def measure_vae(model: Vae, train: Tensor, test: Tensor) -> tuple[dict[str, Any], Tensor]:
    """Rate and distortion of samples of q(z | x) and of the coder, and what this decodes where it is as noisy as those.

    Args:
        train, test (N, C, H, W): in [0, 1].
    """
    (train_mu, train_log_sigma), (mu, log_sigma) = (model.posterior(x.to(model.device)) for x in (train, test))
    noise = torch.randn(mu.shape, generator=torch.Generator().manual_seed(SEED)).to(mu.device)
    z, kl = ops.sample_kl(mu, log_sigma, noise)
    bits = mean(kl / math.log(2))
    sampled = {"bits": bits.value, "interval": bits[1:3], **decoded_from(model, z, test)[0]}

    sigma = train_log_sigma.double().exp().square().mean(0).sqrt().cpu().numpy()
    coded, shown = [], test
    for step in STEPS:
        coder = Coder(train_mu.double().cpu().numpy(), step * sigma)
        cost, vectors = send(coder, mu.double().cpu().numpy())
        distortion, image = decoded_from(model, torch.from_numpy(vectors).to(mu), test)
        coded.append({"step": step, **cost, **distortion})
        if step == AS_SAMPLING:
            shown = image
    return {"sampled": sampled, "coded": coded}, shown


def decoded_from(model: Vae, z: Tensor, test: Tensor) -> tuple[dict[str, Any], Tensor]:
    """The distortion of what a model decodes z (N, Z) to, and those images (N, C, H, W)."""
    canvas = model.decode(z)[-1]
    nll = mean(model.negative_log_likelihood(canvas, test.to(canvas.device)))
    image = model.expected(canvas).cpu()
    return {"nll": nll.value, "nll_interval": nll[1:3], **distortion_of(image, test)}, image


def measure_pca(train: Tensor, test: Tensor, size: int) -> list[tuple[dict[str, Any], Tensor]]:
    """Rate and distortion of a PCA that is fitted to the training images, through the same coder at several steps, and
    what it decodes."""
    fitted, pixels = (images.flatten(1).double().numpy() for images in (train, test))
    pca = PCA(min(size, *fitted.shape), random_state=SEED).fit(fitted)
    vectors, found = pca.transform(fitted), []
    for step in PCA_STEPS:
        cost, read = send(Coder(vectors, step), pca.transform(pixels))
        image = torch.from_numpy(pca.inverse_transform(read)).float().clamp(0, 1).view_as(test)
        found.append(({"setting": f"step {step:g}", **cost, **distortion_of(image, test)}, image))
    return found


def jpeg_sheets(test: Tensor) -> list[tuple[dict[str, Any], Tensor]]:
    """Rate and distortion of all images on one sheet at several qualities, and what is decoded."""
    sheet, found = to_sheet(test), []
    for quality in QUALITIES:
        data = packed(sheet, "JPEG", quality=quality, optimize=True)
        found.append(of_files([data], from_sheet(opened(data), test), test, quality))
    return found


def jpeg_files(test: Tensor) -> list[tuple[dict[str, Any], Tensor]]:
    """Rate and distortion with a file for each image at several qualities, and what is decoded."""
    found = []
    for quality in QUALITIES:
        files = [packed(image[0], "JPEG", quality=quality, optimize=True) for image in test]
        found.append(of_files(files, torch.stack([opened(data)[None] for data in files]), test, quality))
    return found


def of_files(files: Sequence[bytes], image: Tensor, test: Tensor, quality: int) -> tuple[dict[str, Any], Tensor]:
    bits = 8 * sum(map(len, files)) / len(test)
    return {"setting": f"quality {quality}", "bits": bits, **distortion_of(image, test)}, image


def measure_lossless(test: Tensor) -> dict[str, float]:
    """Bits of an image where all pixels are kept."""
    sizes = {
        "PNG, one sheet": len(packed(to_sheet(test), "PNG", optimize=True)),
        "PNG, a file each": sum(len(packed(image[0], "PNG", optimize=True)) for image in test),
        "zlib, all together": len(zlib.compress(to_bytes(test).tobytes(), 9)),
    }
    return {name: 8 * size / len(test) for name, size in sizes.items()}


def distortion_of(image: Tensor, test: Tensor) -> dict[str, Any]:
    """Squared error of a pixel, averaged over images (N, C, H, W) in [0, 1], its interval over images, and PSNR in dB,
    100 at most."""
    error = mean((image.double() - test.double()).square().flatten(1).mean(1))
    return {"mse": error.value, "mse_interval": error[1:3], "psnr": -10 * math.log10(max(error.value, 1e-10))}


def to_bytes(image: Tensor) -> npt.NDArray[np.uint8]:
    return (image * 255).round().byte().numpy()


def packed(image: Tensor, kind: str, **options: Any) -> bytes:
    """The file of a grey image (H, W)."""
    data = io.BytesIO()
    Image.fromarray(to_bytes(image)).save(data, kind, **options)
    return data.getvalue()


def opened(data: bytes) -> Tensor:
    """The grey image (H, W) of a file."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)))) / 255


def to_sheet(images: Tensor) -> Tensor:
    """Grey images (N, 1, H, W) side by side, in rows; the last row ends in black."""
    rows = -(-len(images) // COLUMNS)
    height, width = images.shape[2:]
    sheet = images.new_zeros(rows * COLUMNS, height, width)
    sheet[: len(images)] = images[:, 0]
    return sheet.view(rows, COLUMNS, height, width).transpose(1, 2).reshape(rows * height, COLUMNS * width)


def from_sheet(sheet: Tensor, like: Tensor) -> Tensor:
    """Images of the shape of `like` (N, 1, H, W) from their sheet."""
    height, width = like.shape[2:]
    tiles = sheet.view(-1, height, COLUMNS, width).transpose(1, 2).reshape(-1, 1, height, width)
    return tiles[: len(like)]


def as_noisy_as_sampling(of_model: Mapping[str, Any]) -> dict[str, Any]:
    """What the coder did with that step."""
    return next(point for point in of_model["coded"] if point["step"] == AS_SAMPLING)


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
            f"{cells(as_noisy_as_sampling(point), 'nll', 'mse', 'psnr')} |"
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
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    write_atomically(path, data.getvalue())


def draw_rows(rows: Sequence[tuple[str, Tensor]], path: Path) -> None:
    """Write the first test images, a row for each code."""
    tiles = [[to_tile(image, TILE) for image in images[:SHOWN]] for _, images in rows]
    data = io.BytesIO()
    set_page(tiles, labels=[name for name, _ in rows]).save(data, "PNG", optimize=True)
    write_atomically(path, data.getvalue())


def shown(settings: Settings) -> dict[str, Any]:
    """The settings but for those that differ from run to run or from user to user."""
    return settings.model_dump(mode="json", exclude={"beta": True, "data": {"root", "download"}})


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (FastdrawError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on from here")
