"""fastdraw evaluate: what it refuses to judge."""

from pathlib import Path

import pytest

from fastdraw.cli import main
from tests.cli.test_errors import fails
from tests.training.tiny import tiny_arguments


def test_a_classifier_judges_no_model_that_is_told_no_digits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*tiny_arguments(steps=1), "--model.labels", "none"]
    assert main(["train", *arguments, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    command = ["evaluate", str(tmp_path / "run"), "--classifier", str(tmp_path / "judge")]
    fails(command, 1, "run is told no digits, so no classifier can read", capsys)
    assert not (tmp_path / "run" / "evaluation.json").exists()
