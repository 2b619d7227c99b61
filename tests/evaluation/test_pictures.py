"""Pictures: the right pixels stand in the right place, and a file is whole or as it was."""

import errno
import os

import numpy as np
import pytest
import torch
from PIL import Image

from fastdraw.errors import FastdrawError
from fastdraw.evaluation import (
    attention_map,
    comparison_curves,
    curves,
    generation_gif,
    generation_strip,
    kl_by_step,
    mean_attention,
    reconstruction_gif,
    sample_grid,
    stage_grid,
)
from fastdraw.evaluation.pages import CAPTION_HEIGHT, GAP, LINE_HEIGHT, MARGIN, set_page
from fastdraw.evaluation.pictures import READ, WRITE, image_rows, spaced_steps

T, B, L, N = 12, 3, 2, 8
PNG = [
    ("samples", lambda path, c: sample_grid(images(c)[0], ["12", "34", "56"], path)),
    ("strip", lambda path, c: generation_strip(images(c), path)),
    ("reconstructions", lambda path, c: stage_grid(images(c)[0], [images(c)[1]], path)),
    ("rows", lambda path, c: image_rows({"data": images(c)[0], "model": images(c)[1]}, path)),
    ("attention", lambda path, c: attention_map(torch.rand(T, B, L).softmax(-1), B * ["12"], images(c), path)),
    ("mean-attention", lambda path, c: mean_attention({"12": torch.rand(T, B, L).softmax(-1)}, path)),
    ("curves", lambda path, c: curves(metrics(40), path)),
    ("comparison", lambda path, c: comparison_curves([("a", metrics(9)), ("b", metrics(9))], path)),
    ("kl-by-step", lambda path, c: kl_by_step({1: [2.0, 1.0], 2: [2.0, 1.0, 3.0, 0.5]}, path)),
]


def images(channels=1):
    return torch.rand(T, B, channels, 32, 64)


def metrics(count):
    return [
        {"step": step, "split": split, "loss": 300 / step + 20, "nll": 300 / step, "kl": 20.0}
        for step in range(1, count + 1)
        for split in ("train", "test")
    ]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def tile(image, scale=3):
    """Image (C, H, W) as it must stand on a page: (scale * H, scale * W, 3) uint8."""
    grey = (image * 255).round().byte().numpy().transpose(1, 2, 0)
    return np.kron(np.broadcast_to(grey, (*grey.shape[:2], 3)), np.ones((scale, scale, 1), np.uint8))


def coloured(path, colour):
    """Where a page has a colour, as closely as the palette of a GIF keeps it; without the legend at the bottom."""
    return np.abs(pixels(path).astype(int) - colour).max(-1)[: -MARGIN - CAPTION_HEIGHT] < 8


def box(found, top=MARGIN, left=MARGIN):
    """Top, left, bottom and right of what was found, from the corner of a tile."""
    rows, columns = np.nonzero(found)
    return rows.min() - top, columns.min() - left, rows.max() + 1 - top, columns.max() + 1 - left


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "rgb"])
@pytest.mark.parametrize("write", [write for _, write in PNG], ids=[name for name, _ in PNG])
def test_picture_is_written(tmp_path, write, channels):
    write(tmp_path / "a.png", channels)

    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert len(np.unique(pixels(tmp_path / "a.png"))) > 10


@pytest.mark.parametrize("write", [write for _, write in PNG], ids=[name for name, _ in PNG])
def test_full_disk_harms_no_picture(tmp_path, monkeypatch, write):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a.png"
    path.write_bytes(b"what was there before")
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(FastdrawError, match=r"cannot write .*a\.png.*No space left on device"):
        write(path, 1)

    assert path.read_bytes() == b"what was there before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "rgb"])
def test_sample_grid_sets_tiles_row_by_row(tmp_path, channels):
    samples = images(channels)[0]
    sample_grid(samples, ["1", "2", "3"], tmp_path / "a.png", columns=2)

    page = pixels(tmp_path / "a.png")

    assert page.shape == (2 * MARGIN + 2 * (CAPTION_HEIGHT + 96) + GAP, 2 * MARGIN + 2 * 192 + GAP, 3)
    top, left = MARGIN + CAPTION_HEIGHT, MARGIN
    np.testing.assert_array_equal(page[top : top + 96, left : left + 192], tile(samples[0]))
    left += 192 + GAP
    np.testing.assert_array_equal(page[top : top + 96, left : left + 192], tile(samples[1]))
    top, left = top + 96 + GAP + CAPTION_HEIGHT, MARGIN
    np.testing.assert_array_equal(page[top : top + 96, left : left + 192], tile(samples[2]))


def test_sample_grid_writes_the_captions(tmp_path):
    for name, caption in (("a", "1"), ("b", "157")):
        sample_grid(torch.zeros(1, 1, 32, 64), [caption], tmp_path / name)

    first, second = ((pixels(tmp_path / name)[: MARGIN + CAPTION_HEIGHT] < 128).sum() for name in "ab")

    assert 0 < first < second


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [
        (30, 10, range(3, 31, 3)),
        (10, 10, range(1, 11)),
        (4, 10, range(1, 5)),
        (25, 10, [3, 5, 8, 10, 13, 15, 18, 20, 23, 25]),
    ],
    ids=["30-10", "10-10", "4-10", "25-10"],
)
def test_spaced_steps_are_uniform_and_end_with_the_last(steps, count, expected):
    assert spaced_steps(steps, count) == list(expected)


def test_generation_strip_shows_runs_as_rows_and_steps_as_columns(tmp_path):
    frames = images()
    generation_strip(frames, tmp_path / "a.png", columns=4)

    page = pixels(tmp_path / "a.png")

    assert page.shape == (2 * MARGIN + CAPTION_HEIGHT + B * (96 + GAP) - GAP, 2 * MARGIN + 4 * (192 + GAP) - GAP, 3)
    for run in range(B):
        for column, step in enumerate((3, 6, 9, 12)):
            top, left = MARGIN + CAPTION_HEIGHT + run * (96 + GAP), MARGIN + column * (192 + GAP)
            np.testing.assert_array_equal(page[top : top + 96, left : left + 192], tile(frames[step - 1, run]))


def test_image_rows_set_each_label_s_images_in_its_row(tmp_path):
    rows = {"data": images()[0], "model": images()[1]}
    image_rows(rows, tmp_path / "a.png")

    page = pixels(tmp_path / "a.png")

    assert page.shape[0] == 2 * MARGIN + 2 * 96 + GAP
    for place, of_label in enumerate(rows.values()):
        top, left = MARGIN + place * (96 + GAP), page.shape[1] - MARGIN - 192
        np.testing.assert_array_equal(page[top : top + 96, left : left + 192], tile(of_label[2]))
        left -= 192 + GAP
        np.testing.assert_array_equal(page[top : top + 96, left : left + 192], tile(of_label[1]))
        assert (page[top : top + 96, MARGIN : MARGIN + 30] < 128).any()  # the label


def test_generation_gif_has_a_frame_for_each_step(tmp_path):
    generation_gif(torch.zeros(T, B, 1, 32, 64), torch.zeros(T, B, 5), N, "max", tmp_path / "a.gif")

    durations = []
    with Image.open(tmp_path / "a.gif") as animation:
        for step in range(animation.n_frames):
            animation.seek(step)
            durations.append(animation.info["duration"])

    assert len(durations) == T
    assert len(set(durations[:-1])) == 1
    assert durations[-1] > 10 * durations[0]


@pytest.mark.parametrize(
    ("window", "stride", "expected"),
    [
        # delta = (W - 1)/(N - 1) exp(log delta~) = 1: four pixels to each side of (15.5, 31.5), at four dots per pixel
        ((0, 0, -9, -np.log(9), 0), "max", (48, 112, 80, 144)),
        # delta_x = 1, delta_y = 31/63
        ((0, 0, -9, -np.log(9), 0), "per_axis", (56, 112, 72, 144)),
        # centre (W + 1)/2 (g~ + 1) - 1 = (-1, -1): only the part on the canvas is drawn
        ((-1, -1, -9, -np.log(9), 0), "max", (0, 0, 14, 14)),
        ((0, 0, -9, 30, 0), "max", (0, 0, 128, 256)),
        ((5, 0, -9, -np.log(9), 0), "max", None),
    ],
    ids=["inside", "per-axis", "corner", "larger", "outside"],
)
def test_generation_gif_draws_the_write_window(tmp_path, window, stride, expected):
    windows = torch.tensor(window, dtype=torch.float32).expand(1, 1, 5)
    generation_gif(torch.zeros(1, 1, 1, 32, 64), windows, N, stride, tmp_path / "a.gif")

    if expected is None:
        assert not coloured(tmp_path / "a.gif", WRITE).any()
    else:
        assert box(coloured(tmp_path / "a.gif", WRITE)) == expected


def test_generation_gif_of_a_model_that_writes_without_a_window_has_no_box(tmp_path):
    generation_gif(torch.zeros(2, 1, 1, 32, 64), None, 0, "max", tmp_path / "a.gif")

    assert not coloured(tmp_path / "a.gif", WRITE).any()


def test_reconstruction_gif_shows_what_is_read_beside_what_is_written(tmp_path):
    data, canvases = torch.full((1, 1, 32, 64), 0.25), torch.full((3, 1, 1, 32, 64), 0.75)
    # Of 8 filters a pixel apart, of 6 filters as far apart: 4 and 3 pixels to each side of (15.5, 31.5).
    read = torch.tensor([0, 0, -9, -np.log(9), 0], dtype=torch.float32).expand(3, 1, 5)
    write = torch.tensor([0, 0, -9, -np.log(63 / 5), 0], dtype=torch.float32).expand(3, 1, 5)
    path = tmp_path / "a.gif"
    reconstruction_gif(data, canvases, read, write, (N, 6), "max", path)

    top, right = MARGIN + CAPTION_HEIGHT, MARGIN + 256 + GAP
    assert box(coloured(path, READ), top, MARGIN) == (48, 112, 80, 144)
    assert box(coloured(path, WRITE), top, right) == (52, 116, 76, 140)
    page = pixels(path)
    assert page[top, MARGIN].tolist() == pytest.approx([64] * 3, abs=8)
    assert page[top, right].tolist() == pytest.approx([191] * 3, abs=8)
    with Image.open(path) as animation:
        assert animation.n_frames == 3


@pytest.mark.parametrize("missing", ["read", "write", "both"])
def test_reconstruction_gif_draws_the_windows_that_there_are(tmp_path, missing):
    read = None if missing in ("read", "both") else torch.zeros(1, 1, 5)
    write = None if missing in ("write", "both") else torch.zeros(1, 1, 5)
    reconstruction_gif(
        torch.zeros(1, 1, 28, 28), torch.zeros(1, 1, 1, 28, 28), read, write, (2, 5), "max", tmp_path / "a"
    )

    assert coloured(tmp_path / "a", READ).any() == (read is not None)
    assert coloured(tmp_path / "a", WRITE).any() == (write is not None)


@pytest.mark.parametrize("steps", [9, 10, 100])
def test_pages_of_a_gif_differ_in_the_number_of_the_step_alone(tmp_path, steps):
    generation_gif(torch.zeros(steps, 1, 1, 28, 28), torch.zeros(steps, 1, 5), N, "max", tmp_path / "a.gif")

    with Image.open(tmp_path / "a.gif") as animation:
        pages = []
        for step in (0, steps - 1):
            animation.seek(step)
            pages.append(np.asarray(animation.convert("RGB")).astype(int))
    rows, columns = np.nonzero(np.abs(pages[1] - pages[0]).max(-1) > 8)

    assert rows.min() >= MARGIN + 140
    assert columns.max() - columns.min() < 9 * len(str(steps))  # digits are 9 dots wide


def test_footer_and_legend_fit_on_the_page():
    tile = Image.new("RGB", (20, 20))
    narrow = set_page([[tile]], footer="step 10 of 10", legend={"read window": READ, "write window": WRITE})
    page = np.asarray(narrow)

    assert (page[:, -MARGIN:] == 255).all()
    assert (np.abs(page.astype(int) - READ).max(-1) == 0).any()
    assert (page[:, -MARGIN - 20 : -MARGIN] < 128).any()  # the end of the last text


def test_generation_gif_draws_wide_filters_with_a_thick_line(tmp_path):
    counts = []
    for log_sigma2 in (-9.0, 1.0):
        windows = torch.tensor([0.0, 0.0, log_sigma2, -1.0, 0.0]).expand(1, 1, 5)
        generation_gif(torch.zeros(1, 1, 1, 32, 64), windows, N, "max", tmp_path / "a.gif")
        counts.append(coloured(tmp_path / "a.gif", WRITE).sum())

    assert counts[1] > 1.5 * counts[0]


@pytest.mark.parametrize("count", [1, 3, 500])
def test_curves_take_any_number_of_rows(tmp_path, count):
    curves(metrics(count), tmp_path / "a.png")

    assert len(np.unique(pixels(tmp_path / "a.png"))) > 10


def overflown(rows, split):
    return [row | {"loss": np.inf, "nll": np.inf, "kl": np.nan} if row["split"] == split else row for row in rows]


def test_curves_leave_out_what_is_not_finite(tmp_path):
    rows = metrics(5)
    curves(overflown(rows, "test"), tmp_path / "a.png")
    curves([row for row in rows if row["split"] == "train"], tmp_path / "b.png")
    comparison_curves([("a", rows), ("b", overflown(rows[:4], "test") + rows[4:])], tmp_path / "c.png")
    comparison_curves([("a", rows), ("b", rows[4:])], tmp_path / "d.png")
    for one, other in ("ab", "cd"):
        assert (tmp_path / f"{one}.png").read_bytes() == (tmp_path / f"{other}.png").read_bytes()
    curves(overflown(rows[:2], "test")[1:], tmp_path / "e.png")
    comparison_curves([("a", overflown(rows, "test"))], tmp_path / "f.png")


def test_curves_take_one_split_alone(tmp_path):
    curves([row for row in metrics(5) if row["split"] == "train"], tmp_path / "a.png")

    assert len(np.unique(pixels(tmp_path / "a.png"))) > 10


@pytest.mark.parametrize("length", [1, 4])
def test_attention_map_grows_with_the_digits(tmp_path, length):
    attention = torch.full((10 * length, 2, length), 1 / length)
    frames = torch.rand(10 * length, 2, 1, 32, 64)
    attention_map(attention, 2 * ["0" * length], frames, tmp_path / "a.png")

    assert pixels(tmp_path / "a.png").shape[0] > 144 * (2 * 0.3 * length + 1)


def drawn_axes(monkeypatch):
    """The axes of every figure that is written from now on."""
    found = []
    monkeypatch.setattr("fastdraw.evaluation.plots.write_figure", lambda figure, path: found.extend(figure.axes))
    return found


def test_attention_map_names_its_labels(tmp_path, monkeypatch):
    found = drawn_axes(monkeypatch)
    words = ["the", "digit", "7"]
    attention_map(torch.full((4, 1, 3), 1 / 3), [words], torch.rand(4, 1, 1, 60, 60), tmp_path / "a.png", "word")

    assert [tick.get_text() for tick in found[1].get_yticklabels()] == words
    assert found[1].get_ylabel() == "word"


def test_comparison_curves_have_a_line_for_each_run_and_a_name_for_each_model(tmp_path, monkeypatch):
    found = drawn_axes(monkeypatch)
    runs = [("seqDRAW", metrics(3)), ("rnnDRAW", metrics(2)), ("seqDRAW", metrics(4))]
    comparison_curves(runs, tmp_path / "a.png")

    lines = found[0].get_lines()
    for line, (_, rows) in zip(lines, runs, strict=True):
        expected = [(row["step"], row["loss"]) for row in rows if row["split"] == "test"]
        assert list(zip(line.get_xdata(), line.get_ydata(), strict=True)) == expected
    colours = [line.get_color() for line in lines]
    assert colours[0] == colours[2] != colours[1]
    assert [text.get_text() for text in found[0].get_legend().get_texts()] == ["seqDRAW", "rnnDRAW"]


def test_kl_by_step_has_a_line_for_each_length_and_its_sum(tmp_path, monkeypatch):
    found = drawn_axes(monkeypatch)
    kls = {1: [2.0, 1.0], 3: [2.0, 1.0, 3.0]}
    kl_by_step(kls, tmp_path / "a.png")

    for line, kl in zip(found[0].get_lines(), kls.values(), strict=True):
        assert line.get_xdata().tolist() == list(range(1, len(kl) + 1))
        assert line.get_ydata().tolist() == kl
    texts = [text.get_text() for text in found[0].get_legend().get_texts()]
    assert texts == ["1 label, 3.0 nats in all", "3 labels, 6.0 nats in all"]


def test_a_long_caption_takes_several_lines_within_its_tile(tmp_path):
    caption = "the digit 7 is at the top left of the image ."
    sample_grid(torch.zeros(2, 1, 60, 60), [caption, "7"], tmp_path / "a.png")

    page = pixels(tmp_path / "a.png")
    top = MARGIN + CAPTION_HEIGHT + 2 * LINE_HEIGHT
    assert page.shape[:2] == (top + 120 + MARGIN, 2 * MARGIN + 2 * 120 + GAP)
    ink = (page[:top] < 128).all(-1)
    assert not ink[:, MARGIN + 120 : MARGIN + 120 + GAP].any()
    lines = ink[:, : MARGIN + 120].any(1)
    assert (lines[1:] > lines[:-1]).sum() == 3
    assert ink[:, MARGIN + 120 + GAP :].any(1).nonzero()[0].min() > MARGIN + 2 * LINE_HEIGHT  # a short one stands low


def test_a_long_label_stands_in_several_lines_beside_its_row(tmp_path):
    label = "the digit 7 is at the top left of the image ."
    generation_strip(torch.zeros(1, 1, 1, 60, 60), tmp_path / "a.png", captions=[label])

    page = pixels(tmp_path / "a.png")
    assert page.shape[1] < 2 * MARGIN + 2 * (120 + GAP)
    lines = (page[:, : -MARGIN - 120 - GAP] < 128).all(-1).any(1)
    assert (lines[1:] > lines[:-1]).sum() == 3
