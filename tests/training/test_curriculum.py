"""The curriculum: which lengths each stage trains on, when it starts, and that a run's batches follow it."""

import pytest
import torch

from fastdraw.errors import FastdrawError
from fastdraw.training import resolve
from fastdraw.training.settings import CurriculumSettings
from fastdraw.training.sources import training_source
from tests.training.tiny import tiny

LENGTHS = (0.4, 0.3, 0.2, 0.1)


@pytest.mark.parametrize(
    ("kind", "stages"),
    [
        ("none", [((0.4, 0.3, 0.2, 0.1), 0)]),
        ("staged", [((0.4, 0, 0, 0), 0), ((0, 0.3, 0, 0), 10), ((0, 0, 0.2, 0), 30), ((0, 0, 0, 0.1), 60)]),
        ("cumulative", [((0.4, 0, 0, 0), 0), ((0.4, 0.3, 0, 0), 10), ((0.4, 0.3, 0.2, 0), 30), (LENGTHS, 60)]),
    ],
)
def test_stages_take_one_length_more_at_their_shares_of_the_steps(kind, stages) -> None:
    assert CurriculumSettings(kind=kind, shares=(1, 2, 3, 4)).stages(LENGTHS, 100) == stages


def test_a_length_without_weight_has_no_stage() -> None:
    stages = CurriculumSettings(kind="staged", shares=(1, 5, 2, 5)).stages((1, 0, 3, 0), 30)
    assert stages == [((1, 0, 0, 0), 0), ((0, 0, 3, 0), 10)]


@pytest.mark.parametrize(("kind", "seen"), [("staged", [{1}, {2}, {3}]), ("cumulative", [{1}, {1, 2}, {1, 2, 3}])])
@pytest.mark.parametrize("mixed", [False, True])
def test_batches_of_a_run_follow_the_stages(kind, seen, mixed) -> None:
    settings = tiny(
        steps=60, batch_size=8, curriculum__kind=kind, curriculum__shares=(1, 2, 3, 1), data__lengths=(1, 1, 1, 0)
    )
    source = training_source(settings)
    lengths = [(source.mixed_batch if mixed else source.batch)(step).lengths for step in range(60)]
    for (start, end), expected in zip(((0, 10), (10, 30), (30, 60)), seen, strict=True):
        assert set(torch.cat(lengths[start:end]).tolist()) == expected
    if not mixed:
        assert all(len(of_batch.unique()) == 1 for of_batch in lengths)


def test_the_canvas_starts_from_the_mean_of_the_first_stage() -> None:
    mean = training_source(tiny(curriculum__kind="cumulative")).mean_image()
    assert torch.equal(mean, training_source(tiny(data__lengths=(1, 0, 0, 0))).mean_image())


@pytest.mark.parametrize("shares", [(0, 1, 1, 1), (1, 1, -1, 1), (1, 1, float("inf"), 1)])
def test_shares_are_finite_and_positive(shares) -> None:
    with pytest.raises(FastdrawError, match=r"curriculum.shares"):
        resolve(overrides={"curriculum.shares": shares})
