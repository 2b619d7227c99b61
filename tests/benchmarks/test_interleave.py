"""Competitors take turns in processes of their own, and one that cannot run is left out with its reason."""

import sys

import pytest

from benchmarks import worker
from benchmarks.competitors import COMPETITORS
from benchmarks.interleave import interleaved, peak_memory
from benchmarks.work import Work
from fastdraw import dispatch

TINY = Work(batch=2, digits=1, steps=2, hidden=8)


def test_every_competitor_in_every_round():
    row = interleaved("training", ["ours", "floor"], TINY, rounds=2, threads=1)
    assert row["values"].keys() == row["first_call_s"].keys() == {"ours", "floor"}
    assert all(len(cases["step"]) == 2 and min(cases["step"]) > 0 for cases in row["values"].values())
    assert row["left_out"] == {}


def test_who_fails_or_is_late_is_left_out():
    row = interleaved("training", ["nobody", "floor"], TINY, rounds=1, threads=1)
    assert row["left_out"] == {"nobody": "KeyError: 'nobody'"}
    assert row["values"].keys() == {"floor"}
    row = interleaved("training", ["floor"], TINY, rounds=1, threads=1, limit=0.1)
    assert row["left_out"] == {"floor": "stopped after 0.1 s"}


def test_jax_is_no_dependency(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "benchmarks.peers.jax_draw", raising=False)
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ModuleNotFoundError):
        COMPETITORS["training"]["jax"](TINY)
    worker.main("training", "jax", "{}")
    assert capsys.readouterr().out == '{"left_out": "jax is not installed"}\n'


def test_peak_is_that_of_the_step_alone():
    """A step of a thousand samples keeps at least their errors, images and canvases at every one of its steps."""
    work = Work(batch=1000, digits=1, steps=2, hidden=8)
    (peak,) = peak_memory(["eager"], work, 1, 1)["values"]["eager"]["step"]
    images = 4 * work.batch * work.height * work.width
    assert 2 * work.steps * images < peak < 40 * work.steps * images


@pytest.mark.skipif(dispatch.extension_refusal is not None, reason="needs the extension")
def test_ops_have_the_shapes_of_their_benchmarks(monkeypatch):
    monkeypatch.setattr(worker, "TURN", 0.0)
    ours, eager = dict(worker.op_cases("cpu")), dict(worker.op_cases("reference"))
    assert ours.keys() <= eager.keys()
    assert {"glimpse_read forward n=8", "glimpse_read forward+backward n=12"} < ours.keys()
    assert ours["lstm_gates forward units=400"]() > 0
