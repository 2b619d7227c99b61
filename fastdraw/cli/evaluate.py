"""fastdraw evaluate"""

import json
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastdraw.cli.arguments import Parser, count, device_argument, folder, root_argument, run_argument
from fastdraw.errors import FastdrawError

if TYPE_CHECKING:
    from fastdraw.data import Batch
    from fastdraw.models import Model, Vae
    from fastdraw.models.classifier import DigitClassifier
    from fastdraw.training import Settings
    from fastdraw.training.settings import DataSettings

BATCH = 100
SEED = 0


def main(argv: Sequence[str]) -> None:
    """Measure the test bound and the legibility of drawn digits; print it and write it to RUN/evaluation.json."""
    parser = Parser(
        prog="fastdraw evaluate",
        description="Measure the test bound and, where a model is told digits, how many drawn images are read as\n"
        "asked; print both as JSON and write them to RUN/evaluation.json, and the KL of every step to\n"
        "RUN/kl_by_step.png, or of a VAE that of every number of z to RUN/kl_by_dimension.png.",
        epilog="examples:\n  fastdraw evaluate runs/seqdraw --images 1000\n"
        "  fastdraw evaluate runs/vae --importance 50",
    )
    run_argument(parser)
    parser.add_argument(
        "--images", metavar="INT", type=count, default=1000, help="per length, test and drawn (default: %(default)s)"
    )
    parser.add_argument(
        "--classifier",
        metavar="DIR",
        type=folder,
        help="have a classifier (the --out folder of fastdraw train-classifier) read what is drawn and redrawn, too",
    )
    parser.add_argument(
        "--importance",
        metavar="K",
        type=count,
        help="measure the importance-weighted bound, too, with K samples of z for each image",
    )
    root_argument(parser)
    device_argument(parser)
    args = parser.parse_args(argv)

    from fastdraw.cli.drawing import told
    from fastdraw.evaluation import kl_bars, kl_by_step, load_classifier
    from fastdraw.files import write_atomically
    from fastdraw.models import Vae
    from fastdraw.training import load_model
    from fastdraw.training.loop import pick_device

    model, settings = load_model(args.run, args.device)
    settings = settings.at(args.root)
    classifier = None
    if args.classifier is not None:
        if told(settings) != "digits":
            raise FastdrawError(f"{args.run} is told no digits, so no classifier can read whether it drew them")
        classifier = load_classifier(args.classifier, pick_device(args.device))
        _check_classifier(classifier, settings)
    report = measure(model, settings, args.images, classifier, args.importance or 0)
    try:
        text = json.dumps(report, indent=2, allow_nan=False)
    except ValueError:
        raise FastdrawError(
            f"the model of {args.run} gives a bound that is not finite: train again, with a lower --optimiser.lr"
        ) from None
    write_atomically(args.run / "evaluation.json", f"{text}\n".encode())
    bounds = report["test"]["by_length"]
    if isinstance(model, Vae):
        kls = {length: bound["kl_by_dimension"] for length, bound in bounds.items()}
        active = {length: bound["active_units"] for length, bound in bounds.items() if "active_units" in bound}
        kl_bars(kls, active, args.run / "kl_by_dimension.png")
    else:
        kl_by_step({length: bound["kl_by_step"] for length, bound in bounds.items()}, args.run / "kl_by_step.png")
    print(text)  # at the end: where it is read by a program that has ended, what was measured is kept


def measure(
    model: "Model",
    settings: "Settings",
    images: int,
    classifier: "DigitClassifier | None" = None,
    samples: int = 0,
) -> dict[str, Any]:
    """Measure a model on `images` drawn images and at most as many test ones of every length that it was trained on.

    Args:
        classifier: to read what is drawn and redrawn, of 1 to 4 digits.
        samples: of z for each image in the importance-weighted bound; 0 leaves it out.
    Returns:
        test: nll, kl and bound in nats per image, each length weighted as in training, and so for each length alone,
        there with the KL of every step, or of a VAE what `_of_vae` finds, and with the importance-weighted bound;
        accuracy, where a model is told digits that lie in slots: for each length, how many drawn images are read as
        asked in all digits, with a Wilson 95 % interval; reader: the reader's accuracy on held-out real digits;
        classifier: what it reads right, by length; settings; versions.
    """
    import torch

    import fastdraw
    from fastdraw.cli.drawing import told
    from fastdraw.data import Batch
    from fastdraw.evaluation import importance_weighted_bound
    from fastdraw.models import Vae
    from fastdraw.training import held_out_images
    from fastdraw.training.bound import measure_by_step

    data = settings.data
    real = {length: held_out_images(settings, length, images) for length in data.trained}
    bounds: dict[int, dict[str, Any]] = {}
    for length, tests in real.items():
        batches = [Batch(*part) for part in zip(*(tensor.split(BATCH) for tensor in tests), strict=True)]
        nll, kls = measure_by_step(model, batches)
        bounds[length] = {"nll": nll, "kl": sum(kls), "bound": nll + sum(kls)}
        bounds[length] |= _of_vae(model, settings, batches) if isinstance(model, Vae) else {"kl_by_step": kls}
        if samples:
            weighted = importance_weighted_bound(model, batches, samples)
            bounds[length]["importance_weighted"] = weighted._asdict() | {"samples": samples}
    total = sum(data.trained.values())
    mean = {
        key: sum(weight * bounds[length][key] for length, weight in data.trained.items()) / total
        for key in ("nll", "kl", "bound")
    }
    return {
        "test": mean | {"by_length": bounds},
        **(_read(model, data, images) if data.source == "mnist" and told(settings) == "digits" else {}),
        **(_classify(model, real, images, classifier) if classifier is not None else {}),
        "settings": settings.model_dump(mode="json"),
        "versions": {
            "fastdraw": fastdraw.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _of_vae(model: "Vae", settings: "Settings", batches: "list[Batch]") -> dict[str, Any]:
    """The KL of every number of z, the active units, and what training minimises: loss, refinement where there is one.

    Active units take at least two images. The other two are left out where a network compares images, as a finished
    model comes without it.
    """
    import torch

    from fastdraw.evaluation import active_units, embed, kl_by_dimension
    from fastdraw.training.bound import noise_for
    from fastdraw.training.objective import Objective

    codes = torch.cat([embed(model, batch) for batch in batches], dim=1)
    found: dict[str, Any] = {"kl_by_dimension": kl_by_dimension(model, batches).tolist()}
    if codes.shape[1] > 1:  # units are active by a variance over images
        found["active_units"] = active_units(codes)
    refined = model.config.refiners and model.config.likelihood_of == "first"
    if refined and settings.refinement.loss not in ("l1", "l2"):
        return found
    objective, generator = Objective(model, settings), torch.Generator().manual_seed(SEED)
    sums = torch.zeros(len(objective.names), dtype=torch.float64)
    for batch in batches:
        noise = noise_for(model, batch.labels, generator)
        with torch.no_grad():
            terms = objective(*(tensor.to(noise.device) for tensor in batch), noise)
        sums += len(batch.image) * terms.double().cpu()
    terms = objective.named((sums / codes.shape[1]).tolist())
    return found | {name: terms[name] for name in terms if name not in ("nll", "kl")}


def _check_classifier(classifier: "DigitClassifier", settings: "Settings") -> None:
    """Refuse a classifier of other images before anything is measured."""
    read, drawn = (
        f"{config.channels} x {config.height} x {config.width}" for config in (classifier.config, settings.model)
    )
    if read != drawn or classifier.config.longest < settings.data.longest:
        raise FastdrawError(
            f"the classifier reads up to {classifier.config.longest} digits from images of {read}, and the model draws "
            f"up to {settings.data.longest} on {drawn}: train another with fastdraw train-classifier"
        )


def _read(model: "Model", data: "DataSettings", images: int) -> dict[str, Any]:
    """How many drawn images a reader of single slots reads as asked, and how well it reads real digits."""
    import torch

    from fastdraw.data import load_cells
    from fastdraw.evaluation import accuracy, read_digits, reader_accuracy, train_reader
    from fastdraw.evaluation.judging import draw_images

    reader = train_reader(load_cells(data.root, "train"), SEED)
    # One stream for all: the noise of a drawing owes nothing to the digits that it is asked for.
    generator = torch.Generator().manual_seed(SEED)
    accuracies = {}
    for length in data.trained:
        asked = torch.randint(10, (images, length), generator=generator)
        drawn = draw_images(model, asked, torch.full((images,), length), generator)
        accuracies[length] = accuracy(read_digits(reader, drawn, length), asked)._asdict()
    return {"accuracy": accuracies, "reader": reader_accuracy(reader, load_cells(data.root, "test"))._asdict()}


def _classify(model: "Model", real: "dict[int, Batch]", images: int, classifier: "DigitClassifier") -> dict[str, Any]:
    """What a classifier reads right of real test images, of samples of the prior and of reconstructions, by length."""
    from fastdraw.evaluation.judging import judge_prior, judge_reconstructions, judge_test_images

    counts = {
        length: {
            "real": judge_test_images(classifier, batch).model_dump(),
            "prior": judge_prior(model, classifier, batch, images, SEED).model_dump(),
            "reconstructed": judge_reconstructions(model, classifier, batch, SEED).model_dump(),
        }
        for length, batch in real.items()
    }
    return {"classifier": counts}
