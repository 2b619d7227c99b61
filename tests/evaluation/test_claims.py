"""Claims: what a file of them holds, and the table of two models."""

import json

import pytest
import torch

from fastdraw.evaluation.claims import drawing_claims, image_claims, render_claims

SLOT = 16


def drawn(order, runs=6):
    """Claims of a model that draws two slots in steps 1-2 and 3-4, or, by order "at once", both in steps 1-4."""
    torch.manual_seed(0)
    final = torch.rand(runs, 1, 32, 64)
    share = {"one by one": [[0, 0.6], [0, 1], [0.6, 1], [1, 1]], "at once": [[0.3] * 2, [0.6] * 2, [0.9] * 2, [1] * 2]}
    gone = torch.tensor(share[order]).repeat_interleave(SLOT, 1)
    frames = torch.zeros(4, runs, 1, 32, 64)
    frames[..., 32:] = gone[:, None, None, None] * final[..., 32:]
    attention = None if order == "at once" else torch.tensor([[0.1, 0.9]]).expand(4, runs, 2)
    digits = torch.tensor([6, 8]).expand(runs, 2)
    return {
        "drawings": {"68": drawing_claims(frames, torch.zeros(1, 32, 64), attention, digits, SLOT)},
        "data": {"2": image_claims(torch.zeros(5, 1, 32, 64), torch.zeros(5, 2, dtype=torch.int64), SLOT)},
    }


@pytest.mark.parametrize("order", ["one by one", "at once"])
def test_claims_are_plain_json(order):
    claims = drawn(order)

    assert json.loads(json.dumps(claims, allow_nan=False)) == claims
    found = claims["drawings"]["68"]
    assert (found["runs"], found["steps"]) == (6, 4)
    assert (found["attention"] is None) == (order == "at once")
    if found["attention"]:
        assert [digit["value"] for digit in found["attention"]["steps"]] == [0, 1]


def test_table_sets_models_side_by_side_with_their_difference():
    table = render_claims({"seqDRAW": drawn("one by one"), "rnnDRAW": drawn("at once")})

    assert "| digits | how they emerge | seqDRAW | rnnDRAW | rnnDRAW - seqDRAW |\n|---|---|---|---|---|\n" in table
    assert "| 68 | one by one | 1.00 (1.00 to 1.00) | 0.50 (0.50 to 0.50) | -0.50 (-0.50 to -0.50) |" in table
    # Half there at steps 3 and 1 of 4; Wilson's interval of 6 of 6 begins at 6/(6 + z^2).
    assert "| 68 | first to last digit, share of the steps | 0.50 (0.50 to 0.50) | 0.00 (0.00 to 0.00) |" in table
    assert "| 68 | right to left | 1.00 (0.61 to 1.00) | 0.00 (0.00 to 0.39) | -1.00 (-1.00 to -0.45) |" in table
    assert "| digits | measure | seqDRAW | rnnDRAW | test images of seqDRAW |\n|---|---|---|---|---|\n" in table
    assert table.count("| the same everywhere |") == 4


def test_table_has_no_negative_zero():
    claims = drawn("one by one")
    claims["drawings"]["68"]["style"]["slant"] |= {"icc": -0.004, "low": -0.3, "high": 0.004}

    assert "| 68 | slant | 0.00 (-0.30 to 0.00) |" in render_claims({"seqDRAW": claims})


def test_table_of_one_model_and_of_digits_that_all_drew():
    one, other = drawn("one by one"), drawn("at once")
    assert "| digits | how they emerge | seqDRAW |\n|---|---|---|\n" in render_claims({"seqDRAW": one})

    other["drawings"]["33"] = other["drawings"].pop("68")
    other["drawings"]["68"] = other["drawings"]["33"]
    assert "33" not in render_claims({"seqDRAW": one, "rnnDRAW": other})
