"""What is kept of the claim of paper 003: the page, what it is made from, nothing of the machine, and no face."""

import json

import pytest
from PIL import Image

from fastdraw.errors import FastdrawError
from fastdraw.evaluation.sharpness_table import Results, render_sharpness
from fastdraw.training import Run
from tests.evaluation.test_sharpness_table import RISING, made_up
from tests.scripts import load_script
from tests.test_keep_table2 import rows
from tests.training.tiny import tiny

PICTURES = {"rows.png", "stages.png", "samples.png"}


@pytest.fixture(scope="module")
def keep():
    return load_script("keep_sharpness")


def reproduced(folder, data, source):
    """The folder of fastdraw reproduce sharpness: made-up results, and runs that were trained on a source."""
    results = made_up(RISING, seeds=(0, 1)).model_copy(update={"data": data})
    for of_run in results.runs:
        run = Run(folder / f"{of_run.model}-{of_run.seed}")
        run.folder.mkdir(parents=True)
        values = tiny(seed=of_run.seed, data__root="/home/someone/images").model_dump(mode="json")
        values["data"]["source"] = source
        values["model"] = {"kind": "vae", "height": 28, "width": 28}
        run.settings_path.write_text(json.dumps(values))
        run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows(60)))
    (folder / "results.json").write_text(results.model_dump_json())
    for place, name in enumerate(sorted({"curves.png", *PICTURES}), 1):
        Image.new("L", (place, 2)).save(folder / name)
    return folder


@pytest.mark.parametrize(("data", "title", "source"), [("mnist", "MNIST", "digits"), ("celeba", "CelebA", "celeba")])
def test_all_but_faces_is_kept(keep, tmp_path, data, title, source):
    table = reproduced(tmp_path / "table", title, source)
    keep.keep_sharpness(data, table, tmp_path / "docs")

    (folder,) = (tmp_path / "docs").iterdir()
    assert folder.name == f"sharpness-{data}"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    pictures = {"curves.png"} | (PICTURES if data == "mnist" else set())
    assert files.keys() == {"results.json", "sharpness.md", "runs.json"} | pictures
    for name in pictures:
        assert files[name] == (table / name).read_bytes()
    results = Results.read(folder / "results.json")
    assert results == Results.read(table / "results.json")
    assert files["sharpness.md"].decode() == render_sharpness(results)
    runs = json.loads(files["runs.json"])
    assert len(runs["kept_at_commit"]) == 40
    assert [(run["model"], run["seed"]) for run in runs["runs"]] == [(run.model, run.seed) for run in results.runs]
    assert len(runs["runs"][0]["rows"]) == 63
    for name, content in files.items():
        assert b"someone" not in content, name
        assert str(tmp_path).encode() not in content, name


def test_faces_under_another_name_are_not_kept(keep, tmp_path):
    target = tmp_path / "docs"
    faces = reproduced(tmp_path / "faces", "CelebA", "celeba")
    with pytest.raises(FastdrawError, match="faces is of CelebA, not of MNIST"):
        keep.keep_sharpness("mnist", faces, target)
    disguised = reproduced(tmp_path / "disguised", "MNIST", "celeba")
    with pytest.raises(FastdrawError, match="disguised has runs on celeba, which are not of MNIST"):
        keep.keep_sharpness("mnist", disguised, target)
    assert not target.exists()


def test_what_is_missing_leaves_nothing_behind(keep, tmp_path):
    table = reproduced(tmp_path / "table", "MNIST", "digits")
    (table / "stages.png").unlink()
    with pytest.raises(FastdrawError, match=r"cannot read .*stages.png: No such file"):
        keep.keep_sharpness("mnist", table, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize("arguments", [[], ["mnist"], ["svhn", "table"], ["mnist", "table", "more"]])
def test_wrong_usage_shows_the_right_one(keep, arguments):
    with pytest.raises(SystemExit, match=r"python scripts/keep_sharpness.py DATA TABLE"):
        keep.main(arguments)


def test_a_mistake_is_one_line(keep, tmp_path):
    with pytest.raises(SystemExit, match=r"^keep_sharpness: cannot read [^\n]*results.json: No such file[^\n]*$"):
        keep.main(["mnist", str(tmp_path / "nowhere")])
