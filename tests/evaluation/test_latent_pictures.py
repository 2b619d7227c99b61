"""Grids of z, and tiles of the images that are made of them, lie where the figures say."""

import numpy as np
import torch
from matplotlib.figure import Figure

from fastdraw.evaluation.latent_pictures import draw_tiles, grid, sweep


def test_a_sweep_goes_from_end_to_end() -> None:
    assert sweep(5, 2).tolist() == [[-2], [-1], [0], [1], [2]]
    assert sweep(100).aminmax() == (-5, 5)


def test_the_first_number_of_a_grid_grows_to_the_right_and_the_second_downwards() -> None:
    assert grid(3, 1).view(3, 3, 2).tolist() == [
        [[-1, -1], [0, -1], [1, -1]],
        [[-1, 0], [0, 0], [1, 0]],
        [[-1, 1], [0, 1], [1, 1]],
    ]


def test_tiles_are_set_row_by_row_and_the_rest_is_white() -> None:
    images = torch.rand(5, 1, 2, 3)
    axes = Figure().subplots()
    draw_tiles(axes, images, columns=3)
    (shown,) = axes.get_images()
    page = np.asarray(shown.get_array())
    assert page.shape == (4, 9, 3)
    for number, image in enumerate(images):
        top, left = 2 * (number // 3), 3 * (number % 3)
        tile = page[top : top + 2, left : left + 3]
        np.testing.assert_array_equal(tile, image[0, :, :, None].expand(-1, -1, 3).numpy())
    assert (page[2:, 6:] == 1).all()
