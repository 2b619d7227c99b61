"""Emergence: drawings whose order is known from how they were made."""

import pytest
import torch
from torch.testing import assert_close

from fastdraw.errors import FastdrawError
from fastdraw.evaluation.emergence import emergence, focus

T, L, SLOT = 30, 3, 16


def drawings(progress, batch=5, start=0.2):
    """Frames (T, B, 1, 32, 64) whose slot s (of three, on the right) has gone progress[t, s] of its way to noise."""
    torch.manual_seed(0)
    final = torch.rand(batch, 1, 32, 64)
    final[..., : 64 - L * SLOT] = start
    share = torch.cat([torch.zeros(len(progress), 1), progress], 1).repeat_interleave(SLOT, 1)
    return start + share[:, None, None, None] * (final - start), torch.full((1, 32, 64), start)


def ramp(first, last):
    """Progress (T,): 0 until step `first`, from there a line to 1 half a step before `last`, so that none is at 0.5."""
    return ((torch.arange(1, T + 1) - first) / (last - first - 0.5)).clamp(0, 1)


def test_digits_drawn_one_by_one_from_the_right():
    progress = torch.stack([ramp(20, 30), ramp(10, 20), ramp(0, 10)], 1)
    found = emergence(*drawings(progress), L, SLOT)

    assert_close(found.half, torch.tensor([[25, 15, 5]] * 5))
    assert_close(found.most, torch.tensor([[29, 19, 9]] * 5))
    assert_close(found.spread, torch.full((5,), 20 / 30))
    assert_close(found.one_by_one, torch.ones(5).double())
    assert found.right_to_left.all()
    assert not found.left_to_right.any()


def test_digits_drawn_at_once():
    found = emergence(*drawings(torch.stack([ramp(0, 30)] * 3, 1)), L, SLOT)

    assert_close(found.half, torch.full((5, L), 15))
    assert_close(found.spread, torch.zeros(5))
    assert_close(found.one_by_one, torch.full((5,), 1 / 3).double())
    assert not (found.right_to_left | found.left_to_right).any()


def test_one_by_one_weighs_slots_alike():
    """Two slots draw together and the third alone: 2/3, whatever the ink of each."""
    frames, start = drawings(torch.stack([ramp(0, 10), ramp(0, 10), ramp(10, 20)], 1))
    frames[..., 16:32] = start[..., 16:32] + 0.01 * (frames[..., 16:32] - start[..., 16:32])
    found = emergence(frames, start, L, SLOT)

    assert_close(found.one_by_one, torch.full((5,), 2 / 3).double())
    assert_close(found.half, torch.tensor([[5, 5, 15]] * 5))


def test_order_is_of_each_drawing_and_left_to_right_of_some():
    rightwards = drawings(torch.stack([ramp(0, 10), ramp(10, 20), ramp(20, 30)], 1))[0]
    leftwards, start = drawings(torch.stack([ramp(20, 30), ramp(10, 20), ramp(0, 10)], 1))
    mixed, _ = drawings(torch.stack([ramp(10, 20), ramp(0, 10), ramp(20, 30)], 1))
    found = emergence(torch.cat([rightwards[:, :2], leftwards[:, :1], mixed[:, :1]], 1), start, L, SLOT)

    assert found.left_to_right.tolist() == [True, True, False, False]
    assert found.right_to_left.tolist() == [False, False, True, False]
    summary = found.summary()
    assert summary["left_to_right"].value == 0.5
    assert [place.value for place in summary["half"]] == [12.5, 12.5, 20]
    assert summary["spread"] == pytest.approx((2 / 3, 2 / 3, 2 / 3, 4))


def test_what_comes_and_goes_again_is_not_there_yet():
    passing = ramp(20, 30)
    passing[5] = 0.7
    found = emergence(*drawings(torch.stack([passing, ramp(0, 10), ramp(0, 10)], 1)), L, SLOT)

    assert_close(found.half[:, 0], torch.full((5,), 25))


@pytest.mark.parametrize("channels", [1, 3])
def test_slot_that_never_changes_is_there_at_once(channels):
    frames, start = drawings(torch.stack([ramp(0, 10), torch.zeros(T), ramp(10, 20)], 1))
    found = emergence(frames.expand(-1, -1, channels, -1, -1), start.expand(channels, -1, -1), L, SLOT)

    assert_close(found.half, torch.tensor([[5, 1, 15]] * 5))
    # Its whole change falls on step 1, where a part of the first slot's stands beside it.
    assert_close(found.one_by_one, torch.full((5,), (3 - 1 / 9.5) / 3).double())


def test_drawing_of_one_step():
    frames, start = drawings(torch.ones(1, L))
    found = emergence(frames, start, L, SLOT)

    assert_close(found.half, torch.ones(5, L, dtype=torch.int64))
    assert_close(found.spread, torch.zeros(5))


@pytest.mark.parametrize("length", [1, 5])
def test_order_takes_two_digits_that_fit(length):
    frames, start = drawings(torch.ones(2, L))

    with pytest.raises(FastdrawError, match=f"takes 2 to 4 digits of 16 pixels in 64, got {length}"):
        emergence(frames, start, length, SLOT)


def test_focus_counts_steps_and_the_largest_weight():
    attention = torch.tensor([[[1.0, 0.0]], [[0.6, 0.4]], [[0.2, 0.8]], [[0.5, 0.5]]]).expand(4, 3, 2)
    found = focus(attention)

    assert_close(found.largest, torch.full((3,), (1 + 0.6 + 0.8 + 0.5) / 4).double())
    assert_close(found.steps, torch.tensor([[0.75, 0.25]] * 3).double())
    assert [digit.value for digit in found.summary()["steps"]] == [0.75, 0.25]
