"""Draw one step of seqDRAW, as Figure 1 of its paper does, into docs/figures/model.png.

python scripts/model_figure.py
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

OUT = Path(__file__).parents[1] / "docs" / "figures" / "model.png"
INK = "#222222"
PLAIN, ENCODES, DRAWS, LABELS = "#FFFFFF", "#D3E8F6", "#FBE0AE", "#CDEBDD"
WIDTH, HEIGHT = 1.9, 0.8  # of a box, of the 18.8 x 8.6 of the page
# Centre, width, text, colour.
BOXES = [
    (1.2, 2.8, 1.4, "image\n$x$", PLAIN),
    (3.4, 1.0, 2.2, "error image\n$x - \\sigma(c_{t-1})$", ENCODES),
    (3.4, 2.8, 1.5, "read", ENCODES),
    (5.7, 2.8, WIDTH, "LSTM$^{enc}$", ENCODES),
    (8.2, 2.8, WIDTH, "posterior\n$q(z_t)$", ENCODES),
    (8.2, 4.3, WIDTH, "prior\n$p(z_t)$", DRAWS),
    (10.5, 2.8, 1.2, "$z_t$", PLAIN),
    (12.7, 2.8, WIDTH, "LSTM$^{dec}$", DRAWS),
    (15.0, 2.8, 1.5, "write", DRAWS),
    (17.2, 2.8, WIDTH, "canvas\n$c_t = c_{t-1} + \\cdot$", DRAWS),
    (17.2, 4.9, WIDTH, "$\\mathrm{Bernoulli}$\n$\\sigma(c_T)$", PLAIN),
    (7.5, 5.7, 9.8, "$h^{dec}_{t-1}$, the state of the decoder after the step before", PLAIN),
    (3.4, 7.2, WIDTH, "digits\n$d_1 \\ldots d_L$", LABELS),
    (7.5, 7.2, 3.0, "attention over digits\n$\\alpha_t$", LABELS),
    (13.1, 7.2, 2.4, "$y_t = \\sum_i \\alpha_{t,i}\\, d_i$", LABELS),
]
# The corners of each arrow.
ARROWS = [
    [(1.9, 2.8), (2.65, 2.8)],
    [(1.2, 2.4), (1.2, 1.0), (2.3, 1.0)],
    [(3.4, 1.4), (3.4, 2.4)],
    [(4.15, 2.8), (4.75, 2.8)],
    [(6.65, 2.8), (7.25, 2.8)],
    [(9.15, 2.8), (9.9, 2.8)],
    [(11.1, 2.8), (11.75, 2.8)],
    [(13.65, 2.8), (14.25, 2.8)],
    [(15.75, 2.8), (16.25, 2.8)],
    [(17.2, 3.2), (17.2, 4.5)],
    [(3.4, 5.3), (3.4, 3.2)],
    [(5.7, 5.3), (5.7, 3.2)],
    [(8.2, 5.3), (8.2, 4.7)],
    [(7.5, 6.1), (7.5, 6.8)],
    [(4.35, 7.2), (6.0, 7.2)],
    [(9.0, 7.2), (11.9, 7.2)],
    [(13.1, 6.8), (13.1, 3.2)],
]
# The prior stands in for the posterior where there is no image; the other two go on into the next step.
DASHED = [
    [(9.15, 4.3), (10.5, 4.3), (10.5, 3.2)],
    [(12.2, 3.2), (12.2, 5.3)],
    [(17.2, 2.4), (17.2, 1.0), (4.5, 1.0)],
]
NOTES = [
    (8.35, 3.55, "KL", "left"),
    (10.65, 4.3, "without\nan image", "left"),
    (12.3, 4.3, "next\nstep", "left"),
    (10.9, 0.72, "next step", "center"),
    (17.35, 3.85, "after step $T$", "left"),
]
LEGEND = {"reads the image (only where there is one)": ENCODES, "draws": DRAWS, "chooses a digit": LABELS}


def main() -> None:
    figure = Figure((12, 5.6))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 18.8), ylim=(-0.6, 8.0))
    axes.axis("off")
    for corners in ARROWS:
        draw_arrow(axes, corners, "-")
    for corners in DASHED:
        draw_arrow(axes, corners, (0, (4, 3)))
    axes.annotate("", (8.2, 3.2), (8.2, 3.9), arrowprops={"arrowstyle": "<|-|>", "color": INK, "lw": 1, "ls": ":"})
    for x, y, width, text, colour in BOXES:
        draw_box(axes, x, y, width, HEIGHT, colour)
        axes.text(x, y, text, ha="center", va="center", color=INK, fontsize=11, linespacing=1.25)
    for x, y, text, side in NOTES:
        axes.text(x, y, text, ha=side, va="center", color=INK, fontsize=9)
    for place, (text, colour) in enumerate(LEGEND.items()):
        left = (1.2, 8.0, 10.4)[place]
        draw_box(axes, left, -0.1, 0.4, 0.28, colour)
        axes.text(left + 0.4, -0.1, text, va="center", color=INK, fontsize=10)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=120)


def draw_box(axes: Axes, x: float, y: float, width: float, height: float, colour: str) -> None:
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(
        FancyBboxPatch(corner, width, height, "round,pad=0,rounding_size=0.1", facecolor=colour, edgecolor=INK)
    )


def draw_arrow(axes: Axes, corners: list[tuple[float, float]], style: object) -> None:
    """A line through the corners, with a head at its end."""
    axes.plot(*zip(*corners, strict=True), color=INK, linewidth=1.2, linestyle=style)
    head = {"arrowstyle": "-|>", "color": INK, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    (from_x, from_y), (x, y) = corners[-2:]
    length = max(abs(x - from_x), abs(y - from_y))
    axes.annotate("", (x, y), (x - 0.3 * (x - from_x) / length, y - 0.3 * (y - from_y) / length), arrowprops=head)


if __name__ == "__main__":
    main()
