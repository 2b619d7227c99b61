"""What training minimises: NLL + beta KL, and for the later stages of a multi-stage VAE what refines their images."""

import torch
from torch import Tensor, nn

from fastdraw.errors import FastdrawError
from fastdraw.models import Model, Vae
from fastdraw.training.refinement import refinement_loss
from fastdraw.training.settings import Settings


class Objective(nn.Module):
    """A model with its loss; called as the model, it returns the mean of every term over the images of a batch.

    Args:
        refinement: a module from images (B, C, H, W) and the real ones to losses (B,), in the place of the one that
            `settings.refinement` names. It sees the images of every stage after the first; their losses are added up.
    Attributes:
        names: of the terms: nll and kl in nats, and refinement, in its own unit, where there is one.
        weights: (terms,) float64, of each in the loss.
    Raises:
        FastdrawError: a refinement for a model that has none, or the weights of its network are missing.
    """

    def __init__(self, model: Model, settings: Settings, refinement: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.names = ["nll", "kl"]
        weights = [1.0, settings.beta]
        self.refinement: nn.Module | None = None
        if isinstance(model, Vae) and model.config.refiners and model.config.likelihood_of == "first":
            self.refinement = refinement_loss(settings.refinement, model.config) if refinement is None else refinement
            self.names.append("refinement")
            weights.append(settings.refinement.weight)
        elif refinement is not None:
            raise FastdrawError(
                "a refinement loss is of a multi-stage VAE: expected model.refiners of 1 or more, likelihood_of first"
            )
        self.weights = torch.tensor(weights, dtype=torch.float64)

    def forward(self, image: Tensor, labels: Tensor, lengths: Tensor, noise: Tensor) -> Tensor:
        """The terms (terms,), for arguments as of the model."""
        return self.terms(self.model, image, labels, lengths, noise)

    def terms(self, model: Model, image: Tensor, labels: Tensor, lengths: Tensor, noise: Tensor) -> Tensor:
        """The terms of another model of the same kind, such as one with averaged weights."""
        output = model(image, labels, lengths, noise)
        terms = [output.nll.mean(), output.kl.sum(0).mean()]
        if self.refinement is not None:
            terms.append(torch.stack([self.refinement(stage, image).mean() for stage in output.stages[1:]]).sum())
        return torch.stack(terms)

    def loss(self, terms: Tensor) -> Tensor:
        """The weighted sum of the terms."""
        return terms @ self.weights.to(terms)

    def named(self, terms: list[float]) -> dict[str, float]:
        """The loss and its terms by name."""
        loss = sum(weight * term for weight, term in zip(self.weights.tolist(), terms, strict=True))
        return {"loss": loss, **dict(zip(self.names, terms, strict=True))}
