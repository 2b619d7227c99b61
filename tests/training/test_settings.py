"""Settings, presets, and the learning rate."""

import re
from typing import Any

import pytest

from fastdraw.errors import FastdrawError
from fastdraw.training import preset_names, resolve
from fastdraw.training.settings import PRESETS, DataSettings, Settings, fields, parse_settings
from fastdraw.training.state import learning_rate
from tests.training.test_presets import OVERLAYS
from tests.training.tiny import tiny

DIGITS = {"data.source": "digits", "model.height": 28, "model.width": 28}
CAPTIONED = {"data.source": "captions", "model.height": 60, "model.width": 60}


@pytest.mark.parametrize("data", ["mnist", "svhn"])
@pytest.mark.parametrize(
    ("name", "labels", "curriculum", "y", "b"),
    [
        ("rnndraw", "last", "none", 50, 10),
        ("seqdraw", "digits", "none", 20, 20),
        ("seqdraw-cur", "digits", "cumulative", 20, 20),
    ],
)
def test_presets_are_table_one(name: str, data: str, labels: str, curriculum: str, y: int, b: int) -> None:
    settings = resolve(f"{name}-{data}")
    model = settings.model
    assert (model.hidden, model.latent, model.steps_per_label) == (400, 100, 10)
    assert (model.n_read, model.n_write, model.align) == (8, 8, 512)
    assert (settings.data.source, model.labels, settings.curriculum.kind) == (data, labels, curriculum)
    assert (model.label_hidden if labels == "last" else model.symbols + model.positions) == y
    assert model.symbols + (model.positions if labels == "digits" else 0) == b
    assert all(weight > 0 for weight in settings.data.lengths)


@pytest.mark.parametrize("name", preset_names())
def test_preset_has_its_head_and_no_default(name: str) -> None:
    lines = (PRESETS / f"{name}.toml").read_text().splitlines()
    assert [line.split(":")[0] for line in lines[:4]] == ["# reproduces", "# expected", "# cost", "# run"]
    settings = [line for line in lines if re.match(r'(?!kind = "vae")\w+ = ', line)]
    if name in OVERLAYS:
        preset, before = resolve(f"{OVERLAYS[name]}+{name}"), _flat(resolve(OVERLAYS[name]).model_dump())
    else:
        preset = resolve(name)
        before = _flat(Settings.model_construct(model=type(preset.model)()).model_dump())
    assert len(settings) == sum(value != before[key] for key, value in _flat(preset.model_dump()).items())


def test_overrides_win_over_the_preset_and_text_is_parsed() -> None:
    settings = resolve("demo", {"model.hidden": "32", "optimiser.lr": "1e-2", "data.lengths": ["0", "1", "0", "0"]})
    assert (settings.model.hidden, settings.optimiser.lr, settings.data.longest) == (32, 0.01, 2)


def test_presets_joined_by_plus_are_laid_over_each_other() -> None:
    base, overlay = resolve("seqdraw-cur-mnist"), resolve("small-mnist")
    both = resolve("seqdraw-cur-mnist+small-mnist", {"model.hidden": 32})
    # What both say, the later one does; what one of them says alone stays; overrides win over both.
    assert (both.steps, both.optimiser.lr, both.data.lengths) == (
        overlay.steps,
        overlay.optimiser.lr,
        overlay.data.lengths,
    )
    assert (both.curriculum.kind, both.curriculum.shares) == (base.curriculum.kind, overlay.curriculum.shares)
    assert (both.model.count_from, both.model.align, both.model.hidden) == ("right", overlay.model.align, 32)
    assert resolve("small-mnist+seqdraw-cur-mnist").optimiser.lr == base.optimiser.lr != overlay.optimiser.lr
    for wrong in ("seqdraw-mnist+", "seqdraw-mnist+small", "+small-mnist"):
        with pytest.raises(FastdrawError, match=r"^no preset '(small)?': expected one of aligndraw"):
            resolve(wrong)


def test_data_settings_tell_lengths_and_symbols() -> None:
    mnist = DataSettings(lengths=(0.5, 0, 0.25, 0))
    assert (mnist.longest, mnist.trained, mnist.symbols) == (3, {1: 0.5, 3: 0.25}, 10)
    assert mnist.alone(3).lengths == (0, 0, 1, 0)
    captions, binarised = DataSettings(source="captions"), DataSettings(source="binarised")
    assert (captions.longest, captions.trained, captions.symbols) == (12, {12: 1}, 22)
    assert (binarised.longest, binarised.trained, binarised.symbols) == (1, {1: 1}, 10)


def test_settings_survive_json() -> None:
    settings = tiny(data__root="/somewhere")
    assert parse_settings(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.hiden": 3}, r"no setting 'model.hiden': expected one of model.hidden, .*, threads"),
        ({"hidden": 3}, r"no setting 'hidden'"),
        ({"model.hidden": 0}, r"setting model.hidden: .*greater than or equal to 1, got 0"),
        ({"model.width": 28}, r"model.width must be 64"),
        ({"model.positions": 2}, r"model.positions must be at least 4"),
        ({"data.source": "svhn", "data.align": "left"}, r"'right', 'slots' or 'goodfellow', got 'left'"),
        ({"data.source": "binarised"}, r"model.height must be 28, the height of the images"),
        ({"data.source": "captions", "model.height": 60}, r"model.width must be 60, the width of the images"),
        ({**CAPTIONED, "model.positions": 12}, r"model.symbols must be 22, the different labels of captions"),
        ({**CAPTIONED, "model.symbols": 22}, r"model.positions must be at least 12, the labels of the longest image"),
        ({"curriculum.kind": "steep"}, r"'none', 'staged' or 'cumulative', got 'steep'"),
        ({"samples": 0}, r"setting samples: .*greater than or equal to 1, got 0"),
        ({"model.labels": "letters"}, r"'digits', 'last', 'words' or 'none', got 'letters'"),
        ({"model.symbols": 22}, r"model.symbols must be 10, the different labels of mnist"),
        ({"data.channels": 3}, r"data.channels must be 1, got 3"),
        ({"data.source": "svhn", "data.channels": 2}, r"data.channels must be 1 or 3, got 2"),
        ({"data.source": "svhn", "data.channels": 3}, r"model.channels must be 3, the channels of the images"),
        (
            {"data.source": "binarised", "model.height": 28, "model.width": 28, "curriculum.kind": "staged"},
            r"curriculum.kind must be none, as all images of binarised are of one length",
        ),
        ({"optimiser.lr": -1}, r"setting optimiser.lr: .*greater than 0"),
        ({"optimiser.lr": "nan"}, r"setting optimiser.lr: .*finite"),
        ({"optimiser.betas": (0.9, 1)}, r"betas must lie in \[0, 1\)"),
        ({"optimiser.schedule": "Cosine"}, r"'cosine' or 'constant', got 'Cosine'"),
        ({"data.lengths": (0, 0, 0, 0)}, r"not all 0"),
        ({"data.lengths": (1, -1, 1, 1)}, r"weights >= 0"),
        ({"data.lengths": (1, 1, 1)}, r"setting data.lengths"),
        ({"data.download": True}, r"download needs a folder"),
        ({"data.leave_out": (1,)}, r"data.leave_out must be empty, as only digits can be left out, not mnist"),
        (
            {**DIGITS, "data.leave_out": (1, 10)},
            r"leave_out must be digits 0 to 9, none twice and not all, got \(1, 10\)",
        ),
        ({**DIGITS, "data.leave_out": (-1,)}, r"leave_out must be digits 0 to 9, .* got \(-1,\)"),
        ({**DIGITS, "data.leave_out": (3, 3)}, r"leave_out must be .* none twice .* got \(3, 3\)"),
        ({**DIGITS, "data.leave_out": tuple(range(10))}, r"leave_out must be .* not all, got \(0, 1, .*, 9\)"),
        ({**DIGITS, "data.leave_out": ("one",)}, r"setting data.leave_out.0: .* integer.*, got 'one'"),
        (
            {"data.source": "folder", "data.root": "a", "data.download": True},
            r"download cannot fetch a folder of images",
        ),
        ({"data.source": "celeba"}, r"model.labels must be none, as the images of celeba have no labels"),
        ({"data.source": "folder", "data.channels": 4}, r"data.channels must be 1 or 3, got 4"),
        ({"steps": "many"}, r"setting steps: .*integer.*, got 'many'"),
        ({"precision": "float16"}, r"'float32' or 'bfloat16', got 'float16'"),
        ({"device": "tpu"}, r"setting device"),
        ({"model.kind": "gan"}, r"^setting model.kind: expected draw or vae, got 'gan'$"),
        ({"steps": {"a" * 1000: 1}}, r"^setting steps: .*, got \{'a{198}\.\.$"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_settings_reject(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(FastdrawError, match=message) as caught:
        resolve(overrides=overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Demo", "seqdraw", "demo.toml", "../demo", ""])
def test_unknown_preset_lists_the_known(name: str) -> None:
    with pytest.raises(FastdrawError, match=r"expected one of aligndraw, .*demo, .*, seqdraw-mnist, "):
        resolve(name)


def test_every_setting_is_described() -> None:
    for settings in (resolve("demo"), resolve("vae-mnist")):
        assert [name for name, field in fields(settings).items() if not field.description] == []
        assert {"curriculum.kind", "model.latent"} <= fields(settings).keys()
        assert "model.kind" not in fields(settings)


def test_learning_rate_rises_then_follows_half_a_cosine_to_zero() -> None:
    optimiser = tiny(optimiser__lr=0.1, optimiser__warmup=4).optimiser
    rates = [learning_rate(optimiser, step, 14) for step in range(15)]
    assert rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert rates[9] == pytest.approx(0.05)
    assert rates[14] == pytest.approx(0, abs=1e-12)
    constant = optimiser.model_copy(update={"schedule": "constant"})
    assert learning_rate(constant, 13, 14) == 0.1


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
