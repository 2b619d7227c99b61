"""Table II: made-up counts, whose table was worked out by hand."""

import copy
import json
import math

import pytest

from fastdraw.errors import FastdrawError
from fastdraw.evaluation.reader import proportion
from fastdraw.evaluation.table2 import PAPER, Results, render_table2, two_proportions


def counts(images, predicted, given, digits):
    return {"images": images, "predicted_length": predicted, "given_length": given, "digits": digits}


def run(model, seed, right):
    drawn = {"1": counts(100, right, right, right), "2": counts(100, right - 40, right - 30, 2 * right - 20)}
    return {"model": model, "seed": seed, "steps": 500, "seconds": 90.0, "prior": drawn, "reconstructed": drawn}


VALUES = {
    "data": "made-up numbers",
    "classifier": {"1": counts(50, 49, 50, 50), "2": counts(200, 190, 192, 390)},
    "settings": {
        "rnnDRAW": {"model": {"hidden": 400, "labels": "last"}, "steps": 500},
        "seqDRAW-cur": {"model": {"hidden": 400, "labels": "digits"}, "steps": 500, "curriculum": "staged"},
    },
    "runs": [run("seqDRAW-cur", 0, 90), run("seqDRAW-cur", 1, 80), run("rnnDRAW", 0, 60), run("rnnDRAW", 1, 70)],
}


def changed(path, value):
    values = copy.deepcopy(VALUES)
    *parents, key = path
    place = values
    for name in parents:
        place = place[name]
    place[key] = value
    return values


def table():
    return render_table2(Results.model_validate(VALUES))


def test_paper_has_its_figures():
    assert PAPER == {
        "rnnDRAW": (81.25, 7.55, 6.6),
        "seqDRAW": (81.02, 7.66, 6.5),
        "seqDRAW-cur": (81.65, 7.82, 6.8),
    }


def test_differences_of_the_paper_are_smaller_than_their_errors():
    """Of all test images of SVHN with 1, 2 and 3 digits."""
    for images, cur, rnn in zip((2483, 8356, 2081), PAPER["seqDRAW-cur"], PAPER["rnnDRAW"], strict=True):
        first, second = (proportion(round(images * share / 100), images) for share in (cur, rnn))
        assert 0 < two_proportions(first, second).z < 1


def test_classifier_comes_first():
    text = table()
    # Wilson: 49/50 and 190/200 worked out with z = 1.96; 390 of 400 digits.
    assert "|  | L = 1 (50 images) | L = 2 (200 images) |" in text
    assert "| length and all digits | 98.0 % (89.5 to 99.6) | 95.0 % (91.0 to 97.3) |" in text
    assert "| each digit, length given | 100.0 % (92.9 to 100.0) | 97.5 % (95.5 to 98.6) |" in text
    assert text.index("The classifier on real") < text.index("Samples from the prior") < text.index("Reconstructions")


def test_seeds_are_pooled_and_their_range_is_shown():
    text = table()
    # seqDRAW-cur, one digit: 90 + 80 of 200; two digits: 50 + 40 of 200, and 160 + 140 of 400 single digits.
    row = "| **seqDRAW-cur** | length and all digits | 85.0 % (79.4 to 89.3)<br>seeds 80.0 to 90.0 "
    assert row + "| 45.0 % (38.3 to 51.9)<br>seeds 40.0 to 50.0 |" in text
    assert "| 75.0 % (70.5 to 79.0)<br>seeds 70.0 to 80.0 |" in text
    assert "| seqDRAW-cur | *the paper's, on SVHN* | 81.65 % | 7.82 % |" in text
    assert "**seqDRAW**" not in text
    assert text.index("**rnnDRAW**") < text.index("**seqDRAW-cur**")


def test_models_are_compared_by_length():
    # 170 against 130 of 200: pooled 0.75, z = 0.2 / sqrt(0.75 * 0.25 / 100) = 4.62; 90 against 50: pooled 0.35, 4.19.
    row = next(line for line in table().splitlines() if line.startswith("| Samples from the prior |"))
    assert row == "| Samples from the prior | +20.0, z = 4.62, p = 3.9e-06 | +20.0, z = 4.19, p = 2.8e-05 |"


def test_without_one_of_the_two_models_there_is_no_test():
    only = Results.model_validate(VALUES | {"runs": VALUES["runs"][:2]})
    assert "| Samples from the prior | no test | no test |" in render_table2(only)


def test_runs_and_settings_stand_below():
    text = table()
    assert "| seqDRAW-cur | 1 | 500 | 1.5 |" in text
    assert "| setting | rnnDRAW | seqDRAW-cur |\n|---|---|---|\n| model.hidden | 400 | 400 |" in text
    assert "| model.labels | last | digits |" in text
    assert "| curriculum |  | staged |" in text


def test_every_table_has_as_many_cells_in_each_row():
    blocks = [block.splitlines() for block in table().split("\n\n") if block.startswith("|")]
    assert len(blocks) == 6
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1, block


def test_length_beyond_the_papers_has_no_figure_of_it():
    values = copy.deepcopy(VALUES)
    for by_length in (
        values["classifier"],
        *(run[kind] for run in values["runs"] for kind in ("prior", "reconstructed")),
    ):
        by_length["4"] = counts(100, 10, 20, 200)
    assert "| rnnDRAW | *the paper's, on SVHN* | 81.25 % | 7.55 % |  |" in render_table2(Results.model_validate(values))


@pytest.mark.parametrize(("first", "second", "z"), [((8, 10), (2, 10), 6 / math.sqrt(5)), ((2, 4), (5, 10), 0.0)])
def test_two_proportions_by_hand(first, second, z):
    found = two_proportions(proportion(*first), proportion(*second))

    assert found.z == pytest.approx(z)
    assert found.p == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert found.difference == pytest.approx(first[0] / first[1] - second[0] / second[1])


@pytest.mark.parametrize("right", [0, 10])
def test_two_proportions_without_variance_are_no_test(right):
    assert two_proportions(proportion(right, 10), proportion(right, 10)) is None


def test_results_survive_their_file(tmp_path):
    path = tmp_path / "table2.json"
    path.write_text(Results.model_validate(VALUES).model_dump_json())

    assert render_table2(Results.read(path)) == table()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (changed(["runs", 0, "seed"], 1), "seqDRAW-cur, seed 1 is there twice"),
        (changed(["runs", 0, "model"], "DRAW"), r"runs\.0\.model: Input should be 'rnnDRAW'"),
        (changed(["runs"], []), "runs: List should have at least 1 item"),
        (changed(["runs", 2, "prior"], {"1": counts(9, 9, 9, 9)}), r"rnnDRAW, seed 0, prior has lengths \[1\], the cl"),
        (
            changed(["classifier", "2", "digits"], 401),
            "classifier, length 2: more right than there are among 200 images",
        ),
        (changed(["classifier", "1", "given_length"], 51), "classifier, length 1: more right than"),
        (changed(["classifier", "1", "images"], 0), r"classifier\.1\.images: Input should be greater than"),
        (changed(["classifier", "0"], counts(1, 1, 1, 1)), r"classifier\.0\..*greater than or equal to 1"),
        (changed(["seeds"], 3), "seeds: Extra inputs are not permitted"),
    ],
    ids=["twice", "model", "empty", "lengths", "digits", "given", "no-images", "length-0", "extra"],
)
def test_results_that_cannot_be_are_refused(tmp_path, values, message):
    path = tmp_path / "table2.json"
    path.write_text(json.dumps(values))

    with pytest.raises(FastdrawError, match=f"table2.json: {message}"):
        Results.read(path)


def test_file_that_is_missing_or_no_json_is_refused(tmp_path):
    with pytest.raises(FastdrawError, match=r"cannot read .*table2.json: No such file"):
        Results.read(tmp_path / "table2.json")
    (tmp_path / "table2.json").write_text("{")
    with pytest.raises(FastdrawError, match=r"table2.json is no JSON: Expecting"):
        Results.read(tmp_path / "table2.json")
