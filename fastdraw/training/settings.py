"""Settings of a training run, and the presets: files that hold only what differs from the defaults."""

import math
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from fastdraw.data.captions import WORDS, WORDS_IN_CAPTION
from fastdraw.errors import FastdrawError
from fastdraw.models import DrawConfig, VaeConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRESETS = resources.files("fastdraw.presets")
DEVICE = r"^(auto|cpu|cuda(:[0-9]{1,2})?)$"
# Height and width of the images; what is not here comes in any size, the model's.
SIZES = {"mnist": (32, 64), "svhn": (32, 64), "digits": (28, 28), "binarised": (28, 28), "captions": (60, 60)}
COLOUR = ("svhn", "celeba", "folder")  # come in grey or in colour
UNLABELLED = ("celeba", "folder")
SHOWN = 200  # characters of what came, in an error
ONE_LENGTH = ("digits", "binarised", "captions", *UNLABELLED)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _absolute(path: Path | None) -> Path | None:
    """The same place wherever a run is resumed from."""
    try:
        return path and path.expanduser().absolute()
    except RuntimeError:
        raise ValueError(f"{path} is in the home of a user whom this machine does not know") from None


AbsolutePath = Annotated[Path | None, AfterValidator(_absolute)]


class DataSettings(_Section):
    """Where the images come from, and how many digits stand in one."""

    source: Literal["mnist", "svhn", "digits", "binarised", "captions", "celeba", "folder"] = Field(
        "mnist",
        description="MNIST digits in a row, house numbers, single MNIST digits, these binarised, MNIST with captions, "
        "faces, or a folder of images",
    )
    root: AbsolutePath = Field(
        None,
        description="folder that holds MNIST/raw/, SVHN's train/ and test/, img_align_celeba/, or images; "
        "none: the MNIST sample in the package",
    )
    download: bool = Field(False, description="fetch the data into the root first where it is missing")
    align: Literal["right", "slots", "goodfellow"] = Field("right", description="how SVHN's digits are laid out")
    channels: int = Field(1, description="1 for grey, or 3 for the colour of SVHN, faces and a folder of images")
    lengths: tuple[float, float, float, float] = Field(
        (0.25, 0.25, 0.25, 0.25), description="weights of images with 1, 2, 3 and 4 digits"
    )
    leave_out: tuple[int, ...] = Field((), description="single digits that are neither trained on nor tested on")

    @model_validator(mode="after")
    def _check(self) -> "DataSettings":
        if min(self.lengths) < 0 or not 0 < sum(self.lengths) < math.inf:
            raise ValueError("lengths must be weights >= 0 that are not all 0, with a finite sum")
        if self.download and self.root is None:
            raise ValueError("download needs a folder to put the data into: give it as --root DIR")
        if self.download and self.source == "folder":
            raise ValueError("download cannot fetch a folder of images: put them there, and leave it out")
        if self.channels not in ((1, 3) if self.source in COLOUR else (1,)):
            raise ValueError(f"data.channels must be {'1 or 3' if self.source in COLOUR else 1}, got {self.channels}")
        if self.leave_out and self.source != "digits":
            raise ValueError(f"data.leave_out must be empty, as only digits can be left out, not {self.source}")
        left = set(self.leave_out)
        if len(left) < len(self.leave_out) or not left < set(range(10)):
            raise ValueError(f"data.leave_out must be digits 0 to 9, none twice and not all, got {self.leave_out}")
        return self

    @property
    def longest(self) -> int:
        """Labels of the longest image that is trained on."""
        if self.source == "captions":
            return WORDS_IN_CAPTION
        if self.source in ONE_LENGTH:
            return 1
        return max(length for length, weight in enumerate(self.lengths, 1) if weight > 0)

    @property
    def trained(self) -> dict[int, float]:
        """The numbers of labels that images are trained on with, and their weights."""
        if self.source in ONE_LENGTH:
            return {self.longest: 1.0}
        return {length: weight for length, weight in enumerate(self.lengths, 1) if weight > 0}

    def alone(self, length: int) -> "DataSettings":
        """The same settings for images of one length only."""
        weights = tuple(float(length == other) for other in range(1, len(self.lengths) + 1))
        return self.model_copy(update={"lengths": weights})

    @property
    def symbols(self) -> int:
        """Number of different labels."""
        return len(WORDS) if self.source == "captions" else 10

    def at(self, root: Path | None) -> "DataSettings":
        """The same settings with the data at another place; None: no change."""
        return self if root is None else self.model_copy(update={"root": root})


class OptimiserSettings(_Section):
    """Adam, its learning rate over time, and the average of the weights."""

    lr: float = Field(3e-4, gt=0, lt=1, description="highest learning rate")
    betas: tuple[float, float] = Field((0.9, 0.999), description="decay of Adam's two moments")
    clip: float = Field(10.0, ge=0, description="largest global norm of the gradient; 0: any")
    warmup: int = Field(0, ge=0, description="steps over which the learning rate rises from 0")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate after the warm-up")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights that draw and are tested; 0: none")

    @model_validator(mode="after")
    def _check(self) -> "OptimiserSettings":
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas must lie in [0, 1)")
        return self


class CurriculumSettings(_Section):
    """Short numbers first (paper 000, section III-D): stage s trains on the s-th of the lengths that have a weight."""

    kind: Literal["none", "staged", "cumulative"] = Field(
        "none", description="one mixture; each length alone, in turn (the paper); or all lengths up to the stage's"
    )
    shares: tuple[float, float, float, float] = Field(
        (1, 1, 1, 1), description="shares of the training steps for the stages, by length"
    )

    @model_validator(mode="after")
    def _check(self) -> "CurriculumSettings":
        if not all(0 < share < math.inf for share in self.shares):
            raise ValueError("curriculum.shares must be finite numbers > 0")
        return self

    def stages(self, lengths: Sequence[float], steps: int) -> list[tuple[tuple[float, ...], int]]:
        """Weights of the lengths in each stage, and the step (from 0) at which it starts; the first starts at 0."""
        if self.kind == "none":
            return [(tuple(lengths), 0)]
        trained = [place for place, weight in enumerate(lengths) if weight > 0]
        total = sum(self.shares[place] for place in trained)
        stages, before = [], 0.0
        for stage in trained:
            weights = tuple(
                weight * (place == stage or (place < stage and self.kind == "cumulative"))
                for place, weight in enumerate(lengths)
            )
            stages.append((weights, round(steps * before / total)))
            before += self.shares[stage]
        return stages


class RefinementSettings(_Section):
    """What the images of the stages after the likelihood's are compared with the real ones by (paper 003, eq. 12).

    Every loss is a sum over pixels as the NLL is, though not in nats: its weight is that of one unit of it to one nat.
    """

    loss: Literal["l1", "l2", "perceptual", "adversarial"] = Field("l1", description="of a multi-stage VAE's refiners")
    weight: float = Field(1.0, gt=0, lt=1e9, description="of that loss, a sum over pixels, beside NLL and KL")
    features: AbsolutePath = Field(
        None, description="safetensors file of torchvision's VGG16 for the perceptual loss; none: torchvision's cache"
    )


def _kind(config: Any) -> str:
    """Runs from before there were VAEs do not say what their model is."""
    kind = config.get("kind", "draw") if isinstance(config, Mapping) else getattr(config, "kind", "draw")
    return str(kind)


MODELS: dict[str, type[DrawConfig] | type[VaeConfig]] = {"draw": DrawConfig, "vae": VaeConfig}
ModelConfig = Annotated[
    Annotated[DrawConfig, Tag("draw")] | Annotated[VaeConfig, Tag("vae")],
    Discriminator(_kind),
]


class Settings(_Section):
    """All that determines a training run."""

    model: ModelConfig = Field(default_factory=DrawConfig)
    data: DataSettings = Field(default_factory=DataSettings)
    curriculum: CurriculumSettings = Field(default_factory=CurriculumSettings)
    refinement: RefinementSettings = Field(default_factory=RefinementSettings)
    optimiser: OptimiserSettings = Field(default_factory=OptimiserSettings)
    beta: float = Field(1.0, ge=0, lt=1e9, description="weight of the KL in the loss (beta-VAE)")
    steps: int = Field(100_000, ge=1, description="training steps in all")
    batch_size: int = Field(100, ge=1, lt=2**31, description="images in a batch")
    accumulate: int = Field(1, ge=1, lt=2**31, description="parts of a batch, taken one after the other to save memory")
    mixed: bool = Field(False, description="batches of images of all lengths; or else of one length each")
    samples: int = Field(1, ge=1, le=1000, description="samples of z for each image in the bound, S")
    seed: int = Field(0, ge=0, lt=2**63, description="of the weights, the batches and the noise")
    explode: float = Field(
        10.0, gt=1, description="training stops at a loss this many times the median size of the 100 before"
    )
    log_every: int = Field(10, ge=1, description="steps between two rows of training metrics")
    evaluate_every: int = Field(1000, ge=1, description="steps between two measurements of the test bound")
    checkpoint_every: int = Field(500, ge=1, description="steps between two checkpoints")
    test_batches: int = Field(10, ge=1, description="test batches in a measurement")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the products of a training step; weights and sums stay float32"
    )
    device: str = Field("auto", pattern=DEVICE, description="auto, cpu, cuda or cuda:N")
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; none: PyTorch's choice")

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        height, width = SIZES.get(self.data.source, (self.model.height, self.model.width))
        for name, size in (("height", height), ("width", width), ("channels", self.data.channels)):
            if getattr(self.model, name) != size:
                raise ValueError(f"model.{name} must be {size}, the {name} of the images")
        longest = self.data.longest
        if self.curriculum.kind != "none" and self.data.source in ONE_LENGTH:
            raise ValueError(f"curriculum.kind must be none, as all images of {self.data.source} are of one length")
        if isinstance(self.model, DrawConfig):
            self._check_labels(self.model, longest)
        return self

    def _check_labels(self, model: DrawConfig, longest: int) -> None:
        if model.labels != "none" and self.data.source in UNLABELLED:
            raise ValueError(f"model.labels must be none, as the images of {self.data.source} have no labels")
        if model.labels == "digits" and longest > model.positions:
            raise ValueError(f"model.positions must be at least {longest}, the labels of the longest image")
        if model.labels != "none" and model.symbols != self.data.symbols:
            raise ValueError(f"model.symbols must be {self.data.symbols}, the different labels of {self.data.source}")

    def at(self, root: Path | None) -> "Settings":
        """The same settings with the data at another place; None: no change."""
        return self.model_copy(update={"data": self.data.at(root)})

    def with_steps(self, steps: int) -> "Settings":
        """The same settings with another number of steps.

        Raises:
            FastdrawError: steps < 1.
        """
        return parse_settings(self.model_dump() | {"steps": steps})


def preset_names() -> list[str]:
    """The names that `resolve` knows."""
    return sorted(file.name.removesuffix(".toml") for file in PRESETS.iterdir() if file.name.endswith(".toml"))


def resolve(preset: str | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Lay a preset and then overrides over the defaults.

    Args:
        preset: a name from `preset_names`, or several joined by +, each laid over those before; None: the defaults.
        overrides: values by dotted name, such as {"model.hidden": 256}; text is read as the setting's type.
    Raises:
        FastdrawError: no such preset, no such setting, or a value out of its range.
    """
    values: dict[str, Any] = {}
    for name in preset.split("+") if preset is not None else ():
        if name not in preset_names():
            raise FastdrawError(f"no preset {name!r}: expected one of {', '.join(preset_names())}")
        _lay_over(values, tomllib.loads((PRESETS / f"{name}.toml").read_text("utf-8")))
    for name, value in (overrides or {}).items():
        for part in reversed(name.split(".")):
            value = {part: value}
        _lay_over(values, value)
    return parse_settings(values)


def _lay_over(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, change in changes.items():
        if isinstance(change, Mapping):
            _lay_over(values.setdefault(name, {}), change)
        else:
            values[name] = change


def parse_settings(values: Mapping[str, Any] | str) -> Settings:
    """Validate nested values, or their JSON text; what is missing takes its default.

    Raises:
        FastdrawError: in one line, what is wrong first.
    """
    try:
        return Settings.model_validate_json(values) if isinstance(values, str) else Settings.model_validate(values)
    except ValidationError as error:
        raise FastdrawError(_one_line(error)) from None


def fields(section: BaseModel) -> dict[str, Any]:
    """Every setting's pydantic field by its dotted name, but for a model's kind, which a preset says."""
    found: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            found |= {f"{name}.{inner}": field for inner, field in fields(value).items()}
        elif name != "kind" or not isinstance(section, DrawConfig | VaeConfig):
            found[name] = field
    return found


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    # The kind of a model stands in the place of an error, but in no name of a setting.
    kind = next((part for part in first["loc"][1:2] if part in MODELS and first["loc"][0] == "model"), "draw")
    name = ".".join(str(part) for number, part in enumerate(first["loc"]) if not (number == 1 and part in MODELS))
    if first["type"] == "extra_forbidden":
        known = fields(Settings.model_construct(model=MODELS[str(kind)]()))
        return f"no setting {name!r}: expected one of {', '.join(known)}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"settings: {message}"
    if first["type"] == "json_invalid":
        return message
    if first["type"] == "union_tag_invalid":
        return f"setting model.kind: expected {' or '.join(MODELS)}, got {first['ctx']['tag']!r}"
    came = repr(first["input"])
    return f"setting {name}: {message[0].lower()}{message[1:]}, got {came[:SHOWN]}{'..' * (len(came) > SHOWN)}"
