"""Measure what lies halfway between two codes, on a line and on an arc, and keep it in docs/results/vae/ways.json.

python scripts/ways.py RUN [ROOT]

RUN: of a VAE on digits. ROOT: the folder of MNIST, if it is not the run's. Takes test images in pairs of two different
digits, and of each pair the image that the code halfway decodes to. How likely the model itself holds such an image to
be is the bound on its -log p(x), in nats, which stands beside that of the reconstructions.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keeping import DOCS, to_json, write_files
from torch import Tensor

from fastdraw.data import Batch
from fastdraw.errors import FastdrawError
from fastdraw.evaluation import bounds_by_image, decode, embed, interpolate
from fastdraw.evaluation.intervals import mean
from fastdraw.models import Model, Vae
from fastdraw.training import held_out_images, load_model

IMAGES = 2000
PART = 500


def halfway(model: Model, batch: Batch) -> dict[str, Any]:
    """The mean bound of reconstructions, and of images halfway on lines and on arcs, with 95 % intervals."""
    different = batch.labels[:-1:2, 0] != batch.labels[1::2, 0]
    first, last = (Batch(*(tensor[side : len(tensor) // 2 * 2 : 2][different] for tensor in batch)) for side in (0, 1))
    images = {"reconstructions": decode(model, embed(model, first))}
    for name, line in (("line", True), ("arc", False)):
        images[name] = interpolate(model, first, last, 3, line)[1]
    bounds = {name: _bounds(model, first._replace(image=of_name)) for name, of_name in images.items()}
    return {"pairs": len(first.image), **{name: mean(values)._asdict() for name, values in bounds.items()}}


def _bounds(model: Model, batch: Batch) -> Tensor:
    return bounds_by_image(model, [Batch(*part) for part in zip(*(x.split(PART) for x in batch), strict=True)], 1)


def main(arguments: Sequence[str], target: Path = DOCS / "vae") -> None:
    if not 1 <= len(arguments) <= 2:
        sys.exit(__doc__)
    try:
        model, settings = load_model(Path(arguments[0]))
        if not isinstance(model, Vae) or settings.data.source != "digits":
            raise FastdrawError(f"{arguments[0]} is no run of a VAE on digits")
        root = Path(arguments[1]) if len(arguments) > 1 else None
        found = halfway(model, held_out_images(settings.at(root), 1, IMAGES))
        kept = {"settings": settings.model_dump(mode="json", exclude={"data": {"root", "download"}})}
        write_files({"ways.json": to_json(found | kept)}, target)
    except FastdrawError as error:
        sys.exit(f"ways: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
