"""fastdraw reproduce"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdraw.cli.arguments import Parser, count, device_argument, folder, parse_settings_arguments

if TYPE_CHECKING:
    from fastdraw.evaluation.table2 import Model, RunCounts
    from fastdraw.models.classifier import DigitClassifier
    from fastdraw.training import Settings

PRESETS: "dict[Model, str]" = {"rnnDRAW": "rnndraw", "seqDRAW": "seqdraw", "seqDRAW-cur": "seqdraw-cur"}
LENGTHS = (1, 2, 3)
SEED = 0
DESCRIPTION = """Reproduce a table of a paper as a whole.

table2: trains rnnDRAW, seqDRAW and seqDRAW-cur with several seeds, draws numbers of 1, 2 and 3 digits with each,
redraws test images, has a classifier read all of them, and writes table2.md, results.json and curves.png. Every model
is a run of fastdraw train in OUT/MODEL-SEED: runs that are there already are gone on with, or taken as they are."""


def main(argv: Sequence[str]) -> None:
    """Train what a table compares, measure it, and write the table."""
    first = Parser(prog="fastdraw reproduce", add_help=False)
    first.add_argument("--data", default="mnist")
    first.add_argument("--size", default="paper")
    chosen = first.parse_known_args(argv)[0]

    parser = Parser(
        prog="fastdraw reproduce",
        description=DESCRIPTION,
        epilog="examples:\n"
        "  fastdraw train-classifier --source mnist --root mnist --out judge\n"
        "  fastdraw reproduce table2 --data mnist --size small --root mnist --classifier judge --out runs/table2",
    )
    parser.add_argument("table", choices=("table2",), help="of paper 000: accuracy of a classifier on drawn numbers")
    parser.add_argument("--data", choices=("mnist", "svhn"), default="mnist", help="default: %(default)s")
    parser.add_argument(
        "--size",
        choices=("paper", "small"),
        default="paper",
        help="sizes and steps of the presets MODEL-DATA, or of small-DATA laid over them (default: %(default)s)",
    )
    parser.add_argument(
        "--classifier", metavar="DIR", type=folder, required=True, help="the --out folder of fastdraw train-classifier"
    )
    parser.add_argument("--seeds", metavar="SEED", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--images", metavar="INT", type=count, default=1000, help="drawn and redrawn, of each length (default: 1000)"
    )
    parser.add_argument("--out", metavar="DIR", type=folder, required=True, help="folder for the table and the runs")
    device_argument(parser)
    presets = {model: _preset(name, chosen.data, chosen.size) for model, name in PRESETS.items()}
    args, _ = parse_settings_arguments(parser, argv, presets["seqDRAW"])

    from fastdraw.evaluation import comparison_curves, load_classifier
    from fastdraw.evaluation.judging import count as count_right
    from fastdraw.evaluation.judging import sequence_accuracy
    from fastdraw.evaluation.table2 import Results, render_table2
    from fastdraw.files import write_atomically
    from fastdraw.training import Run, held_out_images, resolve, train_or_resume
    from fastdraw.training.settings import fields

    overrides = {name: value for name, value in vars(args).items() if name in fields()}
    settings = {model: resolve(preset, overrides) for model, preset in presets.items()}
    classifier = load_classifier(args.classifier, args.device)
    data = settings["seqDRAW"].data
    real = {length: held_out_images(data, length, args.images) for length in LENGTHS}
    own = {length: count_right(sequence_accuracy(classifier, *batch)) for length, batch in real.items()}
    args.out.mkdir(parents=True, exist_ok=True)

    runs: list[RunCounts] = []
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in args.seeds:
        for model, of_model in settings.items():
            run = args.out / f"{model}-{seed}"
            print(f"{model}, seed {seed}: {run}", flush=True)
            train_or_resume(of_model.model_copy(update={"seed": seed}), run)
            runs.append(_measure(model, seed, run, classifier, real, args.device))
            rows[f"{model}, seed {seed}"] = Run.open(run).metrics()
            sections = {name: json.loads(chosen.model_dump_json(exclude={"seed"})) for name, chosen in settings.items()}
            results = Results(data=TITLES[args.data], classifier=own, settings=sections, runs=runs)
            write_atomically(args.out / "results.json", f"{results.model_dump_json(indent=2)}\n".encode())
            write_atomically(args.out / "table2.md", render_table2(results).encode())
    comparison_curves(rows, args.out / "curves.png")
    print(f"wrote table2.md, results.json and curves.png to {args.out}")
