"""What is kept of Table 1: all that the docs show, nothing of the machine."""

import json

import pytest
from PIL import Image

from fastdraw.errors import FastdrawError
from fastdraw.evaluation.table1 import PAPER, Results, render_table1
from fastdraw.training import Run, resolve
from tests.evaluation.test_table1 import VALUES, metrics, run
from tests.scripts import load_script


@pytest.fixture(scope="module")
def keep():
    return load_script("keep_table1")


@pytest.fixture
def table(keep, tmp_path):
    """The folder of fastdraw reproduce table1: made-up losses, and their runs, of 60 train images in batches of 6."""
    folder = tmp_path / "table"
    runs = [run(row.latent, row.beta, figures.bce, figures.kl) for row, figures in PAPER.items()]
    for of_row in runs:
        of_row["train"]["images"] = 60
    results = Results.model_validate(VALUES | {"runs": runs})
    for losses in results.runs:
        kept = Run(folder / losses.name)
        kept.folder.mkdir(parents=True)
        kept.save_settings(resolve("vae-mnist", {"batch_size": 6, "data.root": "/home/someone/mnist"}))
        rows = [row | {"seconds": row["step"] / 3} for row in metrics(30, 10)]
        kept.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "results.json").write_text(results.model_dump_json())
    for name in keep.FIGURES:
        Image.new("L", (len(name), 2)).save(folder / name)
    return folder


def test_table_is_kept_with_its_page_its_figures_and_its_curves(keep, table, tmp_path):
    target = tmp_path / "docs"
    keep.keep_table(table, target)

    results = Results.read(target / "table1" / "results.json")
    assert results == Results.read(table / "results.json")
    assert (target / "table1.md").read_text() == render_table1(results)
    names = {path.name for path in (target / "table1").iterdir()}
    assert names == {"results.json", "curves.json", *keep.FIGURES}
    for name in keep.FIGURES:
        assert (target / "table1" / name).read_bytes() == (table / name).read_bytes()

    curves = json.loads((target / "table1" / "curves.json").read_text())
    assert len(curves["kept_at_commit"]) == 40
    assert list(curves["runs"]) == [row.folder(0) for row in PAPER]
    columns = dict(zip(curves["columns"], zip(*curves["runs"]["n64-beta0.5"], strict=True), strict=True))
    # An epoch has 10 steps, and the loss of every second one is its number.
    assert columns["epoch"] == (1, 2, 3)
    assert columns["train loss"] == (6, 16, 26)
    assert columns["test loss"] == (0, 0, 0)
    assert columns["test kl"] == columns["train kl"] == (0.5, 0.5, 0.5)
    assert columns["seconds"] == (3.33333, 6.66667, 10)


def test_a_row_of_a_curve_is_a_line(keep, table, tmp_path):
    keep.keep_table(table, tmp_path / "docs")
    lines = (tmp_path / "docs" / "table1" / "curves.json").read_text().splitlines()
    assert len([line for line in lines if line.strip(" ,").startswith("[ 1.0, 6.0")]) == len(PAPER)


def test_no_path_of_the_machine_is_kept(keep, table, tmp_path):
    keep.keep_table(table, tmp_path / "docs")
    for path in (tmp_path / "docs").rglob("*.*"):
        assert b"someone" not in path.read_bytes(), path
        assert str(tmp_path).encode() not in path.read_bytes(), path


def test_what_is_not_whole_is_refused(keep, table, tmp_path):
    target = tmp_path / "docs"
    (table / "fig4.png").unlink()
    with pytest.raises(FastdrawError, match=r"cannot read .*fig4.png: No such file"):
        keep.keep_table(table, target)
    values = json.loads((table / "results.json").read_text())
    values["runs"] = values["runs"][:1] + values["runs"][2:]
    (table / "results.json").write_text(json.dumps(values))
    with pytest.raises(FastdrawError, match="has no row n = 2, beta = 1: let the table be finished"):
        keep.keep_table(table, target)
    assert not target.exists()


def test_a_path_where_none_was_expected_is_refused(keep, table, tmp_path):
    values = json.loads((table / "results.json").read_text())
    values["settings"]["data"] = {"cache": ["/home/someone"]}
    (table / "results.json").write_text(json.dumps(values))
    with pytest.raises(FastdrawError, match="a path of this machine would be kept: /home/someone"):
        keep.keep_table(table, tmp_path / "docs")


def test_usage_and_mistakes_are_said(keep, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"python scripts/keep_table1.py TABLE"):
        keep.main([])
    monkeypatch.setattr(keep, "DOCS", tmp_path)
    with pytest.raises(SystemExit, match=r"^keep_table1: cannot read [^\n]*results.json: No such file or directory$"):
        keep.main([str(tmp_path / "nowhere")])


def test_the_kept_page_is_what_its_losses_give(keep):
    page = (keep.DOCS / "table1.md").read_text()
    assert page == render_table1(Results.read(keep.DOCS / "table1" / "results.json"))
