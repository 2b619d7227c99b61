"""Does bfloat16 learn as float32 does? The same training twice: bf16_curve.png, and bf16_curve.json beside it.

    python -m benchmarks.bf16_curve --out docs/results

The demo's settings on the digits of the package, the same weights, batches and noise; bfloat16 by autocast over float32
weights. The losses are means over a window of steps, and the gap is between these means.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn.utils import clip_grad_norm_

from benchmarks.facts import machine, source
from benchmarks.plotting import BLUE, GREY, VERMILION, quiet, write
from fastdraw.data import MultiDigits, load_cells
from fastdraw.files import write_atomically
from fastdraw.training.bound import nll_and_kl
from fastdraw.training.settings import Settings, resolve
from fastdraw.training.state import TrainingState, learning_rate

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="of training (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=256, help="units of each LSTM (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=100, help="images in a batch (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the picture and its figures")
    given = parser.parse_args(arguments)
    settings = resolve(
        "demo",
        {
            "steps": given.steps,
            "model.hidden": given.hidden,
            "batch_size": given.batch,
            "optimiser.ema": 0.0,
            "device": "cpu",
        },
    )
    losses = {name: train(settings, dtype) for name, dtype in DTYPES.items()}
    window = max(given.steps // 20, 1)
    means = {name: np.convolve(values, np.full(window, 1 / window), "valid") for name, values in losses.items()}
    gaps = means["bfloat16"] / means["float32"] - 1
    worst = int(np.abs(gaps).argmax())
    results = {
        **source(),
        "machine": machine(torch.get_num_threads()),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "settings": settings.model_dump(mode="json"),
        "window": window,
        "largest_gap": {"relative": float(gaps[worst]), "last_step_of_window": worst + window},
        "losses": losses,
    }
    print(f"largest gap {gaps[worst]:+.2g} of the loss, over the {window} steps up to step {worst + window}")
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomically(given.out / "bf16_curve.json", (json.dumps(results) + "\n").encode())
    draw(means, window, given.out / "bf16_curve.png")


def train(settings: Settings, dtype: torch.dtype) -> list[float]:
    """The training loss at every step, in nats per image."""
    state = TrainingState(settings, torch.device("cpu"))
    digits = MultiDigits(load_cells(settings.data.root, "train"), settings.data.lengths, settings.batch_size, 0)
    state.model.set_canvas(digits.mean_image())
    losses = []
    for step in range(settings.steps):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = nll_and_kl(state.model, digits.batch(step), state.generator).sum()
        state.optimiser.zero_grad()
        loss.backward()
        clip_grad_norm_(state.model.parameters(), settings.optimiser.clip)
        for group in state.optimiser.param_groups:
            group["lr"] = learning_rate(settings.optimiser, step, settings.steps)
        state.optimiser.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"{dtype}: step {step + 1}, loss {losses[-1]:.1f}", file=sys.stderr, flush=True)
    return losses


def draw(means: Mapping[str, Any], window: int, path: Path) -> None:
    """Both curves, and the gap between them."""
    figure = Figure((10, 3.8), layout="constrained")
    curves, gap = figure.subplots(1, 2)
    steps = np.arange(window, window + len(means["float32"]))
    curves.plot(steps, means["float32"], color=BLUE, linewidth=3, alpha=0.5, label="float32")
    curves.plot(steps, means["bfloat16"], color=VERMILION, linewidth=1, label="bfloat16 over float32 weights")
    curves.set(title=f"training loss, mean over {window} steps", xlabel="training step", ylabel="nats per image")
    curves.legend(frameon=False)
    percent = 100 * (means["bfloat16"] / means["float32"] - 1)
    gap.axhline(0, color=GREY, linewidth=0.8)
    gap.plot(steps, percent, color=VERMILION)
    limit = max(1.0, 1.1 * float(np.abs(percent).max()))
    gap.set(title="bfloat16 against float32", xlabel="training step", ylabel="% of the loss", ylim=(-limit, limit))
    for axes in (curves, gap):
        quiet(axes)
    write(figure, path)


if __name__ == "__main__":
    main()
