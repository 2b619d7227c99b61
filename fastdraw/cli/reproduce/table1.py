"""fastdraw reproduce table1"""

import math
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastdraw.cli.arguments import Parser, UsageError, count, folder, parse_settings_arguments, seed_number
from fastdraw.errors import FastdrawError

if TYPE_CHECKING:
    from fastdraw.training import Settings

PRESET = "vae-mnist"
TAKEN = {
    "model.latent": "the table has several sizes of z",
    "beta": "the table has several weights of the KL",
    "seed": "a table takes several seeds: give --seeds",
    "steps": "a table counts in epochs: give --epochs",
}
DESCRIPTION = """Reproduce Table 1 and Figures 3 to 5 of paper 001 as a whole.

Trains a VAE for each of the seven rows (n, beta), measures it on all train and test images, each once, and writes
table1.md, results.json, fig3.png, fig4.png, fig5.png, beta.png and redrawn.png. Every model is a run of fastdraw train
in OUT/nN-betaB, or nN-betaB-seedS for other seeds than 0: runs that are there already are gone on with, or taken as
they are."""


def main(argv: Sequence[str]) -> None:
    """Train what the table compares, measure it, and write the table and the figures."""
    parser = Parser(
        prog="fastdraw reproduce table1",
        description=DESCRIPTION,
        epilog="examples:\n"
        "  fastdraw reproduce table1 --root mnist --download --threads 1 --out runs/table1\n"
        "  fastdraw reproduce table1 --epochs 3 --out runs/quick",
    )
    parser.add_argument(
        "--epochs", metavar="INT", type=count, default=300, help="of training for each model (default: %(default)s)"
    )
    parser.add_argument("--seeds", metavar="SEED", type=seed_number, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--out", metavar="DIR", type=folder, required=True, help="folder for the table and the runs")
    args, chosen = parse_settings_arguments(parser, argv, PRESET)
    if len(set(args.seeds)) < len(args.seeds):
        raise UsageError(f"--seeds must differ, got {' '.join(map(str, args.seeds))}")

    import torch

    import fastdraw
    from fastdraw.data import load_mnist_images
    from fastdraw.evaluation.losses import image_losses
    from fastdraw.evaluation.table1 import PAPER, Results, RunLosses, render_table1, run_losses, summary
    from fastdraw.evaluation.table1_pictures import (
        Measured,
        beta_curves,
        figure_3,
        figure_4,
        figure_5,
        redrawn_by_row,
    )
    from fastdraw.files import write_atomically
    from fastdraw.models import Vae, VaeConfig
    from fastdraw.training import Run, load_model, resolve, train_or_resume
    from fastdraw.training.settings import fields

    overrides = {name: value for name, value in vars(args).items() if name in fields(chosen)}
    for name, reason in TAKEN.items():
        if name in overrides:
            raise UsageError(f"--{name} cannot be given: {reason}")
    assert isinstance(chosen.model, VaeConfig)
    if chosen.data.source != "digits" or chosen.data.leave_out or chosen.model.likelihood != "bernoulli":
        raise FastdrawError(
            "the table is of cross-entropies on all digits: leave data.source, data.leave_out and model.likelihood "
            "as they are"
        )
    train, test = (load_mnist_images(chosen.data.root, split, chosen.data.download) for split in ("train", "test"))
    overrides = _of_epochs(chosen, args.epochs, len(train), len(test)) | overrides
    args.out.mkdir(parents=True, exist_ok=True)

    losses: list[RunLosses] = []
    for seed in args.seeds:
        measured: list[Measured] = []
        for row in PAPER:
            settings = resolve(PRESET, overrides | {"model.latent": row.latent, "beta": row.beta, "seed": seed})
            out = args.out / row.folder(seed)
            print(f"n = {row.latent}, beta = {row.beta:g}, seed {seed}: {out}", flush=True)
            train_or_resume(settings, out)
            rows = Run.open(out).metrics_of_training()
            model, _ = load_model(out, settings.device)
            assert isinstance(model, Vae)
            of_test, of_train = (image_losses(model, images.images) for images in (test, train))
            losses.append(
                run_losses(
                    row,
                    seed=seed,
                    epochs=args.epochs,
                    steps=settings.steps,
                    seconds=rows[-1]["seconds"],
                    test=of_test,
                    train=of_train,
                )
            )
            print(summary(losses[-1]), flush=True)
            measured.append(Measured(row, model, of_test.mu, rows, len(train) / settings.batch_size))
            results = Results(
                settings=_shared(settings),
                versions={
                    "fastdraw": fastdraw.__version__,
                    "torch": torch.__version__,
                    "python": platform.python_version(),
                },
                runs=losses,
            )
            write_atomically(args.out / "results.json", f"{results.model_dump_json(indent=2)}\n".encode())
            write_atomically(args.out / "table1.md", render_table1(results).encode())
        if seed == args.seeds[0]:
            shown = measured
    digits = test.labels[:, 0]
    by_latent = {run.row.latent: run for run in shown if run.row.beta == 1}
    figure_3(by_latent[1], digits, args.out / "fig3.png")
    figure_4(by_latent[2], digits, args.out / "fig4.png")
    figure_5(by_latent[64], test.images, digits, args.out / "fig5.png")
    beta_curves(results, args.out / "beta.png")
    redrawn_by_row(shown, test.images, digits, args.out / "redrawn.png")
    print(f"wrote table1.md, results.json, fig3.png, fig4.png, fig5.png, beta.png and redrawn.png to {args.out}")


def _of_epochs(settings: "Settings", epochs: int, trained: int, tested: int) -> dict[str, int]:
    """Steps and intervals for numbers of train and test images; for all of MNIST and 300 epochs the preset's own."""
    epoch = math.ceil(trained / settings.batch_size)
    return {
        "steps": math.ceil(epochs * trained / settings.batch_size),
        "log_every": max(1, epoch // 5),
        "evaluate_every": epoch,
        "checkpoint_every": 10 * epoch,
        "test_batches": math.ceil(tested / settings.batch_size),
    }


def _shared(settings: "Settings") -> dict[str, Any]:
    """The settings but for those that differ from run to run or from user to user."""
    return settings.model_dump(
        mode="json",
        exclude={"model": {"latent"}, "beta": True, "seed": True, "data": {"root", "download"}},
    )
