"""Photos brought onto 32 x 64: where the digits stand, that none is stretched, and what lies around them."""

import numpy as np
import pytest
from PIL import Image

from fastdraw.data.house_numbers import clip_boxes, place_digits


def drawn(size, boxes, ground=0, ink=255):
    """A grey photo (width, height) with boxes (left, top, right, bottom) filled with ink."""
    pixels = np.full((size[1], size[0]), ground, np.uint8)
    for left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = ink
    return Image.fromarray(pixels)


def extent(pixels, threshold=128):
    """left, top, right, bottom of what is brighter than the threshold."""
    inked_rows, inked_columns = np.nonzero(pixels > threshold)
    return inked_columns.min(), inked_rows.min(), inked_columns.max() + 1, inked_rows.max() + 1


@pytest.mark.parametrize("factor", [1, 3, 10], ids=lambda factor: f"x{factor}")
@pytest.mark.parametrize(
    ("box", "width", "height"),
    [((40, 20, 55, 50), 14.4, 28.8), ((40, 20, 70, 50), 28.8, 28.8), ((10, 20, 90, 50), 60, 22.5)],
    ids=["tall", "square", "wide"],
)
def test_right_is_one_similarity_at_the_right_edge(box, width, height, factor):
    corners = factor * np.array([box], float)
    photo = drawn((100 * factor, 70 * factor), corners.astype(int))

    left, top, right, bottom = extent(place_digits(photo, corners, "right"))

    assert abs(right - 62) <= 1
    assert abs((right - left) - width) <= 1
    assert abs((bottom - top) - height) <= 1
    assert abs((top + bottom) / 2 - 16) <= 1


def test_right_takes_the_box_around_all_digits():
    corners = np.array([(20, 10, 30, 30), (32, 15, 42, 35)], float)
    placed = place_digits(drawn((60, 50), corners.astype(int)), corners, "right")

    # 25 rows become 28.8, so that 22 columns become 25.3.
    np.testing.assert_allclose(extent(placed), (62 - 25.3, 1.6, 62, 30.4), atol=1)


def test_right_keeps_the_photo_around_the_digits_and_then_its_edge():
    pixels = np.zeros((32, 40), np.uint8)
    pixels[:, :10], pixels[:, 10:30] = 60, 200
    # At the scale 28.8 / 28.8 column 38 of the photo comes to column 62, and column 0 to column 24.
    placed = place_digits(Image.fromarray(pixels), np.array([(30, 1.6, 38, 30.4)]), "right")

    np.testing.assert_array_equal(placed[:, :32], 60)
    np.testing.assert_array_equal(placed[:, 36:52], 200)
    np.testing.assert_array_equal(placed[:, 56:], 0)


def test_a_photo_is_reduced_without_aliasing():
    photo = np.zeros((320, 640), np.uint8)
    photo[:, ::2] = 255
    placed = place_digits(Image.fromarray(photo), np.array([(500.0, 20, 600, 300)]), "right")

    # The first columns lie at and beyond the edge of the photo.
    assert abs(placed[:, 3:].astype(int) - 127).max() <= 3


def test_colour_is_kept_and_treated_as_grey_is():
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (40, 70, 3), np.uint8)
    corners = np.array([(20.0, 5, 30, 35), (32, 5, 40, 35)])
    for align in ("right", "slots", "goodfellow"):
        placed = place_digits(Image.fromarray(photo), corners, align)
        alone = [place_digits(Image.fromarray(photo[..., channel]), corners, align) for channel in range(3)]
        np.testing.assert_array_equal(placed, np.stack(alone, 2))


def test_slots_hold_one_digit_each_from_the_right():
    boxes = [(5, 10, 15, 30), (16, 5, 24, 45), (26, 12, 56, 22)]
    corners = np.array(boxes, float)
    pixels = np.full((60, 60), 10, np.uint8)
    for grey, (left, top, right, bottom) in zip((80, 150, 220), boxes, strict=True):
        pixels[top:bottom, left:right] = grey
    placed = place_digits(Image.fromarray(pixels), corners, "slots")

    # Nothing but a digit's own pixels stands in its slot.
    assert [np.unique(placed[:, start : start + 16]).tolist() for start in (0, 16, 32, 48)] == [[0], [80], [150], [220]]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((20, 40), (14.4, 28.8)), ((8, 32), (7.2, 28.8)), ((32, 16), (14.4, 7.2))],
    ids=["slot", "thin", "flat"],
)
def test_slots_do_not_stretch(size, expected):
    width, height = size
    frame = (30, 10, 30 + width, 10 + height)
    photo = drawn((100, 70), [(frame[0] + 2, frame[1] + 2, frame[2] - 2, frame[3] - 2)])
    left, top, right, bottom = extent(place_digits(photo, np.array([frame], float), "slots"))

    scale = expected[0] / width
    assert abs((right - left) - (width - 4) * scale) <= 1
    assert abs((bottom - top) - (height - 4) * scale) <= 1
    assert abs((left + right) / 2 - 56) <= 1
    assert abs((top + bottom) / 2 - 16) <= 1


def test_goodfellow_stretches_the_grown_box_to_the_whole():
    placed = place_digits(drawn((100, 100), [(40, 20, 50, 80)]), np.array([(40.0, 20, 50, 80)]), "goodfellow")

    np.testing.assert_allclose(
        extent(placed), (64 * 0.15 / 1.3, 32 * 0.15 / 1.3, 64 * 1.15 / 1.3, 32 * 1.15 / 1.3), atol=1
    )


@pytest.mark.parametrize("align", ["right", "slots", "goodfellow"])
def test_a_digit_may_fill_its_photo_or_one_pixel(align):
    flat = Image.fromarray(np.full((9, 5), 77, np.uint8))
    for corners in ((0, 0, 5, 9), (4, 8, 5, 9), (0, 0, 0.25, 0.5)):
        placed = place_digits(flat, np.array([corners], float), align)
        assert placed.shape == (32, 64)
        assert set(np.unique(placed)) <= ({0, 77} if align == "slots" else {77})


def test_clip_boxes_keeps_what_lies_within():
    boxes = np.array([(-3.0, 2, 10, 5), (70, 50, 20, 20), (0, 0, 80, 60)])

    np.testing.assert_array_equal(clip_boxes(boxes, 80, 60), [(0, 2, 7, 7), (70, 50, 80, 60), (0, 0, 80, 60)])


@pytest.mark.parametrize(
    "box", [(80, 0, 5, 5), (-5, 0, 5, 5), (0, 60, 5, 5), (0, -9, 5, 5), (1, 1, 0, 5), (1, 1, 5, -1)]
)
def test_clip_boxes_rejects_a_box_outside(box):
    said = "left {:g}, top {:g}, width {:g}, height {:g}".format(*box)
    with pytest.raises(ValueError, match=rf"has a box \({said}\) outside its 80 x 60 pixels"):
        clip_boxes(np.array([(1, 1, 2, 2), box], float), 80, 60)
