"""Refinement losses: their values, what they train, and the weights that the perceptual one needs."""

import copy
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from fastdraw.errors import FastdrawError
from fastdraw.models import VaeConfig
from fastdraw.training import load_model, resume, train
from fastdraw.training.checkpoint import read_checkpoint
from fastdraw.training.refinement import ADVERSARIAL, FETCH, Adversarial, Distance, Perceptual, refinement_loss
from fastdraw.training.settings import RefinementSettings
from fastdraw.training.state import TrainingState
from tests.training.tiny import tiny_vae

CONFIG = VaeConfig(likelihood="gaussian", refiners=1, height=9, width=14)
URL = "torchvision.models._api.load_state_dict_from_url"


@pytest.fixture(scope="module")
def vgg16() -> nn.Sequential:
    """torchvision's own layers, with fresh weights."""
    torch.manual_seed(0)
    return make_layers(cfgs["D"], batch_norm=False)


@pytest.fixture(scope="module")
def tensors(vgg16: nn.Sequential) -> dict[str, Tensor]:
    """Of VGG16, as torchvision names them, up to relu4_1."""
    return {f"features.{name}": tensor.detach() for name, tensor in vgg16[:19].named_parameters()}


@pytest.fixture(scope="module")
def features(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.safetensors"
    save_file(tensors | {"classifier.6.bias": torch.zeros(1000)}, path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torchvision's folder of weights, empty, and without a way to fill it."""
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(URL, lambda *_, **__: pytest.fail("a download was tried"))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints" / "vgg16-397923af.pth"


def images(channels: int = 1, batch: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (batch, channels, CONFIG.height, CONFIG.width)
    return torch.rand(shape, generator=generator).requires_grad_(), torch.rand(shape, generator=generator)


def perceptual(features: Path | None) -> nn.Module:
    return refinement_loss(RefinementSettings(loss="perceptual", features=features), CONFIG)


def test_l1_and_l2_are_sums_over_pixels_and_channels() -> None:
    image, target = torch.tensor([[[[0.5, 1.0]], [[0.0, -1.0]]]]), torch.tensor([[[[0.0, 1.0]], [[1.0, 1.0]]]])
    assert refinement_loss(RefinementSettings(loss="l1"), CONFIG)(image, target).tolist() == [0.5 + 1 + 2]
    assert refinement_loss(RefinementSettings(loss="l2"), CONFIG)(image, target).tolist() == [0.25 + 1 + 4]


@pytest.mark.parametrize("channels", [1, 3])
def test_perceptual_distance_is_that_of_torchvisions_features(
    channels: int, vgg16: nn.Sequential, features: Path
) -> None:
    image, target = images(channels)

    def relu3_3(image: Tensor) -> Tensor:
        mean, std = (torch.tensor(VGG16_Weights.IMAGENET1K_V1.transforms().__dict__[name]) for name in ("mean", "std"))
        colour = image.expand(-1, 3, -1, -1)
        return vgg16[:16]((colour - mean[:, None, None]) / std[:, None, None])

    loss = perceptual(features)
    actual = loss(image, target)
    expected = (relu3_3(image) - relu3_3(target)).square().mean((1, 2, 3)) * channels * CONFIG.height * CONFIG.width
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad(value.sum(), image)[0] for value in (actual, expected)]
    torch.testing.assert_close(*gradients)
    assert loss(target, target).tolist() == [0.0] * len(target)


def test_perceptual_loss_has_nothing_to_train_or_keep_and_moves_with_its_module(features: Path) -> None:
    loss = perceptual(features)
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}
    assert {tensor.device.type for tensor in copy.deepcopy(loss).to("meta").buffers()} == {"meta"}


def test_perceptual_loss_brings_back_what_is_outside_the_range_of_images(features: Path) -> None:
    target = images()[1]
    image = (target + 3).requires_grad_()
    before = perceptual(features)(image, target).sum()
    (gradient,) = torch.autograd.grad(before, image)
    assert perceptual(features)(image - 0.1 * gradient / gradient.abs().max(), target).sum() < before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"height": 3}, "at least 4 x 4 pixels, got 1 x 3 x 14: give another"),
        ({"width": 3}, "at least 4 x 4 pixels, got 1 x 9 x 3"),
        ({"channels": 2}, "images of 1 or 3 channels and .*, got 2 x 9 x 14"),
    ],
)
def test_perceptual_loss_refuses_images_that_vgg16_cannot_take(
    config: dict[str, int], message: str, features: Path
) -> None:
    with pytest.raises(FastdrawError, match=message):
        refinement_loss(
            RefinementSettings(loss="perceptual", features=features), VaeConfig(**CONFIG.model_dump() | config)
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features.10.weight": None}, r"has no features.10.weight: expected torchvision's state dict of VGG16"),
        ({"features.14.bias": torch.zeros(255)}, r"features.14.bias is \(255,\) float32, expected \(256,\) float: is"),
        (
            {"features.0.bias": torch.zeros(64, dtype=torch.int64)},
            r"features.0.bias is \(64,\) int64, expected \(64,\)",
        ),
    ],
    ids=["missing", "shape", "dtype"],
)
def test_features_of_another_network_are_refused(
    tensors: dict[str, Tensor], changes: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.safetensors"
    save_file({name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}, path)
    with pytest.raises(FastdrawError, match=f"^refinement.features {re.escape(str(path))}.*{message}") as caught:
        perceptual(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"hello", bytes(4096)], ids=["no-file", "empty", "text", "zeros"])
def test_features_that_are_no_safetensors_are_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    for place in (path, tmp_path):
        with pytest.raises(
            FastdrawError, match=r"cannot be read \(.*\): expected VGG16's weights in a safetensors file"
        ):
            perceptual(place)


def test_without_features_what_torchvision_has_fetched_is_checked_and_used(
    cache: Path, tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(tensors, cache)
    with pytest.raises(
        FastdrawError, match=r"is damaged: its SHA-256 starts with [0-9a-f]{8}, not 397923af; delete it"
    ):
        perceptual(None)
    begin = hashlib.sha256(cache.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(VGG16_Weights.IMAGENET1K_V1.value, "url", f"https://example.invalid/vgg16-{begin}.pth")
    cache.rename(cache.with_name(f"vgg16-{begin}.pth"))
    image, target = images()
    assert torch.equal(perceptual(None)(image, target), Perceptual(tensors)(image, target))


def test_without_any_features_the_error_tells_how_to_fetch_them(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FastdrawError, match=f"{cache} is missing: give them as --refinement.features FILE") as caught:
        perceptual(None)
    assert "\n" not in str(caught.value)
    code = FETCH.removeprefix('python -c "').removesuffix('"')
    assert code in str(caught.value)
    fetched: list[tuple[str, bool]] = []
    monkeypatch.setattr(URL, lambda url, check_hash, **_: fetched.append((url, check_hash)))
    exec(code, {})
    assert fetched == [(VGG16_Weights.IMAGENET1K_V1.url, True)]


def test_cache_that_cannot_be_read_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    cache.write_bytes(b"")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(FastdrawError, match=f"^{cache} cannot be read: Permission denied$"):
        perceptual(None)


def test_adversarial_loss_trains_the_image_and_the_critic_as_if_each_were_constant_to_the_other() -> None:
    torch.manual_seed(0)
    loss = Adversarial((1, CONFIG.height, CONFIG.width))
    image, target = images()
    weight = ADVERSARIAL * CONFIG.height * CONFIG.width
    real, drawn = (loss.critic(x).squeeze(1) for x in (target, image))
    # -log of sigmoid and of 1 - sigmoid, of probabilities that are far from 0 and 1 here.
    of_image = Distance(1)(image, target) - weight * drawn.sigmoid().log()
    of_critic = -weight * (real.sigmoid().log() + (1 - drawn.sigmoid()).log())
    torch.testing.assert_close(loss(image, target), of_image + of_critic)

    parameters = list(loss.parameters())
    actual = torch.autograd.grad(loss(image, target).sum(), [image, *parameters])
    torch.testing.assert_close(actual[0], torch.autograd.grad(of_image.sum(), image, retain_graph=True)[0])
    torch.testing.assert_close(actual[1:], torch.autograd.grad(of_critic.sum(), parameters))
    assert all(gradient.abs().sum() > 0 for gradient in actual)
    assert torch.equal(loss.eval()(image, target), loss.train()(image, target))


def test_critic_learns_to_tell_and_images_to_fool_it() -> None:
    torch.manual_seed(0)
    loss = Adversarial((1, CONFIG.height, CONFIG.width))
    target = images(batch=8)[1]
    drawn = nn.Parameter(0.1 * target)
    optimiser = torch.optim.Adam(loss.parameters(), lr=1e-3)
    for _ in range(30):
        optimiser.zero_grad()
        loss(drawn.detach(), target).sum().backward()
        optimiser.step()
    assert loss.critic(target).min() > loss.critic(drawn).max()
    before = F.softplus(-loss.critic(drawn)).mean()
    (gradient,) = torch.autograd.grad(loss(drawn, target).sum(), drawn)
    assert F.softplus(-loss.critic(drawn - 0.01 * gradient.sign())).mean() < before


def run_settings(loss: str, features: Path, **overrides: Any) -> Any:
    return tiny_vae(refinement__loss=loss, refinement__features=features, **overrides)


@pytest.mark.parametrize("loss", ["l2", "perceptual", "adversarial"])
def test_run_resumes_bit_for_bit_with_every_loss(loss: str, features: Path, tmp_path: Path) -> None:
    settings = run_settings(loss, features, steps=4, accumulate=2, optimiser__schedule="constant")
    train(settings, tmp_path / "whole")
    train(settings.with_steps(2), tmp_path / "parts")
    resume(tmp_path / "parts", steps=4)
    whole, parts = (read_checkpoint(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, parts[name])] == []
    kept = {name for name in whole if "refinement" in name}
    critic = [f"refinement.critic.{name}" for name, _ in Adversarial((1, 28, 28)).critic.named_parameters()]
    moments = {f"adam.{name}.{key}" for name in critic for key in ("step", "exp_avg", "exp_avg_sq")}
    assert kept == ({*critic, *moments} if loss == "adversarial" else set())
    if loss == "adversarial":
        start = TrainingState(settings, torch.device("cpu")).objective.state_dict()
        assert all(not torch.equal(whole[name], start[name]) for name in critic)


def test_model_loads_without_the_features_and_its_run_goes_on_only_with_them(
    features: Path, cache: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(features.read_bytes())
    train(run_settings("perceptual", moved, steps=2), tmp_path / "run")
    moved.unlink()
    model, _ = load_model(tmp_path / "run")
    tensors = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[f"average.module.{name}"])
    with pytest.raises(FastdrawError, match=r"refinement.features .*moved.safetensors cannot be read"):
        resume(tmp_path / "run", steps=3)
    with pytest.raises(FastdrawError, match=r"refinement.loss perceptual needs VGG16's weights"):
        train(run_settings("perceptual", None), tmp_path / "never")
    assert not (tmp_path / "never").exists()
