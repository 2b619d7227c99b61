"""docs/vae.md: its pictures, commands and options exist, and its Python runs."""

import re
import shlex
from pathlib import Path

import pytest

from fastdraw.cli import COMMANDS, main
from tests.cli.test_latent import vae

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "vae.md").read_text()
COMMAND_LINES = re.findall(r"^    fastdraw (.*?)(?:  +#.*)?$", PAGE, re.MULTILINE) + re.findall(
    r"`fastdraw (\w+ [^`]*)`", PAGE
)


@pytest.mark.parametrize("file", sorted(set(re.findall(r"\]\(([^)#]+)\)", PAGE))))
def test_a_linked_file_exists(file: str) -> None:
    assert (ROOT / "docs" / file).exists()


@pytest.mark.parametrize("line", sorted(set(COMMAND_LINES)))
def test_a_command_and_its_options_exist(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *words = shlex.split(line)
    if command == "COMMAND":
        return
    preset = ["--preset", "vae-mnist"] if command == "train" else []
    with pytest.raises(SystemExit):
        main([command, *preset, "--help"])
    text = capsys.readouterr().out
    options = [word for word in words if word.startswith("--")]
    assert all(re.search(rf"{re.escape(option)}\b", text) for option in options)


def test_every_command_for_trained_models_is_there() -> None:
    named = {line.split()[0] for line in COMMAND_LINES}
    assert {"train", "sample", "reconstruct", "interpolate", "embed", "traverse", "evaluate", "export"} <= named
    assert named <= {*COMMANDS, "COMMAND"}


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_its_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *vae(8), "--out", "runs/vae"]) == 0
    names: dict[str, object] = {}
    exec(code.replace('"auto"', '"cpu"'), names)  # the page's own code
    shapes = {name: tuple(names[name].shape) for name in ("codes", "images", "drawn", "ways", "rows")}
    assert shapes == {
        "codes": (1, 16, 8),
        "images": (16, 1, 28, 28),
        "drawn": (16, 1, 28, 28),
        "ways": (9, 8, 1, 28, 28),
        "rows": (3, 7, 1, 28, 28),
    }
    assert (tmp_path / "vae" / "model.safetensors").exists()
