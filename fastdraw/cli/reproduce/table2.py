"""fastdraw reproduce table2"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastdraw.cli.arguments import Parser, UsageError, count, folder, parse_settings_arguments, seed_number
from fastdraw.errors import FastdrawError

if TYPE_CHECKING:
    from fastdraw.evaluation.table2 import Model
    from fastdraw.training import Settings

DATA, SIZES = ("mnist", "svhn"), ("paper", "small")
TITLES = {"mnist": "multi-digit MNIST", "svhn": "SVHN"}
PRESETS: "dict[Model, str]" = {"rnnDRAW": "rnndraw", "seqDRAW": "seqdraw", "seqDRAW-cur": "seqdraw-cur"}
LENGTHS = (1, 2, 3)
DESCRIPTION = """Reproduce Table II of paper 000 as a whole.

Trains rnnDRAW, seqDRAW and seqDRAW-cur with several seeds, draws numbers of 1, 2 and 3 digits with each, redraws test
images, has a classifier read all of them, and writes table2.md, results.json and curves.png. Every model is a run of
fastdraw train in OUT/MODEL-SEED: runs that are there already are gone on with, or taken as they are."""


def main(argv: Sequence[str]) -> None:
    """Train what a table compares, measure it, and write the table."""
    first = Parser(prog="fastdraw reproduce table2", add_help=False)
    first.add_argument("--data", choices=DATA, default="mnist")
    first.add_argument("--size", choices=SIZES, default="paper")
    early = first.parse_known_args(argv)[0]

    parser = Parser(
        prog="fastdraw reproduce table2",
        description=DESCRIPTION,
        epilog="examples:\n"
        "  fastdraw train-classifier --source mnist --root mnist --out judge\n"
        "  fastdraw reproduce table2 --data mnist --size small --root mnist --classifier judge --out runs/table2",
    )
    parser.add_argument("--data", choices=DATA, default="mnist", help="default: %(default)s")
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="paper",
        help="sizes and steps of the presets MODEL-DATA, or of small-DATA laid over them (default: %(default)s)",
    )
    parser.add_argument(
        "--classifier", metavar="DIR", type=folder, required=True, help="the --out folder of fastdraw train-classifier"
    )
    parser.add_argument(
        "--seeds", metavar="SEED", type=seed_number, nargs="+", default=[0, 1, 2], help="default: 0 1 2"
    )
    parser.add_argument(
        "--images",
        metavar="INT",
        type=count,
        default=1000,
        help="of each length, drawn and, at most, redrawn (default: 1000)",
    )
    parser.add_argument("--out", metavar="DIR", type=folder, required=True, help="folder for the table and the runs")
    presets = {model: _preset(name, early.data, early.size) for model, name in PRESETS.items()}
    args, of_seqdraw = parse_settings_arguments(parser, argv, presets["seqDRAW"])
    if len(set(args.seeds)) < len(args.seeds):
        raise UsageError(f"--seeds must differ, got {' '.join(map(str, args.seeds))}")

    from fastdraw.evaluation import comparison_curves, load_classifier
    from fastdraw.evaluation.judging import judge_prior, judge_reconstructions, judge_test_images
    from fastdraw.evaluation.table2 import Results, RunCounts, render_table2
    from fastdraw.files import write_atomically
    from fastdraw.training import Run, held_out_images, load_draw, resolve, train_or_resume
    from fastdraw.training.loop import pick_device
    from fastdraw.training.settings import fields

    overrides = {name: value for name, value in vars(args).items() if name in fields(of_seqdraw)}
    if "seed" in overrides:
        raise UsageError("a table takes several seeds: give --seeds")
    settings = {model: resolve(preset, overrides) for model, preset in presets.items()}
    device, data = settings["seqDRAW"].device, settings["seqDRAW"].data
    missing = [length for length in LENGTHS if length not in data.trained]
    if missing:
        raise FastdrawError(f"the table has length {missing[0]}, which data.lengths {data.lengths} do not train")
    classifier = load_classifier(args.classifier, pick_device(device))
    real = {length: held_out_images(settings["seqDRAW"], length, args.images) for length in LENGTHS}
    own = {length: judge_test_images(classifier, batch) for length, batch in real.items()}
    args.out.mkdir(parents=True, exist_ok=True)

    counts: list[RunCounts] = []
    curves: list[tuple[str, list[dict[str, Any]]]] = []
    for seed in args.seeds:
        for model, of_model in settings.items():
            out = args.out / f"{model}-{seed}"
            print(f"{model}, seed {seed}: {out}", flush=True)
            train_or_resume(of_model.model_copy(update={"seed": seed}), out)
            rows = Run.open(out).metrics_of_training()
            trained, _ = load_draw(out, device)
            counts.append(
                RunCounts(
                    model=model,
                    seed=seed,
                    steps=of_model.steps,
                    seconds=rows[-1]["seconds"],
                    prior={
                        length: judge_prior(trained, classifier, batch, args.images, seed)
                        for length, batch in real.items()
                    },
                    reconstructed={
                        length: judge_reconstructions(trained, classifier, batch, seed)
                        for length, batch in real.items()
                    },
                )
            )
            curves.append((model, rows))
            results = Results(
                data=TITLES[args.data],
                classifier=own,
                settings={m: _shown(s) for m, s in settings.items()},
                runs=counts,
            )
            write_atomically(args.out / "results.json", f"{results.model_dump_json(indent=2)}\n".encode())
            write_atomically(args.out / "table2.md", render_table2(results).encode())
    comparison_curves(curves, args.out / "curves.png")
    print(f"wrote table2.md, results.json and curves.png to {args.out}")


def _preset(model: str, data: str, size: str) -> str:
    return f"{model}-{data}" + (f"+small-{data}" if size == "small" else "")


def _shown(settings: "Settings") -> dict[str, Any]:
    """The settings but for those that differ from seed to seed or from user to user."""
    return settings.model_dump(mode="json", exclude={"seed": True, "data": {"root", "download"}})
