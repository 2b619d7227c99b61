"""What the benchmarks' pictures share: colours that all kinds of colour vision tell apart, and quiet axes."""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastdraw.files import write_atomically

DPI = 144
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "0.35"  # Okabe and Ito's


def quiet(axes: Axes) -> None:
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def write(figure: Figure, path: Path) -> None:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    write_atomically(path, data.getvalue())
