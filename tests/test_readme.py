"""README and docs/gpu.md say what was measured, and their examples run."""

import importlib.util
import re
from pathlib import Path

import pytest

from benchmarks.gpu import page

ROOT = Path(__file__).parents[1]
README, GPU = (ROOT / "README.md").read_text(), (ROOT / "docs" / "gpu.md").read_text()


def test_tables_and_figures_come_from_the_results() -> None:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "scripts" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    assert readme.filled(README) == README, "run python scripts/readme.py"


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
