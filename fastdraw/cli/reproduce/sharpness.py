"""fastdraw reproduce sharpness"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from fastdraw.cli.arguments import Parser, UsageError, count, folder, parse_settings_arguments, seed_number

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from fastdraw.evaluation.sharpness_table import Model
    from fastdraw.training import Settings

DATA, SIZES = ("mnist", "celeba"), ("paper", "small")
TITLES = {"mnist": "MNIST", "celeba": "CelebA"}
PRESETS: "dict[Model, str]" = {
    "conv-vae": "conv-vae",
    "residual-vae": "residual-vae",
    "multistage-vae": "multistage-vae",
    "three-stage-vae": "multistage-vae",
}
STAGES: "dict[Model, dict[str, int]]" = {"three-stage-vae": {"model.refiners": 2}}
TAKEN = {
    "seed": "the claim takes several seeds: give --seeds",
    "data.source": "--data chooses it",
    "model.refiners": "it tells the models apart",
    "model.likelihood_of": "it tells the models apart",
}
PICTURES = ("rows.png", "stages.png", "samples.png")
SHOWN = 10  # images in a row of a picture
DESCRIPTION = """Put the claim of paper 003 into numbers: images of a VAE are less sharp than those of a residual VAE,
and these than those of a multi-stage VAE.

Trains the three and a VAE of three stages with several seeds, redraws held-out images and draws from the prior with
each, measures how sharp these are and how far from their originals, and writes sharpness.md, results.json, curves.png,
rows.png (originals and reconstructions), stages.png (what each stage of a decoder makes) and samples.png. Every model
is a run of fastdraw train in OUT/MODEL-SEED: runs that are there already are gone on with, or taken as they are."""


def main(argv: Sequence[str]) -> None:
    """Train what the claim is of, measure it, and write the page and the pictures."""
    first = Parser(prog="fastdraw reproduce sharpness", add_help=False)
    first.add_argument("--data", choices=DATA, default="mnist")
    first.add_argument("--size", choices=SIZES, default="paper")
    early = first.parse_known_args(argv)[0]

    parser = Parser(
        prog="fastdraw reproduce sharpness",
        description=DESCRIPTION,
        epilog="examples:\n"
        "  fastdraw reproduce sharpness --size small --out runs/sharpness\n"
        "  fastdraw reproduce sharpness --data celeba --size small --root faces --out runs/sharpness-celeba",
    )
    parser.add_argument("--data", choices=DATA, default="mnist", help="default: %(default)s")
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="paper",
        help="sizes and steps of the presets MODEL-DATA, or of small-vae-DATA laid over them (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", metavar="SEED", type=seed_number, nargs="+", default=[0, 1, 2], help="default: 0 1 2"
    )
    parser.add_argument(
        "--images", metavar="INT", type=count, default=1000, help="redrawn at most, and drawn (default: %(default)s)"
    )
    parser.add_argument("--out", metavar="DIR", type=folder, required=True, help="folder for the page and the runs")
    presets = {model: _preset(name, early.data, early.size) for model, name in PRESETS.items()}
    args, of_vae = parse_settings_arguments(parser, argv, presets["conv-vae"])
    if len(set(args.seeds)) < len(args.seeds):
        raise UsageError(f"--seeds must differ, got {' '.join(map(str, args.seeds))}")
    if args.images < 2:
        raise UsageError(f"--images must be at least 2, which an interval takes, got {args.images}")

    import torch

    from fastdraw.evaluation import comparison_curves
    from fastdraw.evaluation.judging import draw_images
    from fastdraw.evaluation.sharpness import compare_images, measure_images, redraw_stages
    from fastdraw.evaluation.sharpness_table import RunValues, render_sharpness, summarise
    from fastdraw.files import write_atomically
    from fastdraw.models import Vae
    from fastdraw.training import Run, held_out_images, load_model, resolve, train_or_resume
    from fastdraw.training.settings import fields

    overrides = {name: value for name, value in vars(args).items() if name in fields(of_vae)}
    for name, reason in TAKEN.items():
        if name in overrides:
            raise UsageError(f"--{name.replace('_', '-')} cannot be given: {reason}")
    settings = {model: resolve(preset, overrides | STAGES.get(model, {})) for model, preset in presets.items()}
    device = of_vae.device
    batch = held_out_images(of_vae, 1, args.images)
    real = measure_images(batch.image)
    compare_images(batch.image[:1], batch.image[:1])  # raises where images are too small, before any training
    args.out.mkdir(parents=True, exist_ok=True)

    runs: list[RunValues] = []
    curves: list[tuple[str, list[dict[str, Any]]]] = []
    shown: dict[Model, tuple[Tensor, Tensor]] = {}
    for seed in args.seeds:
        for model, of_model in settings.items():
            out = args.out / f"{model}-{seed}"
            print(f"{model}, seed {seed}: {out}", flush=True)
            train_or_resume(of_model.model_copy(update={"seed": seed}), out)
            rows = Run.open(out).metrics_of_training()
            trained = cast(Vae, load_model(out, device)[0])
            outputs = redraw_stages(trained, batch.image)
            labels, lengths = torch.zeros(args.images, 1, dtype=torch.int64), torch.ones(args.images, dtype=torch.int64)
            samples = draw_images(trained, labels, lengths, torch.Generator().manual_seed(seed))
            shown.setdefault(model, (outputs[:, :SHOWN], samples[:SHOWN]))
            stages = trained.expected(outputs)
            measured = [measure_images(stage) for stage in stages]
            measured[-1] |= compare_images(stages[-1], batch.image)
            runs.append(RunValues(model, seed, of_model.steps, rows[-1]["seconds"], measured, measure_images(samples)))
            # The last stage's refinement is no part of the bound, nor is beta.
            curves.append((model, [row | {"loss": row["nll"] + row["kl"]} for row in rows]))
            results = summarise(TITLES[args.data], real, runs, {m: _shown(s) for m, s in settings.items()})
            write_atomically(args.out / "results.json", f"{results.model_dump_json(indent=2)}\n".encode())
            write_atomically(args.out / "sharpness.md", render_sharpness(results).encode())
    comparison_curves(curves, args.out / "curves.png")
    _write_pictures(batch.image[:SHOWN], shown, args.out)
    print(f"wrote sharpness.md, results.json, curves.png, {', '.join(PICTURES)} to {args.out}")


def _preset(model: str, data: str, size: str) -> str:
    return f"{model}-{data}" + (f"+small-vae-{data}" if size == "small" else "")


def _shown(settings: "Settings") -> dict[str, Any]:
    """The settings but for those that differ from seed to seed or from user to user."""
    return settings.model_dump(mode="json", exclude={"seed": True, "data": {"root", "download"}})


def _write_pictures(originals: "Tensor", shown: "dict[Model, tuple[Tensor, Tensor]]", out: "Path") -> None:
    """Figures 4 to 9: reconstructions, what the stages make, and samples, of the first seed."""
    from fastdraw.evaluation.pictures import image_rows
    from fastdraw.evaluation.sharpness_table import MODELS

    reconstructions = {MODELS[model]: outputs[-1] for model, (outputs, _) in shown.items()}
    by_stage = {}
    for model, (outputs, _) in shown.items():
        for number, stage in enumerate(outputs, 1):
            if model == "residual-vae" and number < len(outputs):  # no loss keeps it within [0, 1]
                by_stage[f"{MODELS[model]}, stage {number}, stretched"] = _stretched(stage)
            elif len(outputs) > 1:
                by_stage[f"{MODELS[model]}, stage {number}"] = stage
    samples = {MODELS[model]: of_model for model, (_, of_model) in shown.items()}
    pages = ({"data": originals} | reconstructions, {"data": originals} | by_stage, samples)
    for name, rows in zip(PICTURES, pages, strict=True):
        image_rows(rows, out / name)


def _stretched(images: "Tensor") -> "Tensor":
    """Images (B, C, H, W) of any values, each from its least to its greatest."""
    least, greatest = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - least) / (greatest - least)
