"""The pages of the papers: whatever they name exists, and kept tables say what their counts say."""

import ast
import re
from pathlib import Path

import pytest

from fastdraw.cli import COMMANDS
from fastdraw.evaluation.table2 import Results, render_table2
from fastdraw.training import preset_names

ROOT = Path(__file__).parents[1]
DOCS, RESULTS = ROOT / "docs", ROOT / "docs" / "results"
ROWS = {
    "paper-000.md": [*range(1, 37)],
    "paper-001.md": [*range(37, 47)],
    "paper-002-004.md": [*range(47, 53), *range(64, 76)],
    "paper-003.md": [*range(53, 64)],
}
PAGES = {name: (DOCS / name).read_text() for name in ROWS}
TEXT = "\n".join(PAGES.values())
LINKS = sorted(set(re.findall(r"\[([^\]]+)\]\(([^)#]+)\)", TEXT)))
TESTS = [(text, file) for text, file in LINKS if file.startswith("../tests/")]


@pytest.mark.parametrize(("name", "file"), TESTS, ids=[text for text, _ in TESTS])
def test_a_named_test_exists(name: str, file: str) -> None:
    tree = ast.parse((DOCS / file).read_text())
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert name.startswith("test_")


@pytest.mark.parametrize("file", sorted({file for _, file in LINKS}))
def test_a_linked_file_exists(file: str) -> None:
    assert (DOCS / file).exists()


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`((?:examples|fastdraw|scripts|tests)/[\w/.-]+)`", TEXT))))
def test_a_named_file_exists(file: str) -> None:
    assert (ROOT / file).is_file()


@pytest.mark.parametrize(("name", "file"), sorted(set(re.findall(r"`([\w.]+)` in `([\w/.-]+\.py)`", TEXT))))
def test_what_a_file_is_said_to_hold_is_there(name: str, file: str) -> None:
    """A function, a class, or Class.method."""
    body = ast.parse((ROOT / file).read_text()).body
    for part in name.split("."):
        (found,) = (node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part)
        body = found.body


@pytest.mark.parametrize("page", ROWS)
def test_every_row_is_there_once_in_order(page: str) -> None:
    rows = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGES[page], re.MULTILINE)]
    assert rows == ROWS[page]
    for row in re.findall(r"^\|.*\|$", PAGES[page], re.MULTILINE):
        assert row.count("|") in (4, 5), row


def test_named_commands_and_presets_exist() -> None:
    assert set(re.findall(r"`fastdraw ([\w-]+)", TEXT)) <= set(COMMANDS)
    assert set(re.findall(r"--preset ([\w-]+)", TEXT)) <= set(preset_names())


def test_kept_tables_are_what_their_counts_give() -> None:
    for file in RESULTS.glob("table2-*.md"):
        assert file.read_text() == render_table2(Results.read(file.with_suffix(".json")))
