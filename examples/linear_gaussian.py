"""Train the VAE whose optimum is known, and draw how its bound meets the likelihood (paper 004, sections 3 to 5).

    python examples/linear_gaussian.py --out docs/results/vae

Data are x ~ N(mu, sigma^2) in one dimension. Encoder N(a x + b, t^2) and decoder N(c z + v, s^2) learn by the bound of
one sample of z for each x, as those of any VAE do; all that is printed and drawn has no sample in it but the histogram.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Normal

from fastdraw import ops
from fastdraw.cli.arguments import Parser, count, folder
from fastdraw.errors import FastdrawError
from fastdraw.evaluation.plots import write_figure
from fastdraw.models.estimators import reparameterised_bound
from fastdraw.models.linear_gaussian import LinearGaussian

MU, SIGMA = 2.0, 1.5
COUNT, BATCH, RATE = 10_000, 512, 0.03
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"


def main(argv: Sequence[str]) -> None:
    """Train, print what was learned beside what is best, and write linear_gaussian.png."""
    parser = Parser(prog="linear_gaussian.py", description=__doc__)
    parser.add_argument("--steps", metavar="INT", type=count, default=1500, help="of training (default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", type=folder, default=Path("vae"), help="default: %(default)s")
    arguments = parser.parse_args(argv)
    # Before training: a folder that cannot be made is told of at once.
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    x = MU + SIGMA * torch.randn(COUNT, 1, dtype=torch.float64)
    model, bounds = train(x, arguments.steps)
    print_comparison(model, x)
    figure = Figure((11, 7.4), layout="constrained")
    (bound, divergence), (densities, limit) = figure.subplots(2, 2)
    draw_bound(bound, bounds)
    draw_divergence(divergence, bounds)
    draw_densities(densities, model)
    draw_limit(limit)
    write_figure(figure, arguments.out / "linear_gaussian.png")


def train(data: Tensor, steps: int) -> tuple[LinearGaussian, Tensor]:
    """A model of data (N, 1), and its mean ELBO and mean log p(x) after 0 to `steps` steps, (steps + 1, 2) in nats."""
    zero = data.new_zeros(1)
    model = LinearGaussian(a=0.0, b=zero, t=1.0, c=1.0, v=zero, s=0.5)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    bounds = [exact_bounds(model, data)]
    for _ in range(steps):
        x = data[torch.randint(len(data), (BATCH,))]
        noise = torch.randn(1, *x.shape, dtype=x.dtype)
        loss = -reparameterised_bound(model.log_joint, x, *model.encode(x), noise).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bounds.append(exact_bounds(model, data))
    return model, torch.stack(bounds)


@torch.no_grad()
def exact_bounds(model: LinearGaussian, x: Tensor) -> Tensor:
    return torch.stack([model.elbo(x).mean(), model.log_likelihood(x).mean()])


@torch.no_grad()
def print_comparison(model: LinearGaussian, x: Tensor) -> None:
    """Print the learned parameters beside those that are best for the same s, and the bound beside the likelihood."""
    variance = x.var(correction=0).item()
    best = LinearGaussian.optimum(x.mean(0), variance, model.log_s.exp().item())
    print(f"{'':10}{'learned':>10}{'best':>10}    (of those with this s)")
    for name, value in values(model).items():
        print(f"{name:10}{value:10.4f}{values(best)[name]:10.4f}")
    print(f"{'c^2 + s^2':10}{values(model)['c'] ** 2 + values(model)['s'] ** 2:10.4f}{variance:10.4f}")
    elbo, log_likelihood = exact_bounds(model, x).tolist()
    divergence = ops.gaussian_kl(*model.encode(x), *model.posterior(x)).mean().item()
    print(f"\nELBO {elbo:.6f} + KL(q(z | x) || p(z | x)) {divergence:.6f} = log p(x) {log_likelihood:.6f} nats")


def values(model: LinearGaussian) -> dict[str, float]:
    t, s = model.log_t.exp(), model.log_s.exp()
    parameters = {"a": model.a, "b": model.b, "t": t, "c": model.c, "v": model.v, "s": s}
    return {name: value.item() for name, value in parameters.items()}


def draw_bound(axes: Axes, bounds: Tensor) -> None:
    elbo, log_likelihood = bounds.T.tolist()
    steps = range(1, len(elbo) + 1)
    best = -math.log(2 * math.pi * math.e * SIGMA**2) / 2
    axes.axhline(best, color="0.5", linewidth=1, linestyle=":", label="$-$ entropy of the data")
    axes.plot(steps, log_likelihood, color=ORANGE, label="$\\log p(x)$")
    axes.plot(steps, elbo, color=BLUE, label="ELBO")
    axes.fill_between(
        steps, elbo, log_likelihood, color=GREEN, alpha=0.3, linewidth=0, label="KL$(q(z|x)\\,||\\,p(z|x))$"
    )
    axes.set(title="The bound meets the likelihood", ylim=(best - 4, best + 0.3), ylabel="nats per x")
    axes.set(xlabel="training step, the first is 1", xscale="log")
    axes.legend(frameon=False)
    finish(axes)


def draw_divergence(axes: Axes, bounds: Tensor) -> None:
    elbo, log_likelihood = bounds.T
    axes.loglog(range(1, len(elbo) + 1), (log_likelihood - elbo).tolist(), color=GREEN, linewidth=1)
    axes.set(title="What is between them: KL$(q(z|x)\\,||\\,p(z|x))$", ylabel="nats per x")
    axes.set_xlabel("training step, the first is 1")
    finish(axes)


@torch.no_grad()
def draw_densities(axes: Axes, model: LinearGaussian) -> None:
    x = torch.linspace(MU - 4 * SIGMA, MU + 4 * SIGMA, 400, dtype=torch.float64)
    mean, log_s = model.decode(torch.randn(COUNT, 1, dtype=torch.float64))
    drawn = mean + log_s.exp() * torch.randn_like(mean)
    axes.hist(
        drawn[:, 0].tolist(), bins=60, density=True, color="0.85", label="draws $\\hat x = c z + v + s \\epsilon$"
    )
    axes.plot(x.tolist(), Normal(MU, SIGMA).log_prob(x).exp().tolist(), color=BLUE, linewidth=3, label="of the data")
    learned = model.log_likelihood(x[:, None]).exp().tolist()
    axes.plot(x.tolist(), learned, color=ORANGE, linestyle="--", label="learned $p(x)$")
    axes.set(title="Densities of x", xlabel="$x$")
    axes.legend(frameon=False)
    finish(axes)


@torch.no_grad()
def draw_limit(axes: Axes) -> None:
    """The best q(z | x) of one x for ever smaller s."""
    x = MU + 1.0
    z = torch.linspace(-1, 2, 1000, dtype=torch.float64)
    for share, colour in ((0.8, BLUE), (0.4, GREEN), (0.2, ORANGE), (0.1, PINK)):
        best = LinearGaussian.optimum(torch.tensor([MU], dtype=torch.float64), SIGMA**2, share * SIGMA)
        mu, log_t = best.encode(torch.tensor([[x]], dtype=torch.float64))
        density = Normal(mu[0], log_t[0].exp()).log_prob(z).exp()
        axes.plot(z.tolist(), density.tolist(), color=colour, label=f"$s = {share} \\sigma$")
    axes.axvline((x - MU) / SIGMA, color="0.3", linewidth=1, linestyle=":", label="$(x - \\mu) / \\sigma$")
    axes.set(title=f"As s vanishes, q(z | x = {x:g}) becomes a delta", xlabel="$z$", ylim=(0, None))
    axes.legend(frameon=False)
    finish(axes)


def finish(axes: Axes) -> None:
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (FastdrawError, OSError) as error:
        sys.exit(f"error: {error}")
