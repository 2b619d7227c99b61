"""The page of results says what the results file holds, and judges it rightly."""

import json

import pytest

from benchmarks import facts, goals, report
from benchmarks.report import Goal, judged, ratio, reached


def row(unit="s", left_out=(), **values):
    cases = {name: found if isinstance(found, dict) else {"step": found} for name, found in values.items()}
    return {"unit": unit, "values": cases, "first_call_s": dict.fromkeys(values, 1.0), "left_out": dict(left_out)}


def verdicts(**rows):
    """Figure and verdict of every goal that was measured."""
    lines = [line.split(" | ") for line in report.goals_table(rows).splitlines()[2:]]
    return {cells[1]: cells[-1].removesuffix(" |") for cells in lines if "not measured" not in cells[-1]}


def test_ratio_is_of_the_same_round():
    """The machine became ten times slower in the second round, for both."""
    assert ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0]).middle == 2.0
    assert ratio([3.0], [1.0]) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize(
    ("relation", "at_bound", "below", "above"),
    [("<=", True, True, False), (">=", True, False, True), (">", False, False, True)],
)
def test_reached(relation, at_bound, below, above):
    goal = Goal("training-1", ("eager",), "ours", relation, 1.5, "")
    assert [reached(goal, value) for value in (1.5, 1.4, 1.6)] == [at_bound, below, above]


def test_goals_against_what_was_measured():
    found = verdicts(**{"training-16": row(ours=[1.2], floor=[1.0], eager=[3.0], jax=[2.0])})
    assert found == {
        "time over the floor's": "reached",
        "faster than eager": "**not reached**",
        "faster than the faster compiler": "reached, without compile",
    }


def test_a_spread_across_the_bound_is_told():
    found = verdicts(mixed=row(ours=[0.9, 1.0, 1.3], equal=[1.0, 1.0, 1.0]))
    assert set(found.values()) == {"reached, but the quartiles lie on both sides"}


def test_the_faster_compiler_counts():
    measured = row(ours=[1.0], compile=[3.0], jax=[1.1])
    goal = next(goal for goal in report.GOALS if goal.over == report.COMPILERS)
    assert judged(goal, measured)[0].middle == pytest.approx(1.1)


def test_the_worst_op_counts_and_missing_ones_are_named():
    ours = {"draw_read forward n=8": [1.0], "lstm_gates forward units=8": [1.0]}
    eager = {"draw_read forward n=8": [4.0], "lstm_gates forward units=8": [0.5]}
    rows = {"ops": row(ours=ours, eager=eager, left_out={"sample_kl": "no kernel or no benchmark"})}
    assert verdicts(**rows) == {
        "faster than eager, least of all": "**not reached**, without sample_kl",
        "the same, glimpses": "reached",
    }
    assert "| `lstm_gates` | forward | units=8 | 1 s | 500 ms | 0.50 x |" in report.ops_table(rows["ops"])


def test_medians_show_compile_time_and_who_was_left_out():
    rows = {"training-1": row(ours=[2e-3], compile=[0.5], left_out={"jax": "jax is not installed"})}
    line = report.medians_table(rows).splitlines()[-1]
    assert line == "| training step, B=1, T=30 | 2 ms |  |  | 500 ms (first call 1 s) | jax is not installed |  |  |"
    assert "12.0 MiB" in report.medians_table({"memory": row("bytes", ours=[12 * 2**20])})


def test_rows_of_another_commit_are_not_kept(tmp_path, monkeypatch):
    source = {"commit": "a", "dirty": False}
    monkeypatch.setattr(goals, "source", lambda: source)
    results = tmp_path / "results.json"
    assert goals.kept_rows(results, 2) == {}
    results.write_text(json.dumps({**source, "machine": facts.machine(2), "rows": {"memory": 1}}))
    assert goals.kept_rows(results, 2) == {"memory": 1}
    assert goals.kept_rows(results, 1) == {}, "other threads"
    for change in ({"commit": "b"}, {"dirty": True}):
        monkeypatch.setattr(goals, "source", lambda change=change: source | change)
        assert goals.kept_rows(results, 2) == {}


def test_page_is_what_the_results_give():
    text = report.PAGE.read_text()
    assert report.filled(text, json.loads(report.RESULTS.read_text())) == text, "run python -m benchmarks.report"
