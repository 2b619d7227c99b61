"""Scripts and examples as modules, which lie in no package."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS, EXAMPLES = ROOT / "scripts", ROOT / "examples"


def load_script(name: str, folder: Path = SCRIPTS) -> ModuleType:
    """Import a script, and what it imports, from their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        return importlib.import_module(name)
