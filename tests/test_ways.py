"""scripts/ways.py measures what lies halfway between codes, and docs/vae.md says what it kept."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fastdraw.cli import main
from fastdraw.data import Batch
from fastdraw.evaluation import bounds_by_image, codes_between, decode, embed
from fastdraw.models import Vae, VaeConfig
from tests.cli.test_latent import vae
from tests.scripts import load_script

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def ways() -> ModuleType:
    return load_script("ways")


def test_the_page_says_what_was_kept() -> None:
    kept = json.loads((ROOT / "docs" / "results" / "vae" / "ways.json").read_text())
    text = " ".join((ROOT / "docs" / "vae.md").read_text().split())
    figures = {name: f"{kept[name]['value']:.0f}" for name in ("line", "arc", "reconstructions")}
    assert f"costs {figures['line']} nats on a line and {figures['arc']} on an arc" in text
    assert f"a reconstruction costs {figures['reconstructions']}" in text
    assert f"between {kept['pairs']} pairs" in text
    assert kept["arc"]["high"] < kept["line"]["low"], "arcs are the default"
    assert kept["settings"]["model"]["latent"] == 64


def test_images_halfway_are_of_pairs_of_different_digits(ways: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "PART", 2)
    model = Vae(VaeConfig(latent=3, hidden=(8,), height=6, width=5)).eval()
    labels = torch.tensor([1, 2, 3, 3, 4, 5, 6, 7, 8])[:, None]
    batch = Batch(torch.rand(9, 1, 6, 5), labels, torch.ones(9, dtype=torch.int64))
    found = ways.halfway(model, batch)

    codes = embed(model, batch)
    first, last = codes[:, [0, 4, 6]], codes[:, [1, 5, 7]]
    expected = {
        "reconstructions": first,
        "line": (first + last) / 2,
        "arc": codes_between(first, last, 3)[1],
    }
    assert found["pairs"] == 3
    for name, code in expected.items():
        parts = zip(*(x.split(2) for x in (decode(model, code), labels[:3], batch.lengths[:3])), strict=True)
        bounds = bounds_by_image(model, [Batch(*part) for part in parts], 1)
        assert found[name]["value"] == pytest.approx(bounds.mean().item(), rel=1e-5)
        assert found[name]["samples"] == 3


def test_it_keeps_no_path(ways: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "IMAGES", 20)
    assert main(["train", *vae(2), "--out", str(tmp_path / "run")]) == 0
    ways.main([str(tmp_path / "run")], tmp_path / "kept")
    text = (tmp_path / "kept" / "ways.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["settings"]["model"]["latent"] == 2


@pytest.mark.parametrize("arguments", [[], ["a", "b", "c"]])
def test_wrong_usage_shows_the_usage(ways: ModuleType, arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"python scripts/ways.py RUN \[ROOT\]"):
        ways.main(arguments)


def test_a_run_that_does_not_fit_is_one_line(ways: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^ways: .*none is no folder"):
        ways.main([str(tmp_path / "none")], tmp_path)
    assert not list(tmp_path.iterdir())
