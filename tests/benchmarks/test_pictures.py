"""The pictures of the benchmarks are drawn, with their figures beside them."""

import json
from dataclasses import replace

import pytest

from benchmarks import bf16_curve, scaling


def test_scaling(tmp_path, monkeypatch):
    row = {"values": {name: {"step": [0.2, 0.1, 0.3]} for name in scaling.LINES}}
    monkeypatch.setattr(scaling, "interleaved", lambda *_: row)
    monkeypatch.setattr("sys.argv", ["scaling", "--out", str(tmp_path)])
    scaling.main()
    results = json.loads((tmp_path / "scaling.json").read_text())
    assert results["panels"]["steps T"]["sizes"] == [5, 10, 20, 40, 80]
    assert results["panels"]["pixels H x W"]["seconds"]["ours"] == [0.2] * 4
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


@pytest.mark.parametrize("points", scaling.PANELS.values(), ids=list(scaling.PANELS))
def test_a_panel_varies_one_size(points):
    r = replace(scaling.R)
    changed = {key for _, work in points for key, value in vars(work).items() if value != getattr(r, key)}
    assert len(changed) == 1 or changed == {"height", "width"}
    assert all(size in (*vars(work).values(), work.height * work.width) for size, work in points)
    assert any(work == r for _, work in points) or "batch" in changed


def test_bf16_curve(tmp_path):
    bf16_curve.main(["--steps", "3", "--hidden", "8", "--batch", "2", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "bf16_curve.json").read_text())
    single, half = results["losses"]["float32"], results["losses"]["bfloat16"]
    assert len(single) == len(half) == 3
    assert half != single, "bfloat16 was not used"
    assert half == pytest.approx(single, rel=0.02)
    assert (tmp_path / "bf16_curve.png").stat().st_size > 10_000
