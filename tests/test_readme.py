"""README and docs/gpu.md say what was measured, and their examples run."""

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.gpu import page
from fastdraw.cli import COMMANDS
from fastdraw.training import preset_names
from tests.evaluation.test_table2 import VALUES
from tests.scripts import load_script

ROOT = Path(__file__).parents[1]
README, GPU = (ROOT / "README.md").read_text(), (ROOT / "docs" / "gpu.md").read_text()


@pytest.fixture(scope="module")
def readme() -> ModuleType:
    return load_script("readme")


def test_tables_and_figures_come_from_the_results(readme: ModuleType) -> None:
    for name in readme.PAGES:
        assert readme.filled(name) == (ROOT / name).read_text(), "run python scripts/readme.py"


def test_table_2_pools_the_seeds_beside_the_paper(readme: ModuleType, tmp_path: Path) -> None:
    assert readme.table2_block(tmp_path) == "Table II (`fastdraw reproduce table2 --data mnist`): not yet run."
    (tmp_path / "table2-mnist.json").write_text(json.dumps(VALUES))
    text, _, *lines = readme.table2_block(tmp_path).splitlines()
    assert "the drawings of 2 training runs of 500 steps" in text
    # Wilson: 49/50 and 190/200, 130/200 and 50/200, 170/200 and 90/200, worked out with z = 1.96.
    assert lines == [
        "| digits in the image | 1 | 2 |",
        "|---|---|---|",
        "| real held-out images: the classifier itself | 98.0% (89.5% to 99.6%) | 95.0% (91.0% to 97.3%) |",
        "| rnnDRAW | 65.0% (58.2% to 71.3%); 81.25% | 25.0% (19.5% to 31.4%); 7.55% |",
        "| seqDRAW-cur | 85.0% (79.4% to 89.3%); 81.65% | 45.0% (38.3% to 51.9%); 7.82% |",
    ]


def test_presets_are_all_listed_and_commands_exist() -> None:
    listed = re.findall(r"^\| (`[^|]*`) \|.*\|$", README.split("## The models")[1].split("## Judging")[0], re.MULTILINE)
    assert sorted(re.findall(r"`([\w-]+)`", " ".join(listed))) == preset_names()
    examples = "".join(re.findall(r"^    .*$", README, re.MULTILINE))
    assert set(re.findall(r"fastdraw ([a-z][\w-]+)", examples)) <= set(COMMANDS)


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_example_runs(code: str) -> None:
    names: dict[str, object] = {}
    exec(code, names)  # the README's own code
    assert names["look"].weight.grad.abs().sum() > 0  # type: ignore[attr-defined]


def test_page_of_the_gpu_comes_from_the_results() -> None:
    assert page.filled(GPU) == GPU, "run python -m benchmarks.gpu.page"


def test_example_of_the_gpu_runs_on_whatever_there_is() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GPU, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)  # the page's own code
    gradients = [weight.grad for weight in names["model"].parameters()]  # type: ignore[attr-defined]
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
