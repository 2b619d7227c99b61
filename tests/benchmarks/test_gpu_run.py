"""`make gpu` as far as it goes without a GPU: its one-line refusal, reading what tests say, its figures and results."""

import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks.gpu import defaults, page, report, run
from fastdraw.defaults import Row
from fastdraw.errors import FastdrawError

CASES = """
import pytest
def test_right(): pass
def test_wrong(): assert 1 == 2, "one is not two"
@pytest.mark.skip(reason="not today")
def test_left_out(): pass
@pytest.fixture
def broken(): raise RuntimeError("no fixture")
def test_without_its_fixture(broken): pass
"""


def stage(outcome="passed", **more):
    return {"outcome": outcome, "seconds": 1.0, **more}


def figures(*rounds):
    return {"p20": rounds[0], "p50": rounds[0], "p80": rounds[0], "rounds": list(rounds)}


def backends(cuda):
    """Both, in three rounds: triton in 1 s, cuda in so many."""
    times = {"triton": figures(1.0, 1.0, 1.0), "cuda": figures(*cuda)}
    return {who: {"wall": each, "kernel": each} for who, each in times.items()}


def competitor(wall, kernel, **more):
    facts = {"moved": 4000, "flops": 10**6, "memory": {"allocated": int(wall * 1e6), "reserved": 2**21}}
    return facts | {"wall": figures(wall, 2 * wall), "graph_wall": figures(kernel), "kernel": figures(kernel)} | more


def finished_run():
    rollouts = {"training B=128 float32": {"triton": competitor(1e-3, 5e-4), "eager": competitor(32e-3, 2e-2)}}
    rollouts["training B=128 float32"]["compile"] = {"wall": figures(4e-3, 8e-3)}
    ops = {
        f"draw_read forward n={n} float32": {"triton": competitor(n * 1e-5, 4e-6), "eager": competitor(1e-4, 8e-5)}
        for n in (5, 8)
    }
    return {
        "machine": {
            "gpu": "NVIDIA H200",
            "capability": "9.0",
            "driver": "580",
            "cuda": "13.0",
            "date": "2026-11-21T10:00:00+00:00",
            "torch": "2.11.0",
            "triton": "3.6",
            "not_installed": ["tqdm"],
        },
        "source": {"commit": "abc", "dirty": True},
        "build": stage(),
        "parity": stage(counts={"passed": 2}, failures={}, runs={"draw_read cuda": {"passed": 2}}),
        "tests": stage(counts={"passed": 2}, failures={}, runs={}),
        "timings": {
            "roof": {"copy_bytes_per_s": 4e12, "float32_flops_per_s": 5e13, "float16_flops_per_s": 8e14},
            "rollouts": {"cases": rollouts, "left_out": {"triton": {}, "cuda": {"training": "BackendError: no"}}},
            "compiled": {"cases": rollouts, "left_out": {"reduce-overhead": {"training": "too late"}}},
            "ops": {"cases": ops, "left_out": {}},
            "lstm": {"cases": {"lstm forward B=128 float16": {"cudnn": competitor(1e-4, 9e-5)}}, "left_out": {}},
        },
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_one_line_without_a_gpu(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.run", "--out", tmp_path / "results"],
        cwd=run.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "sees no CUDA device" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_reads_what_the_shares_report(tmp_path):
    (tmp_path / "test_cases.py").write_text(CASES)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.gpu.shard", "-p", "no:cacheprovider", tmp_path]
    files = [tmp_path / f"{number}.jsonl" for number in range(2)]
    for number, file in enumerate(files):
        environment = os.environ | {"FASTDRAW_SHARE": f"{number}/2", "FASTDRAW_OUTCOMES": str(file)}
        subprocess.run(command, cwd=run.ROOT, env=environment, capture_output=True, check=False)
    found = run.read_outcomes([file for file in files if file.exists()])
    assert found["counts"] == {"error": 1, "failed": 1, "passed": 1, "skipped": 1}
    assert [name.split("::")[1] for name in sorted(found["failures"])] == ["test_without_its_fixture", "test_wrong"]
    assert any("one is not two" in text for text in found["failures"].values())
    assert any("no fixture" in text for text in found["failures"].values())
    assert found["skipped"] == {"Skipped: not today": 1}
    (counts,) = found["files"].values()
    assert counts == found["counts"]


def test_results_are_replaced_whole(tmp_path):
    path = tmp_path / "new" / "gpu.json"
    run.write_results(path, {"build": 1})
    run.write_results(path, {"build": 1, "tests": 2})
    assert json.loads(path.read_text()) == {"build": 1, "tests": 2}
    with pytest.raises(TypeError):
        run.write_results(path, {"build": object()})
    assert json.loads(path.read_text()) == {"build": 1, "tests": 2}


def test_command_that_outlasts_its_time_is_stopped():
    started = run.run("-c", "import time; print('begun', flush=True); time.sleep(60)", seconds=2)
    assert started["outcome"] == "stopped after 2 s"
    assert started["seconds"] < 20
    assert "begun" in started["output"]


def test_success_needs_every_stage():
    assert run.succeeded(finished_run())
    assert not run.succeeded({**finished_run(), "build": stage("failed")})
    for counts in ({}, {"skipped": 3}):
        assert not run.succeeded({**finished_run(), "tests": stage(counts=counts)})
        assert not run.succeeded({**finished_run(), "parity": stage(counts=counts)})
    for group in ("roof", "rollouts", "lstm", "compiled", "ops"):
        results = finished_run()
        del results["timings"][group]
        assert not run.succeeded(results), group
    results = finished_run()
    results["timings"]["rollouts"]["left_out"]["cuda"] = {"training": "it failed"}
    assert not run.succeeded(results)


def test_ratios_are_of_the_same_round_and_the_worst_size():
    timings = defaults.with_ours(finished_run())["timings"]
    row = timings["rollouts"]["cases"]["training B=128 float32"]
    assert report.ratio(row, "eager") == pytest.approx(32)
    assert report.ratio(row, "graph") == pytest.approx(20)
    assert report.ratio(row, "compile") == pytest.approx(4)
    assert report.ratio(row, "reduce-overhead") is None
    assert report.memory_ratio(row) == pytest.approx(1 / 32)
    value, sizes = report.worst_ops(timings["ops"]["cases"])["draw_read forward"]
    assert value == pytest.approx(1.25)
    assert sizes == "n=8 float32"
    share = report.share_of_roof(row["ours"], "float32", timings["roof"])
    assert share == pytest.approx(1e6 / 5e13 / 5e-4)


def test_quantiles_are_of_all_samples_and_medians_of_the_rounds():
    turns = [
        {"wall": [1.0, 2.0, 9.0], "graph_wall": None, "kernel": []},
        {"wall": [4.0], "graph_wall": None, "kernel": []},
    ]
    found = report.quantiles(turns)
    assert found.keys() == {"wall"}
    assert found["wall"]["rounds"] == [2.0, 4.0]
    assert found["wall"]["p20"] <= found["wall"]["p50"] == 3.0 <= found["wall"]["p80"]


def test_summary_names_what_failed_and_what_is_left_out():
    results = defaults.with_ours(finished_run())
    results["tests"] = stage("failed", output="no kernel image", counts={"failed": 1}, failures={"a::b": "why"})
    text = report.summary(results)
    for words in ("commit abc with changes", "1 failed", "a::b", "no kernel image", "not installed: tqdm"):
        assert words in text
    for words in ("eager 32.00", "graph 20.00", "left out: reduce-overhead training: too late", "1.25 x (n=8 float32)"):
        assert words in text


def test_page_shows_what_was_measured_and_what_was_not(tmp_path, monkeypatch):
    results = finished_run()
    results["timings"]["rollouts"]["cases"]["training B=128 float32"]["cuda"] = competitor(5e-4, 1e-4)
    text = page.block(defaults.with_ours(results), page.predictions())
    assert "| training B=128 float32 | 500 us | 100 us | 16.7 us, 3.33 us | 5.00 x | 2.00 x |" in text
    assert "Measured on NVIDIA H200 (driver 580, CUDA 13.0, torch 2.11.0, Triton 3.6), 2026-11-21, commit abc" in text
    assert "| training step, B=128, T=30, float32: eager over fastdraw | >= 30 x | 32.00 x |" in text
    assert f"reduce-overhead | >= 4 x | {page.NOT_MEASURED} |" in text
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    assert page.NOT_MEASURED in page.readme_block()
    (tmp_path / "h200.json").write_text(json.dumps(results))
    assert "| training step, B=128, T=30 | 1 ms | 32.00 x | 20.00 x | 4.00 x |  |" in page.readme_block()


def test_times_add_up_to_less_than_nine_minutes():
    clock = run.Clock()
    assert run.TOTAL_SECONDS + 20 <= 540
    assert clock.seconds("build") == pytest.approx(240, abs=1)
    clock.end -= 240 + 100  # a slow build, and slow tests against the reference
    assert clock.seconds("tests") == pytest.approx(520 - 340 - 75, abs=1)
    clock.end -= 1000
    assert clock.seconds("ops") == 1.0


def test_a_case_of_every_group_runs():
    """In a process of its own, which is a dry run, and where torch and pytest alone need to be installed."""
    code = """
import sys
from benchmarks.gpu.cases import cases
assert not {"pydantic", "hypothesis"} & sys.modules.keys()
players = [("triton", "ops"), ("eager", "ops"), ("cuda", "rollouts"), ("eager", "compiled"), ("cudnn", "lstm")]
for who, group in players:
    made = cases(group, who)
    next(iter(made.values()))().call()
    print(len(made))
"""
    environment = os.environ | {"FASTDRAW_GPU_DRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=run.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["80", "80", "12", "2", "12"]


def test_outcomes_are_counted_by_op_and_backend(tmp_path):
    file = tmp_path / "0.jsonl"
    row = {"test": "a", "outcome": "passed", "seconds": 1, "text": "", "run": "draw_read cuda"}
    file.write_text(
        "".join(json.dumps(row | more) + "\n" for more in ({}, {"outcome": "failed"}, {"run": None})) + '{"te'
    )
    assert run.read_outcomes([file])["runs"] == {"draw_read cuda": {"passed": 1, "failed": 1}}


def test_what_was_faster_in_every_round_and_passed_its_tests_is_the_default(capsys):
    results = finished_run()
    results["timings"]["ops"]["cases"] = {"draw_read forward n=8 float32": backends((0.5, 0.8, 0.4))}
    row = Row("draw_read", "float32", 0, None, "cuda", 2.0, "NVIDIA H200", "9.0", "abc with changes")
    assert defaults.rows(results) == [row]
    assert "left out: draw_rollout float32 B=128: it was not compared with the reference" in capsys.readouterr().err

    results["timings"]["ops"]["cases"]["draw_read forward n=12 float32"] = backends((0.5, 1.1, 0.4))
    assert defaults.rows(results) == [row._replace(backend="triton")]
    results["timings"]["ops"]["cases"]["draw_read forward n=12 float32"] = backends((0.5, 0.4))
    assert defaults.rows(results) == []
    assert "fewer than 3 rounds of draw_read forward n=12" in capsys.readouterr().err
    del results["timings"]["ops"]["cases"]["draw_read forward n=12 float32"]
    for stage, counts in (("tests", {"failed": 1}), ("parity", {"passed": 9, "failed": 1}), ("parity", {"skipped": 1})):
        worse = results | {stage: results[stage] | {"runs": {"draw_read cuda": counts}}}
        assert defaults.rows(worse) == []
    assert defaults.rows(results | {"parity": results["parity"] | {"outcome": "stopped after 90 s"}}) == []


def test_a_batch_size_speaks_for_those_up_to_the_next(tmp_path, monkeypatch, capsys):
    results = finished_run()
    results["parity"]["runs"]["draw_rollout cuda"] = {"passed": 1}
    cases = results["timings"]["rollouts"]["cases"]
    cases.clear()
    for batch, seconds in ((1, 0.5), (16, 2.0), (128, 0.25)):
        for kind in ("training", "forward"):
            cases[f"{kind} B={batch} float32"] = backends((seconds,) * 3)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    table = tmp_path / "defaults.json"
    other = Row("draw_read", "float32", 0, None, "cuda", 2.0, "NVIDIA A100", "8.0", "abc")
    monkeypatch.setattr(defaults.defaults, "FILE", table)
    monkeypatch.setattr(defaults.defaults, "table", lambda: (other, other._replace(capability="9.0")))
    defaults.main([str(path)])
    found = [Row(**row) for row in json.loads(table.read_text())]
    assert found[0] == other
    assert [(row.first, row.last, row.backend) for row in found[1:]] == [
        (0, 15, "cuda"),
        (16, 127, "triton"),
        (128, None, "cuda"),
    ]
    monkeypatch.setattr(defaults.defaults, "table", lambda: tuple(found))
    assert [defaults.default(f"training B={batch} float32", "9.0") for batch in (1, 16, 128)] == [
        "cuda",
        "triton",
        "cuda",
    ]
    assert defaults.default("training B=128 float32", "8.0") == "triton"
    rows = defaults.with_ours(results)["timings"]["rollouts"]["cases"]
    assert rows["training B=1 float32"]["ours"] == rows["training B=1 float32"]["cuda"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machine": {}}', '{"machine": {"gpu": null, "capability": null}}'])
def test_what_make_gpu_did_not_write_decides_nothing(tmp_path, monkeypatch, text):
    table = tmp_path / "defaults.json"
    monkeypatch.setattr(defaults.defaults, "FILE", table)
    path = tmp_path / "results.json"
    with pytest.raises(FastdrawError, match="cannot be read: No such file"):
        defaults.main([str(path)])
    path.write_text(text)
    with pytest.raises(FastdrawError, match="is no results file of `make gpu`"):
        defaults.main([str(path)])
    assert not table.exists()
