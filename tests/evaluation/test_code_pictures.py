"""Pictures of codes: stages, ways and traversals show the right images in the right places, plots the right numbers."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastdraw.evaluation import (
    embedding_plot,
    interpolation_gif,
    interpolation_grid,
    kl_bars,
    stage_grid,
    traversal_grid,
    traversal_line,
    traversal_plane,
)
from fastdraw.evaluation.pages import CAPTION_HEIGHT, GAP, MARGIN
from fastdraw.evaluation.pictures import WRITE
from tests.evaluation.test_pictures import coloured, pixels, tile

S = 84  # dots of 28 pixels on a page


def images(*shape, channels=1):
    return torch.rand(*shape, channels, 28, 28)


def at(page, row, column, top, left, image):
    """Whether the image stands in a row and a column of a page, whose tiles begin at top and left."""
    top, left = top + row * (S + GAP), left + column * (S + GAP)
    return np.array_equal(page[top : top + S, left : left + S], tile(image))


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "rgb"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_stages_stand_below_their_original(tmp_path, count, channels):
    originals, stages = images(2, channels=channels), images(count, 2, channels=channels)
    stage_grid(originals, list(stages), tmp_path / "a.png")
    stage_grid(None, list(stages), tmp_path / "b.png")

    page, without = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert page.shape[0] == 2 * MARGIN + (count + 1) * (S + GAP) - GAP
    assert without.shape[0] == page.shape[0] - S - GAP
    for picture, rows in ((page, [originals, *stages]), (without, stages)):
        left = picture.shape[1] - MARGIN - 2 * S - GAP
        for row, shown in enumerate(rows):
            assert all(at(picture, row, column, MARGIN, left, image) for column, image in enumerate(shown))


def test_many_images_stand_in_groups_of_rows(tmp_path):
    originals, coarse, fine = images(3, 12)
    stage_grid(originals, [coarse, fine], tmp_path / "a.png")

    page = pixels(tmp_path / "a.png")
    groups = (page.shape[0] - 2 * MARGIN + GAP) // (3 * (S + GAP))
    columns = 12 // groups
    left = page.shape[1] - MARGIN - columns * (S + GAP) + GAP
    assert groups > 1
    for place in range(12):
        for stage, shown in enumerate((originals, coarse, fine)):
            row, column = divmod(place, columns)
            assert at(page, 3 * row + stage, column, MARGIN, left, shown[place])


def test_a_way_has_its_images_between_its_ends(tmp_path):
    first, last, between = images(3), images(3), images(5, 3)
    interpolation_grid(first, between, last, tmp_path / "a.png")

    page, top = pixels(tmp_path / "a.png"), MARGIN + CAPTION_HEIGHT
    assert page.shape == (top + 3 * (S + GAP) - GAP + MARGIN, 2 * MARGIN + 7 * (S + GAP) - GAP, 3)
    for row in range(3):
        expected = [first[row], *between[:, row], last[row]]
        assert all(at(page, row, column, top, MARGIN, image) for column, image in enumerate(expected))


def test_the_animation_of_ways_goes_there_and_back(tmp_path):
    first, last = torch.zeros(2, 2, 1, 28, 28)
    between = torch.linspace(0, 1, 4).view(4, 1, 1, 1, 1).expand(4, 2, 1, 28, 28)
    interpolation_gif(first, between, last, tmp_path / "a.gif")

    shades = []
    with Image.open(tmp_path / "a.gif") as animation:
        for frame in range(animation.n_frames):
            animation.seek(frame)
            page = np.asarray(animation.convert("L"))
            middle = page[MARGIN + CAPTION_HEIGHT + 70, MARGIN + 140 + GAP + 70]
            shades.append(round(float(middle) / 85))
            assert page[MARGIN + CAPTION_HEIGHT + 70, MARGIN + 70] == 0
    assert shades == [0, 1, 2, 3, 2, 1, 0]


def test_a_traversal_frames_the_image_nearest_to_the_code(tmp_path):
    made = 0.5 * images(2, 4)
    values = [-3.0, -1.0, 1.0, 3.0]
    traversal_grid(made, values, ["z 7", "step 3, z 12"], [0.8, -99.0], tmp_path / "a.png")

    page = pixels(tmp_path / "a.png")
    top, left = MARGIN + CAPTION_HEIGHT, page.shape[1] - MARGIN - 4 * (S + GAP) + GAP
    framed = coloured(tmp_path / "a.png", WRITE)
    for row, nearest in ((0, 2), (1, 0)):
        for column in range(4):
            corner = top + row * (S + GAP), left + column * (S + GAP)
            inside = (slice(corner[0] + 3, corner[0] + S - 3), slice(corner[1] + 3, corner[1] + S - 3))
            np.testing.assert_array_equal(page[inside], tile(made[row, column])[3:-3, 3:-3])
            assert framed[corner] == (column == nearest)


def test_codes_of_one_number_fill_a_sheet_from_the_top_left(tmp_path):
    made = images(9)
    traversal_line(made, torch.linspace(-5, 5, 9).tolist(), tmp_path / "a.png")

    page = pixels(tmp_path / "a.png")
    for place in range(9):
        assert at(page, *divmod(place, 3), MARGIN, MARGIN, made[place])
    assert (page[-MARGIN - CAPTION_HEIGHT :] < 128).any(), "its ends are named"


def test_codes_of_two_numbers_are_a_sheet_without_gaps(tmp_path):
    made = images(20, 20)
    traversal_plane(made, torch.linspace(-5, 5, 20).tolist(), tmp_path / "a.png")

    page = pixels(tmp_path / "a.png")
    side = 56
    assert page[MARGIN:, MARGIN:].shape[1] >= 20 * side
    for down, across in ((0, 0), (0, 19), (19, 0), (3, 11)):
        top, left = MARGIN + down * side, MARGIN + across * side
        np.testing.assert_array_equal(page[top : top + side, left : left + side], tile(made[down, across], 2))


@pytest.fixture
def axes(monkeypatch):
    """The axes of every figure that is written from now on."""
    found = []
    for name in ("plots", "latent_pictures"):
        monkeypatch.setattr(f"fastdraw.evaluation.{name}.write_figure", lambda figure, path: found.extend(figure.axes))
    return found


def test_kl_bars_are_sorted_and_name_their_numbers(tmp_path, axes):
    kl_bars({1: [0.5, 2.0, 0.0, 1.0]}, {1: 3}, tmp_path / "a.png")

    assert [bar.get_height() for bar in axes[0].patches] == [2.0, 1.0, 0.5, 0.0]
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["1", "3", "0", "2"]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["3.5 nats in all, 3 of 4 units active"]


def test_kl_bars_of_several_lengths_keep_one_order(tmp_path, axes):
    kl_bars({1: [0.5, 2.0], 3: [4.0, 1.0]}, {1: 2, 3: 1}, tmp_path / "a.png")

    assert [bar.get_height() for bar in axes[0].patches] == [0.5, 2.0, 4.0, 1.0]
    texts = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert texts == [
        "1 label, 2.5 nats in all, 2 of 2 units active",
        "3 labels, 5.0 nats in all, 1 of 2 units active",
    ]


def test_points_have_the_colour_and_the_name_of_their_label(tmp_path, axes):
    places, labels = torch.randn(30, 2), torch.arange(30) % 3
    embedding_plot(places, labels, tmp_path / "a.png", "t-SNE of z")
    embedding_plot(places, None, tmp_path / "b.png")

    for label, group in enumerate(axes[0].collections):
        np.testing.assert_array_equal(group.get_offsets(), places[labels == label])
    colours = {tuple(group.get_facecolor()[0]) for group in axes[0].collections}
    assert len(colours) == 3
    assert [text.get_text() for text in axes[0].texts] == ["0", "1", "2"]
    assert axes[0].get_xlabel() == "t-SNE of z, first number"
    (group,) = axes[1].collections
    np.testing.assert_array_equal(group.get_offsets(), places)
    assert not axes[1].texts


def test_codes_of_one_number_are_counted_for_each_label(tmp_path, axes):
    places, labels = torch.randn(40, 1), torch.arange(40) % 2
    embedding_plot(places, labels, tmp_path / "a.png")
    embedding_plot(places, None, tmp_path / "b.png")

    assert len(axes[0].patches) == 2
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ["0", "1"]
    assert axes[0].get_ylabel() == "label"
    assert len(axes[1].patches) == 1
    assert not axes[1].get_yticks().size


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("labelled", [True, False])
def test_an_embedding_is_written(tmp_path, width, labelled):
    embedding_plot(torch.randn(20, width), torch.arange(20) % 10 if labelled else None, tmp_path / "a.png")
    kl_bars({1: torch.rand(70).tolist()}, {1: 70}, tmp_path / "b.png")

    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}
    assert all(len(np.unique(pixels(path))) > 10 for path in tmp_path.iterdir())
