"""Draw a VAE and its reparameterisation, as Figures 1 and 2 of paper 002 do, into docs/figures/vae.png.

python scripts/vae_figure.py
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from model_figure import DRAWS, ENCODES, HEIGHT, INK, LABELS, PLAIN, WIDTH, draw_arrow, draw_box

OUT = Path(__file__).parents[1] / "docs" / "figures" / "vae.png"
GRADIENT = "#D55E00"
# Centre, width, text, colour.
MODEL = [
    (1.2, 5.6, 1.4, "image\n$x$", PLAIN),
    (3.8, 5.6, WIDTH, "encoder\n$\\phi$", ENCODES),
    (6.6, 6.2, 1.5, "$\\mu_\\phi(x)$", ENCODES),
    (6.6, 5.0, 1.5, "$\\sigma_\\phi(x)$", ENCODES),
    (9.8, 5.6, 2.3, "$z = \\mu + \\sigma \\odot \\epsilon$", PLAIN),
    (9.8, 7.2, 2.3, "$\\epsilon \\sim N(0, I)$", LABELS),
    (13.0, 5.6, WIDTH, "decoder\n$\\theta$", DRAWS),
    (16.2, 5.6, 2.2, "$p_\\theta(x \\mid z)$", DRAWS),
]
MODEL_ARROWS = [
    [(1.9, 5.6), (2.85, 5.6)],
    [(4.75, 5.8), (5.3, 5.8), (5.3, 6.2), (5.85, 6.2)],
    [(4.75, 5.4), (5.3, 5.4), (5.3, 5.0), (5.85, 5.0)],
    [(7.35, 6.2), (8.0, 6.2), (8.0, 5.8), (8.65, 5.8)],
    [(7.35, 5.0), (8.0, 5.0), (8.0, 5.4), (8.65, 5.4)],
    [(9.8, 6.8), (9.8, 6.0)],
    [(10.95, 5.6), (12.05, 5.6)],
    [(13.95, 5.6), (15.1, 5.6)],
]
# Left: z is drawn, and the gradient ends at it. Right: z is computed, of noise that is drawn.
PARTS = [
    (1.6, 1.4, 1.9, "$\\mu, \\sigma$", ENCODES),
    (4.6, 1.4, 2.3, "$z \\sim q_\\phi(z \\mid x)$", LABELS),
    (7.4, 1.4, 1.2, "$f(z)$", DRAWS),
    (10.6, 1.4, 1.9, "$\\mu, \\sigma$", ENCODES),
    (13.6, 1.4, 2.3, "$z = \\mu + \\sigma \\odot \\epsilon$", PLAIN),
    (13.6, 3.0, 2.3, "$\\epsilon \\sim N(0, I)$", LABELS),
    (16.4, 1.4, 1.2, "$f(z)$", DRAWS),
]
PART_ARROWS = [
    [(2.55, 1.4), (3.45, 1.4)],
    [(5.75, 1.4), (6.8, 1.4)],
    [(11.55, 1.4), (12.45, 1.4)],
    [(14.75, 1.4), (15.8, 1.4)],
    [(13.6, 2.6), (13.6, 1.8)],
]
GRADIENT_ARROWS = [
    [(7.4, 1.0), (7.4, 0.5), (4.6, 0.5), (4.6, 1.0)],
    [(16.4, 1.0), (16.4, 0.5), (13.9, 0.5), (13.9, 1.0)],
    [(13.3, 1.0), (13.3, 0.5), (10.6, 0.5), (10.6, 1.0)],
]
NOTES = [
    (0.5, 7.4, "What a VAE computes", 12),
    (0.5, 3.9, "$z$ drawn: the gradient ends there", 12),
    (9.5, 3.9, "$z$ computed from noise: it goes on", 12),
    (5.9, 4.2, "$\\mathrm{KL}(q_\\phi(z \\mid x) \\,||\\, N(0, I))$", 10),
    (15.4, 4.8, "$-\\log p_\\theta(x \\mid z)$", 10),
]


def main() -> None:
    figure = Figure((12, 5.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 18), ylim=(-0.1, 8.0))
    axes.axis("off")
    for corners in MODEL_ARROWS + PART_ARROWS:
        draw_arrow(axes, corners, "-")
    for corners in GRADIENT_ARROWS:
        draw_gradient(axes, corners)
    for x, y, width, text, colour in MODEL + PARTS:
        draw_box(axes, x, y, width, HEIGHT, colour)
        axes.text(x, y, text, ha="center", va="center", color=INK, fontsize=11, linespacing=1.25)
    for x, y, text, size in NOTES:
        axes.text(x, y, text, ha="left", va="center", color=INK, fontsize=size)
    axes.text(6.0, 0.2, "gradient", ha="center", va="center", color=GRADIENT, fontsize=10)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=120)


def draw_gradient(axes: Axes, corners: list[tuple[float, float]]) -> None:
    axes.plot(*zip(*corners, strict=True), color=GRADIENT, linewidth=1.2, linestyle=(0, (4, 3)))
    head = {"arrowstyle": "-|>", "color": GRADIENT, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    x, y = corners[-1]
    axes.annotate("", (x, y), (x, y - 0.3), arrowprops=head)


if __name__ == "__main__":
    main()
