"""`make gpu` as far as it goes without a GPU: its one-line refusal, reading test reports, writing results."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.gpu import run

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


def finished_run():
    return {
        "machine": {"gpu": "NVIDIA H200", "driver": "580", "torch": "2.11.0"},
        "source": {"commit": "abc", "dirty": True},
        "build": stage(),
        "tests": {"tests/ops": stage(counts={"passed": 2}, tests={}, failures={})},
        "timings": stage(rows=[]),
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


def test_reads_what_pytest_reports(tmp_path):
    (tmp_path / "test_cases.py").write_text(CASES)
    report = tmp_path / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junit-xml", report, tmp_path]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    found = run.read_junit(report)
    assert found["counts"] == {"error": 1, "failure": 1, "passed": 1, "skipped": 1}
    assert found["tests"] == {
        "test_cases::test_right": "passed",
        "test_cases::test_wrong": "failure",
        "test_cases::test_left_out": "skipped",
        "test_cases::test_without_its_fixture": "error",
    }
    assert "one is not two" in found["failures"]["test_cases::test_wrong"]
    assert "no fixture" in found["failures"]["test_cases::test_without_its_fixture"]


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
    assert not run.succeeded({**finished_run(), "timings": stage("failed")})
    assert not run.succeeded({key: value for key, value in finished_run().items() if key not in ("tests", "timings")})
    for counts in ({}, {"skipped": 3}):
        assert not run.succeeded({**finished_run(), "tests": {"tests/ops": stage(counts=counts)}})


def test_summary_names_what_failed():
    results = finished_run()
    results["tests"]["tests/ops"] = stage("failed", output="", counts={"failure": 1}, failures={"a::b": "why"})
    results["timings"] = stage("failed", output="no kernel image", rows=[])
    text = run.summary(results)
    assert "commit abc with changes" in text
    assert "1 failure" in text
    assert "a::b" in text
    assert "no kernel image" in text
