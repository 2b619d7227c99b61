"""Label encoders: each against a loop over its labels; padding and neighbours change nothing."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from fastdraw.models.labels import DigitVectors, LastState, WordStates

LABELS, LENGTHS = torch.tensor([[3, 0, 7, 1], [9, 0, 0, 0], [2, 2, 5, 0]]), torch.tensor([4, 1, 3])
ENCODERS = [
    pytest.param(lambda: DigitVectors(10, 5, "left"), id="digits-left"),
    pytest.param(lambda: DigitVectors(10, 5, "right"), id="digits-right"),
    pytest.param(lambda: LastState(10, 6), id="last"),
    pytest.param(lambda: WordStates(10, 6), id="words"),
]


def read(lstm: nn.LSTM, labels: list[int]) -> torch.Tensor:
    """The hidden states (L, hidden) of an LSTM over labels, cell by cell."""
    cell = nn.LSTMCell(lstm.input_size, lstm.hidden_size, dtype=torch.float64)
    state, states = None, []
    for label in labels:
        weights = {name.removesuffix("_l0"): weight for name, weight in lstm.named_parameters()}
        symbol = one_hot(torch.tensor([label]), lstm.input_size).double()
        state = torch.func.functional_call(cell, weights, (symbol, state))
        states.append(state[0])
    return torch.cat(states)


def counted(labels: torch.Tensor, lengths: torch.Tensor) -> list[list[int]]:
    return [row[:length] for row, length in zip(labels.tolist(), lengths.tolist(), strict=True)]


def gradients(encoder: nn.Module, vectors: list[torch.Tensor]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    loss = sum((v * torch.randn(v.shape, generator=generator, dtype=v.dtype)).sum() for v in vectors)
    return list(torch.autograd.grad(loss, list(encoder.parameters())))


@pytest.mark.parametrize(("count_from", "positions"), [("left", [0, 1, 2, 3]), ("right", [3, 2, 1, 0])])
def test_a_digit_vector_is_its_digit_and_its_position(count_from: str, positions: list[int]) -> None:
    encoder = DigitVectors(10, 5, count_from)
    vectors, lengths = encoder(LABELS, LENGTHS)
    assert vectors.shape == (3, 4, encoder.width)
    assert encoder.width == 15
    assert (vectors.sum(-1) == 2).all()
    assert vectors[0, :, :10].argmax(-1).tolist() == [3, 0, 7, 1]
    assert vectors[0, :, 10:].argmax(-1).tolist() == positions
    assert vectors[1, 0].nonzero().flatten().tolist() == [9, 10]  # its only digit, first from either end
    assert torch.equal(lengths, LENGTHS)
    assert not encoder.state_dict()


def test_last_state_is_a_loop_over_the_labels() -> None:
    encoder = LastState(10, 6).double()
    vectors, lengths = encoder(LABELS, LENGTHS)
    expected = torch.stack([read(encoder.lstm, row)[-1:] for row in counted(LABELS, LENGTHS)])
    torch.testing.assert_close(vectors, expected)
    torch.testing.assert_close(gradients(encoder, [vectors]), gradients(encoder, [expected]))
    assert lengths.tolist() == [1, 1, 1]
    assert encoder.width == 6


def test_word_states_are_two_loops_over_the_words_from_either_end() -> None:
    encoder = WordStates(10, 6).double()
    vectors, lengths = encoder(LABELS, LENGTHS)
    found = [row[:length] for row, length in zip(vectors, lengths, strict=True)]
    expected = [
        torch.cat([read(encoder.rightwards, row), read(encoder.leftwards, row[::-1]).flip(0)], dim=1)
        for row in counted(LABELS, LENGTHS)
    ]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(encoder, found), gradients(encoder, expected))
    assert torch.equal(lengths, LENGTHS)
    assert encoder.width == 12


@pytest.mark.parametrize("make", ENCODERS)
def test_padding_and_neighbours_change_nothing(make) -> None:
    encoder = make().double()
    vectors, lengths = encoder(LABELS, LENGTHS)
    others = LABELS.masked_fill(torch.arange(4) >= LENGTHS[:, None], 8)
    order = torch.tensor([2, 0, 1])
    for sample in range(3):
        mine = vectors[sample, : lengths[sample]]
        alone, _ = encoder(LABELS[sample : sample + 1, : LENGTHS[sample]], LENGTHS[sample : sample + 1])
        torch.testing.assert_close(alone[0], mine)
        torch.testing.assert_close(encoder(others, LENGTHS)[0][sample, : lengths[sample]], mine)
        permuted, permuted_lengths = encoder(LABELS[order], LENGTHS[order])
        place = order.tolist().index(sample)
        torch.testing.assert_close(permuted[place, : permuted_lengths[place]], mine)


@pytest.mark.parametrize("make", ENCODERS)
def test_the_order_of_the_labels_matters(make) -> None:
    encoder, length = make(), torch.tensor([3])
    vectors = [encoder(torch.tensor([labels]), length)[0] for labels in ([1, 5, 2], [5, 1, 2])]
    assert not torch.allclose(vectors[0], vectors[1])


@pytest.mark.parametrize("make", ENCODERS)
def test_dtype_follows_the_module_and_a_batch_may_be_empty(make) -> None:
    encoder = make()
    for dtype in (torch.float32, torch.float64):
        vectors, _ = encoder.to(dtype)(LABELS, LENGTHS)
        assert vectors.dtype == dtype
        empty, lengths = encoder(LABELS[:0], LENGTHS[:0])
        assert (empty.shape, lengths.shape) == ((0, *vectors.shape[1:]), (0,))


@pytest.mark.parametrize("make", ENCODERS)
def test_autocast_changes_nothing(make) -> None:
    encoder = make()
    with torch.autocast("cpu", torch.bfloat16):
        vectors, _ = encoder(LABELS, LENGTHS)
    assert torch.equal(vectors, encoder(LABELS, LENGTHS)[0])


@pytest.mark.parametrize("make", ENCODERS)
def test_a_copy_gives_the_same_bits(make) -> None:
    encoder = make()
    expected = encoder(LABELS, LENGTHS)
    for other in (encoder, copy.deepcopy(encoder)):
        assert all(torch.equal(*pair) for pair in zip(other(LABELS, LENGTHS), expected, strict=True))


def test_weights_start_with_the_variance_of_their_fan_in_and_biases_at_zero() -> None:
    for name, weight in WordStates(40, 100).named_parameters():
        if weight.dim() == 2:
            assert weight.std().item() == pytest.approx(weight.shape[1] ** -0.5, rel=0.1), name
        else:
            assert not weight.any(), name


@pytest.mark.parametrize("make", ENCODERS)
@pytest.mark.parametrize(
    ("labels", "lengths", "error", "words"),
    [
        ([[1]], LENGTHS, TypeError, "labels must be an int64 tensor, got list"),
        (LABELS.float(), LENGTHS, TypeError, "labels must be an int64 tensor, got float32"),
        (LABELS, None, TypeError, "lengths must be an int64 tensor, got NoneType"),
        (LABELS[0], LENGTHS, ValueError, r"labels must have shape \(B, L\) with .*, got \(4,\)"),
        (LABELS[:, :0], LENGTHS, ValueError, r"labels must have shape \(B, L\) with .*, got \(3, 0\)"),
        (LABELS, LENGTHS[:1], ValueError, r"lengths must have shape \(B,\) with B = 3 \(from labels\), got \(1,\)"),
        (LABELS + 1, LENGTHS, ValueError, r"labels must lie in 0\.\.9, got 1\.\.10"),
        (LABELS - 1, LENGTHS, ValueError, r"labels must lie in 0\.\.9, got -1\.\.8"),
        (LABELS, LENGTHS + 1, ValueError, r"lengths must lie in 1\.\.4, got 2\.\.5"),
        (LABELS, LENGTHS - 1, ValueError, r"lengths must lie in 1\.\.4, got 0\.\.3"),
    ],
)
def test_bad_labels_are_named(make, labels, lengths, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()(labels, lengths)


def test_more_labels_than_positions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"with 1 <= L <= 5 positions, got \(3, 8\)"):
        DigitVectors(10, 5)(LABELS.repeat(1, 2), LENGTHS)
