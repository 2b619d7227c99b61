"""seqDRAW: what its labels, its steps, its first canvas and its weights are."""

import pytest
import torch

from fastdraw import ops
from fastdraw.models import Draw, DrawConfig

DIGITS, LENGTHS = torch.tensor([[3, 0, 7], [9, 0, 0]]), torch.tensor([3, 1])


def tiny(**changes) -> Draw:
    sizes = {"hidden": 8, "latent": 3, "n_read": 2, "n_write": 3, "align": 5, "steps_per_label": 2, "positions": 4}
    return Draw(DrawConfig(**sizes, height=6, width=9, **changes))


def test_defaults_are_table_1() -> None:
    shapes = {name: tuple(weight.shape) for name, weight in Draw(DrawConfig()).weights._asdict().items()}
    assert shapes["enc_hh"] == (4 * 400, 400)
    assert shapes["posterior"] == (2 * 100, 400)
    assert shapes["dec_ih"] == (4 * 400, 100 + 20)
    assert shapes["align_key"] == (512, 20)
    assert Draw(DrawConfig()).noise(2, 3).shape == (10 * 3, 2, 100)


@pytest.mark.parametrize(("count_from", "positions"), [("left", [0, 1, 2]), ("right", [2, 1, 0])])
def test_a_label_is_its_digit_and_its_position(count_from: str, positions: list[int]) -> None:
    labels = tiny(count_from=count_from).label_vectors(DIGITS, LENGTHS)[0]
    assert labels.shape == (2, 3, 14)
    assert (labels.sum(-1) == 2).all()
    assert labels[0, :, :10].argmax(-1).tolist() == [3, 0, 7]
    assert labels[0, :, 10:].argmax(-1).tolist() == positions
    assert labels[1, 0].nonzero().flatten().tolist() == [9, 10]  # its only digit, first from either end


def test_the_first_canvas_is_the_mean_image() -> None:
    model, mean = tiny(), torch.rand(1, 6, 9)
    mean[0, 0, :2] = torch.tensor([0.0, 1.0])
    model.set_canvas(mean)
    torch.testing.assert_close(model.canvas0.sigmoid(), mean, atol=3e-3, rtol=0)
    assert model.canvas0.abs().max() == 6
    assert model.canvas0.requires_grad


def test_every_digit_takes_its_own_steps() -> None:
    model = tiny()
    image, noise = torch.rand(2, 1, 6, 9), model.noise(2, 3)
    output, trace = model(image, DIGITS, LENGTHS, noise, trace=True)
    assert output.kl[:2].all()
    assert output.kl[:, 0].all()
    assert not output.kl[2:, 1].any()
    assert not trace.attention[:, 1, 1:].any()
    alone = model(image[1:], DIGITS[1:, :1], LENGTHS[1:], noise[:2, 1:])
    torch.testing.assert_close((alone.nll, alone.canvas), (output.nll[1:], output.canvas[1:]))


def test_forward_is_the_rollout_of_its_settings() -> None:
    model = tiny(stride="per_axis")
    image, noise = torch.rand(1, 1, 6, 9), model.noise(1, 3)
    labels = model.label_vectors(DIGITS[:1], LENGTHS[:1])[0]
    expected = ops.draw_rollout(model.weights, image, labels, None, noise, n_read=2, n_write=3, stride="per_axis")
    torch.testing.assert_close(model(image, DIGITS[:1], LENGTHS[:1], noise), expected)


def test_the_digits_change_the_drawing_and_their_order_does_too() -> None:
    model = tiny()
    noise, lengths = model.noise(1, 2), torch.tensor([2])
    drawn = [model.sample(torch.tensor([digits]), lengths, noise) for digits in ([1, 5], [1, 6], [5, 1])]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_sampling_leaves_no_graph_and_ends_in_its_last_frame() -> None:
    model = tiny()
    noise = model.noise(2, 3)
    frames = model.sample(DIGITS, LENGTHS, noise, frames=True)
    assert not frames.requires_grad
    assert torch.equal(frames[-1], model.sample(DIGITS, LENGTHS, noise))
    assert torch.equal(frames[1, 1], frames[-1, 1])  # one digit, two steps
    assert not torch.equal(frames[1, 0], frames[-1, 0])


def test_noise_is_standard_normal_and_the_generators() -> None:
    first, again = (tiny().noise(500, 4, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (8, 500, 3)
    torch.testing.assert_close((first.mean(), first.std()), (torch.tensor(0.0), torch.tensor(1.0)), atol=0.04, rtol=0)


def test_weights_start_with_the_variance_of_their_fan_in() -> None:
    weights = Draw(DrawConfig())
    for name, scale in (("enc_hh", 1.0), ("dec_ih", 1.0), ("patch", 1.0), ("posterior", 0.1), ("write_window", 0.1)):
        weight = weights.get_parameter(name)
        assert weight.std().item() == pytest.approx(scale / weight.shape[1] ** 0.5, rel=0.1), name
    for name in ("enc_bias", "h0_enc", "h0_dec", "canvas0"):
        assert not weights.get_parameter(name).any(), name


def test_every_weight_learns() -> None:
    model = tiny()
    output = model(torch.rand(2, 1, 6, 9), DIGITS, LENGTHS, model.noise(2, 3))
    (output.nll + output.kl.sum(0)).mean().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize(
    ("digits", "lengths", "error", "words"),
    [
        ([[1]], LENGTHS[:1], TypeError, "labels must be an int64 tensor, got list"),
        (torch.ones(1, 1), LENGTHS[:1], TypeError, "labels must be an int64 tensor, got float32"),
        (DIGITS, None, TypeError, "lengths must be an int64 tensor, got NoneType"),
        (DIGITS[0], LENGTHS, ValueError, r"labels must have shape \(B, L\) with 1 <= L <= 4 positions, got \(3,\)"),
        (DIGITS.repeat(1, 2), LENGTHS, ValueError, r"with 1 <= L <= 4 positions, got \(2, 6\)"),
        (DIGITS + 1, LENGTHS, ValueError, "labels must lie in 0..9, got 1..10"),
        (DIGITS - 1, LENGTHS, ValueError, "labels must lie in 0..9, got -1..8"),
        (DIGITS, LENGTHS[:1], ValueError, r"lengths must have shape \(B,\) with B = 2 \(from labels\), got \(1,\)"),
        (DIGITS, LENGTHS + 1, ValueError, r"lengths must lie in 1\.\.3, got 2\.\.4"),
    ],
)
def test_bad_sequences_are_named(digits, lengths, error: type[Exception], words: str) -> None:
    model = tiny()
    with pytest.raises(error, match=words):
        model.sample(digits, lengths, model.noise(2, 3))
