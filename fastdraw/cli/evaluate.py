"""fastdraw evaluate"""

import json
import math
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastdraw.cli.arguments import Parser, count, device_argument, root_argument, run_argument

if TYPE_CHECKING:
    from fastdraw.models import Draw
    from fastdraw.training import Settings

BATCH = 100
SEED = 0


def main(argv: Sequence[str]) -> None:
    """Measure the test bound and the legibility of drawn digits; print it and write it to RUN/evaluation.json."""
    parser = Parser(
        prog="fastdraw evaluate",
        description="Measure the test bound, and how many drawn images are read as asked by a reader that saw\n"
        "real digits only; print both as JSON and write them to RUN/evaluation.json.",
        epilog="example:\n  fastdraw evaluate runs/seqdraw --images 1000",
    )
    run_argument(parser)
    parser.add_argument(
        "--images", metavar="INT", type=count, default=1000, help="per length, test and drawn (default: %(default)s)"
    )
    root_argument(parser)
    device_argument(parser)
    args = parser.parse_args(argv)

    from fastdraw.files import write_atomically
    from fastdraw.training import load_model

    model, settings = load_model(args.run, args.device)
    settings = settings.model_copy(update={"data": settings.data.at(args.root)})
    text = json.dumps(measure(model, settings, args.images), indent=2)
    print(text)
    write_atomically(args.run / "evaluation.json", f"{text}\n".encode())


def measure(model: "Draw", settings: "Settings", images: int) -> dict[str, Any]:
    """Measure a model on `images` drawn images, and test ones in whole batches, of every length that it was trained on.

    Returns:
        test: nll, kl and bound in nats per image, each length weighted as in training, and so for each length alone;
        accuracy: for each length, how many drawn images are read as asked in all digits, with a Wilson 95 % interval;
        reader: the reader's accuracy on held-out real digits; settings; versions.
    """
    import torch

    import fastdraw
    from fastdraw.cli.drawing import draw_images
    from fastdraw.data import load_cells
    from fastdraw.evaluation import accuracy, read_digits, reader_accuracy, train_reader
    from fastdraw.training import held_out_source, measure_bound

    root = settings.data.root
    weights = {length: weight for length, weight in enumerate(settings.data.lengths, 1) if weight > 0}
    reader = train_reader(load_cells(root, "train"), SEED)
    bounds, accuracies = {}, {}
    # One stream for all: the noise of a drawing owes nothing to the digits that it is asked for.
    generator = torch.Generator().manual_seed(SEED)
    batch = min(BATCH, images)
    for length in weights:
        alone = settings.data.model_copy(update={"lengths": tuple(float(length == other) for other in range(1, 5))})
        bound = measure_bound(model, held_out_source(alone, batch), math.ceil(images / batch))
        bounds[length] = bound._asdict() | {"bound": sum(bound)}
        asked = torch.randint(10, (images, length), generator=generator)
        read = read_digits(reader, draw_images(model, asked, generator), length)
        accuracies[length] = accuracy(read, asked)._asdict()
    total = sum(weights.values())
    mean = {key: sum(weights[length] * bounds[length][key] for length in weights) / total for key in bounds[length]}
    return {
        "test": mean | {"by_length": bounds},
        "accuracy": accuracies,
        "reader": reader_accuracy(reader, load_cells(root, "test"))._asdict(),
        "settings": settings.model_dump(mode="json"),
        "versions": {
            "fastdraw": fastdraw.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
