"""The paper's claims about drawings, as numbers of one model to keep in a file, and as a table of several models.

Claims of a model are a JSON object:

    drawings: for digits of two places or more, as "157": emergence, attention (null for a model without), style
    data: for each of their lengths, as "3": style of test images
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fastdraw.evaluation.emergence import emergence, focus
from fastdraw.evaluation.intervals import Estimate, difference
from fastdraw.evaluation.style import MEASURES, style_consistency

EMERGENCE = {
    "one_by_one": "one by one",
    "spread": "first to last digit, share of the steps",
    "left_to_right": "left to right",
    "right_to_left": "right to left",
}


def drawing_claims(
    frames: Tensor, start: Tensor, attention: Tensor | None, digits: Tensor, slot_width: int
) -> dict[str, Any]:
    """Measure drawings of the same L >= 2 digits.

    Args:
        frames (T, B, C, H, W): the canvas after each step, in [0, 1].
        start (C, H, W): the canvas before the first.
        attention (T, B, L): weights over the digits; None, for a model without.
        digits (B, L): what was asked for.
        slot_width: of a digit, in pixels.
    Raises:
        FastdrawError: one digit or one drawing, or more digits than fit into the image.
    """
    return _plain(
        {
            "runs": frames.shape[1],
            "steps": len(frames),
            "emergence": emergence(frames, start, digits.shape[1], slot_width).summary(),
            "attention": None if attention is None else focus(attention).summary(),
            "style": style_consistency(frames[-1], digits, slot_width),
        }
    )


def image_claims(images: Tensor, digits: Tensor, slot_width: int) -> dict[str, Any]:
    """Measure the style of images (B, C, H, W) of digits (B, L), of the data or drawn; raises as `drawing_claims`."""
    return _plain({"images": len(images), "style": style_consistency(images, digits, slot_width)})


def render_claims(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The claims of models, by their names, as Markdown: emergence with the difference to the first, then style."""
    names = list(models)
    lines = [
        "Means over drawings with 95 % intervals. *One by one* is 1 where one digit changes at a time, and 1/L where",
        "all L come at once.",
        "",
        _row(["digits", "how they emerge", *names, *(f"{name} - {names[0]}" for name in names[1:])]),
        "|---" * (1 + 2 * len(names)) + "|",
    ]
    drawings = [model["drawings"] for model in models.values()]
    shared = [digits for digits in drawings[0] if all(digits in others for others in drawings)]
    for digits in shared:
        for key, title in EMERGENCE.items():
            found = [Estimate(**drawing[digits]["emergence"][key]) for drawing in drawings]
            apart = [difference(other, found[0]) for other in found[1:]]
            lines.append(_row([digits, title, *map(_interval, [*found, *apart])]))
    lines += [
        "",
        "Style within an image: intra-class correlation, 1 if all digits of an image share it, 0 if each has its own.",
        "",
        _row(["digits", "measure", *names, f"test images of {names[0]}"]),
        "|---" * (3 + len(names)) + "|",
    ]
    for digits in shared:
        data = models[names[0]]["data"][str(len(digits))]
        for measure in MEASURES:
            styles = [drawing[digits]["style"][measure] for drawing in drawings]
            lines.append(_row([digits, measure, *map(_correlation, [*styles, data["style"][measure]])]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _interval(found: Estimate) -> str:
    return f"{_number(found.value)} ({_number(found.low)} to {_number(found.high)})"


def _correlation(style: Mapping[str, Any]) -> str:
    if style["icc"] is None:
        return "the same everywhere"
    return f"{_number(style['icc'])} ({_number(style['low'])} to {_number(style['high'])})"


def _number(value: float) -> str:
    return f"{round(value, 2) + 0:.2f}"  # no -0.00


def _plain(value: Any) -> Any:
    """Named tuples as objects of their fields, as JSON is read back."""
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
