"""A model on its own: what is written, that it loads as it was, and that a folder that is not whole is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from fastdraw.errors import FastdrawError
from fastdraw.models import Draw, Vae
from fastdraw.training import Settings, load_draw, load_model, resolve, save_model, train
from fastdraw.training.run import Run
from fastdraw.training.state import TrainingState
from tests.training.tiny import files, tiny

VAE = {"model.latent": 3, "model.hidden": (6,), "steps": 1, "batch_size": 4, "test_batches": 1, "device": "cpu"}


def vae(**changes: object) -> Settings:
    return resolve("vae-mnist", VAE | {name.replace("__", "."): value for name, value in changes.items()})


STAGES = {
    "model__network": "conv",
    "model__widths": (4,),
    "model__refiners": 1,
    "model__blocks": 1,
    "model__refiner_width": 4,
    "model__likelihood": "gaussian",
    "model__learned_sigma": True,
    "model__likelihood_of": "first",
}
KINDS = {"vae": vae(), "stages": vae(**STAGES), "draw": tiny(steps=1), "words": tiny(steps=1, model__labels="last")}


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """Every tensor of a model, by name."""
    return model.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_loads_as_it_was(kind: str, tmp_path: Path) -> None:
    train(KINDS[kind], tmp_path / "run")
    model, settings = load_model(tmp_path / "run")
    save_model(model, settings, tmp_path / "model")
    random = torch.get_rng_state()
    found, same = load_model(tmp_path / "model")

    assert torch.equal(torch.get_rng_state(), random)
    assert same == settings
    assert not found.training
    assert {name: tensor.tolist() for name, tensor in weights(found).items()} == {
        name: tensor.tolist() for name, tensor in weights(model).items()
    }
    assert isinstance(found, Draw if kind in ("draw", "words") else Vae)
    sizes = {
        path.name: path.stat().st_size for path in (*(tmp_path / "run").iterdir(), *(tmp_path / "model").iterdir())
    }
    assert 2.5 * sizes["model.safetensors"] < sizes["checkpoint.safetensors"]


def test_the_averaged_weights_are_saved(tmp_path: Path) -> None:
    train(tiny(steps=3, optimiser__ema=0.5), tmp_path / "run")
    state = TrainingState(Run.open(tmp_path / "run").settings(), torch.device("cpu"))
    state.restore(tmp_path / "run" / "checkpoint.safetensors")
    save_model(*load_model(tmp_path / "run"), tmp_path / "model")
    found = load_model(tmp_path / "model")[0].canvas0
    assert torch.equal(found, state.evaluated.canvas0)
    assert not torch.equal(found, state.model.canvas0)


def test_nothing_of_the_machine_is_saved(tmp_path: Path) -> None:
    settings = vae(data__root="/home/someone/mnist", data__download=True, refinement__features="/home/someone/vgg")
    model = TrainingState(settings, torch.device("cpu")).model
    save_model(model, settings, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata = json.dumps(file.metadata())
    for text in ((tmp_path / "config.json").read_text(), metadata):
        assert "someone" not in text
        assert '"root' in text.replace("\\", "")
    loaded = load_model(tmp_path)[1]
    assert (loaded.data.root, loaded.data.download, loaded.refinement.features) == (None, False, None)
    assert loaded.model == settings.model


def test_a_model_is_saved_over_another_and_of_one_that_was_saved(tmp_path: Path) -> None:
    for seed in (0, 1):
        settings = vae(seed=seed)
        save_model(TrainingState(settings, torch.device("cpu")).model, settings, tmp_path / "a")
    save_model(*load_model(tmp_path / "a"), tmp_path / "b")
    (first, _), (second, settings) = (load_model(tmp_path / name) for name in "ab")
    assert settings.seed == 1
    assert all(torch.equal(weights(first)[name], tensor) for name, tensor in weights(second).items())


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    train(vae(), tmp_path)
    before = files(tmp_path)
    with pytest.raises(FastdrawError, match="holds a run, whose model is there already: give another --out"):
        save_model(*load_model(tmp_path), tmp_path)
    assert files(tmp_path) == before


def test_no_run_is_started_over_a_saved_model(tmp_path: Path) -> None:
    settings = vae()
    save_model(TrainingState(settings, torch.device("cpu")).model, settings, tmp_path)
    before = files(tmp_path)
    with pytest.raises(FastdrawError, match="holds a saved model: give another --out"):
        train(settings, tmp_path)
    assert files(tmp_path) == before


def damage(folder: Path, kind: str) -> None:
    config, model = folder / "config.json", folder / "model.safetensors"
    if kind == "no-model":
        model.unlink()
    elif kind == "truncated":
        model.write_bytes(model.read_bytes()[:-100])
    elif kind == "bit":
        data = bytearray(model.read_bytes())
        data[-5] ^= 1
        model.write_bytes(data)
    elif kind == "text":
        config.write_text("{")
    elif kind == "bytes":
        config.write_bytes(b"\xff\xfe")
    elif kind == "other-size":
        config.write_text(config.read_text().replace('"latent": 3', '"latent": 4'))
    elif kind == "other-likelihood":
        config.write_text(config.read_text().replace('"bernoulli"', '"gaussian"'))
    elif kind == "unknown":
        values = json.loads(config.read_text())
        config.write_text(json.dumps(values | {"colour": 1}))
    elif kind == "folder":
        model.unlink()
        model.mkdir()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no-model", "model.safetensors is missing"),
        ("truncated", r"model.safetensors is damaged or no safetensors file"),
        ("bit", r"model.safetensors is damaged: its checksum does not match"),
        ("text", r"config.json: Invalid JSON: EOF while parsing an object at line 1 column 1$"),
        ("bytes", r"config.json: 'utf-8' codec"),
        ("other-size", r"model.safetensors was written with other settings than those beside it: restore both"),
        ("other-likelihood", r"model.safetensors was written with other settings than those beside it: restore both"),
        ("unknown", "config.json: no setting 'colour'"),
        ("folder", r"model.safetensors (cannot be read|is damaged)"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, kind: str, message: str) -> None:
    settings = vae()
    save_model(TrainingState(settings, torch.device("cpu")).model, settings, tmp_path)
    damage(tmp_path, kind)
    with pytest.raises(FastdrawError, match=message):
        load_model(tmp_path)


def test_a_model_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    settings = vae()
    model = TrainingState(settings, torch.device("cpu")).model
    with torch.no_grad():
        model.get_parameter("decoder.0.bias")[1] = torch.nan
    save_model(model, settings, tmp_path)
    with pytest.raises(FastdrawError, match=r"model.safetensors: decoder.0.bias is not finite everywhere: train again"):
        load_model(tmp_path)


def test_a_device_that_is_not_there_and_another_kind_of_model(tmp_path: Path) -> None:
    settings = vae()
    save_model(TrainingState(settings, torch.device("cpu")).model, settings, tmp_path)
    with pytest.raises(FastdrawError, match="no device cuda:99"):
        load_model(tmp_path, "cuda:99")
    with pytest.raises(FastdrawError, match="is a run of a VAE, which does not draw step by step"):
        load_draw(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    settings = vae()
    (tmp_path / "file").write_text("")
    with pytest.raises(FastdrawError, match=r"cannot make the folder .*file/model: Not a directory"):
        save_model(TrainingState(settings, torch.device("cpu")).model, settings, tmp_path / "file" / "model")
