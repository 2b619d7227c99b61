"""fastdraw demo"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastdraw.cli.arguments import Parser, folder, parse_settings_arguments
from fastdraw.errors import FastdrawError

if TYPE_CHECKING:
    pass

IMAGES = 500
ROWS = 4
SEED = 0


def main(argv: Sequence[str]) -> None:
    """Train on the digits in this package, draw, and have the drawings read."""
    parser = Parser(
        prog="fastdraw demo",
        description="Train on the real digits in this package, draw digits, and have them read by a reader that\n"
        "saw real digits only. Leaves pictures, metrics.json and the run; the same command goes on if it was stopped.",
        epilog="example:\n  fastdraw demo --out demo",
    )
    parser.add_argument("--out", metavar="DIR", type=folder, default=Path("demo"), help="folder (default: %(default)s)")
    args, settings = parse_settings_arguments(parser, argv, "demo")

    import torch

    from fastdraw.cli.drawing import draw_steps, told
    from fastdraw.cli.evaluate import measure
    from fastdraw.evaluation import Accuracy, attention_map, curves, generation_gif, generation_strip, sample_grid
    from fastdraw.files import write_atomically
    from fastdraw.training import Run, load_draw, train_or_resume

    if settings.data.source != "mnist" or told(settings) != "digits":
        raise FastdrawError("the demo draws rows of digits that it is told: other models are for fastdraw train")
    start = time.monotonic()
    out: Path = args.out
    try:
        train_or_resume(settings, out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped: the same command goes on from here") from None
    rows = Run.open(out).metrics_of_training()
    curves(rows, out / "curves.png")

    model, _ = load_draw(out, settings.device)
    length = settings.data.longest
    # Every digit in every place: 0, 1, .. for one digit, 01, 12, .. for two.
    digits = (torch.arange(10 * ROWS)[:, None] + torch.arange(length)) % 10
    captions = ["".join(map(str, row)) for row in digits.tolist()]
    drawing = draw_steps(model, digits, SEED)
    sample_grid(drawing.frames[-1], captions, out / "samples.png")
    frames, windows, _ = drawing.first(10)
    generation_strip(frames, out / "strips.png", captions=captions[:10])
    generation_gif(frames, windows, model.config.n_write, model.config.stride, out / "generation.gif", captions[:10])
    frames, _, attention = drawing.first(ROWS)
    if attention is not None:
        attention_map(attention, captions[:ROWS], frames, out / "attention.png")

    metrics = measure(model, settings, IMAGES)
    metrics["seconds"] = {"training": rows[-1]["seconds"], "command": time.monotonic() - start}
    write_atomically(out / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
    test = metrics["test"]
    print(f"test bound: {test['bound']:.2f} nats per image (NLL {test['nll']:.2f} + KL {test['kl']:.2f})")
    for drawn, share in metrics["accuracy"].items():
        print(f"drawn images of {drawn} digit{'s' * (drawn > 1)} read as asked: {Accuracy(**share)}")
    print(f"held-out real digits read right: {Accuracy(**metrics['reader'])}")
    print(f"wrote samples.png, strips.png, generation.gif, curves.png, attention.png and metrics.json to {out}")
