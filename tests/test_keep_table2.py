"""What is kept of a table and of figures: all that the docs show, nothing of the machine, no image of SVHN."""

import io
import json

import pytest
import torch
from PIL import Image

from fastdraw.errors import FastdrawError
from fastdraw.evaluation import generation_gif
from fastdraw.evaluation.table2 import Results, render_table2
from fastdraw.training import Run
from tests.evaluation.test_claims import drawn
from tests.evaluation.test_table2 import VALUES
from tests.scripts import load_script
from tests.training.tiny import tiny


@pytest.fixture(scope="module")
def keep():
    return load_script("keep_table2")


@pytest.fixture(scope="module")
def keeping():
    return load_script("keeping")


def rows(steps):
    """A row of every step and of every 20th also a measurement; the loss is the step plus a third."""
    values = {"nll": 1.0, "kl": 0.5, "grad_norm": None, "lr": None, "seconds": 0.1}
    trained = [{"step": step, "split": "train", "loss": step + 1 / 3, **values} for step in range(1, steps + 1)]
    return trained + [row | {"split": "test"} for row in trained if row["step"] % 20 == 0]


@pytest.fixture
def table(tmp_path):
    """The folder of fastdraw reproduce table2: made-up counts, and their runs."""
    folder = tmp_path / "table"
    results = Results.model_validate(VALUES | {"data": "multi-digit MNIST"})
    for counted in results.runs:
        run = Run(folder / f"{counted.model}-{counted.seed}")
        run.folder.mkdir(parents=True)
        run.save_settings(tiny(seed=counted.seed, data__root="/home/someone/mnist"))
        run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows(500)))
    (folder / "results.json").write_text(results.model_dump_json())
    Image.new("L", (3, 2)).save(folder / "curves.png")
    return folder


def figures(folder, source="mnist", order="one by one", digits=("7", "68")):
    """The folder of fastdraw figures."""
    folder.mkdir()
    settings = tiny(data__root="/home/someone/mnist").model_dump(mode="json")
    settings["data"]["source"] = source
    (folder / "claims.json").write_text(json.dumps(drawn(order) | {"seed": 0, "settings": settings}))
    names = ["attention.png", "reconstruction.gif", "reconstructions.png"]
    names += [f"{name}-{digit}.{kind}" for digit in digits for name, kind in (("strip", "png"), ("generation", "gif"))]
    for name in names:
        Image.new("L", (len(str(folder)), 2)).save(folder / name)
    return folder


def kept(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_table_is_kept_with_its_page_its_curves_and_its_runs(keep, keeping, table, tmp_path):
    target = tmp_path / "docs"
    keep.keep_table("mnist", table, target)

    files = kept(target)
    assert sorted(files) == [f"table2-mnist{end}" for end in ("-curves.png", "-runs.json", ".json", ".md")]
    results = Results.read(target / "table2-mnist.json")
    assert results == Results.read(table / "results.json")
    assert files["table2-mnist.md"].decode() == render_table2(results)
    assert files["table2-mnist-curves.png"] == (table / "curves.png").read_bytes()
    runs = json.loads(files["table2-mnist-runs.json"])
    assert len(runs["kept_at_commit"]) == 40
    assert [(run["model"], run["seed"], run["seconds"]) for run in runs["runs"]] == [
        (counted.model, counted.seed, counted.seconds) for counted in results.runs
    ]
    assert [run["settings"]["seed"] for run in runs["runs"]] == [0, 1, 0, 1]
    assert runs["runs"][0]["rows"] == keeping.thinned(rows(500))


def test_no_path_of_the_machine_is_kept(keep, table, tmp_path):
    keep.keep_table("mnist", table, tmp_path / "docs")
    keep.keep_figures("mnist", {"seqDRAW": figures(tmp_path / "figures")}, tmp_path / "docs")
    for folder in (tmp_path / "docs", tmp_path / "docs" / "figures-mnist"):
        for path in folder.glob("*.*"):
            assert b"someone" not in path.read_bytes(), path
            assert str(tmp_path).encode() not in path.read_bytes(), path


@pytest.mark.parametrize("path", ["/home/someone", "~/mnist", "C:\\data"])
def test_a_path_where_none_was_expected_is_refused(keep, table, tmp_path, path):
    values = json.loads((table / "results.json").read_text())
    values["settings"]["rnnDRAW"]["data"] = {"cache": [path]}
    (table / "results.json").write_text(json.dumps(values))
    with pytest.raises(FastdrawError, match="a path of this machine would be kept"):
        keep.keep_table("mnist", table, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_rows_are_thinned_evenly_and_the_last_stay(keeping):
    found = keeping.thinned(rows(5000))
    assert len(found) == 200
    trained, tested = ([row["step"] for row in found if row["split"] == split] for split in ("train", "test"))
    assert trained == list(range(50, 5001, 50))
    assert len(tested) == 100
    assert tested[-1] == 5000
    assert found[0] == rows(5000)[5001] | {"loss": 40.3333}  # of the second measurement
    few = rows(30)
    assert len(keeping.thinned(few)) == len(few) == 31
    assert keeping.thinned([]) == []


def test_figures_are_those_of_the_first_and_what_only_others_drew(keep, tmp_path):
    first = figures(tmp_path / "first")
    other = figures(tmp_path / "another", order="at once", digits=("68", "334"))
    keep.keep_figures("mnist", {"seqDRAW": first, "rnnDRAW": other}, tmp_path)

    files = kept(tmp_path / "figures-mnist")
    claims = json.loads(files.pop("claims.json"))
    assert list(claims) == ["seqDRAW", "rnnDRAW"]
    assert claims["seqDRAW"]["drawings"] == drawn("one by one")["drawings"]
    page = files.pop("claims.md").decode()
    assert page.startswith("# What the models of multi-digit MNIST draw, and when\n\nMeans")
    assert "| 68 | one by one | 1.00 (1.00 to 1.00) | 0.50 (0.50 to 0.50) | -0.50 (-0.50 to -0.50) |" in page
    of_first = {"attention.png", "reconstruction.gif", "strip-7.png", "strip-68.png", "generation-7.gif"}
    of_first |= {"generation-68.gif"}
    assert set(files) == of_first | {"strip-334.png", "generation-334.gif"}
    for name, picture in files.items():
        assert picture == ((first if name in of_first else other) / name).read_bytes(), name


def test_no_image_of_svhn_is_kept(keep, tmp_path):
    keep.keep_figures("svhn", {"seqDRAW": figures(tmp_path / "figures", source="svhn")}, tmp_path)
    names = {"attention.png", "strip-7.png", "strip-68.png", "generation-7.gif", "generation-68.gif"}
    assert set(kept(tmp_path / "figures-svhn")) == names | {"claims.json", "claims.md"}


def test_a_large_animation_loses_colours_then_frames_but_neither_time_nor_its_end(keep, tmp_path):
    torch.manual_seed(0)
    frames = torch.rand(6, 1, 1, 32, 64)
    generation_gif(frames, None, 3, "max", tmp_path / "large.gif")
    data = (tmp_path / "large.gif").read_bytes()
    assert keep.small_gif(data, len(data)) is data

    def pages(gif):
        with Image.open(io.BytesIO(gif)) as animation:
            found = []
            for page in range(animation.n_frames):
                animation.seek(page)
                found.append((animation.convert("L"), animation.info["duration"]))
            return found

    whole = pages(data)
    for part in (0.9, 0.5, 0.3):
        small = keep.small_gif(data, int(part * len(data)))
        assert len(small) <= part * len(data)
        shown = pages(small)
        assert sum(time for _, time in shown) == sum(time for _, time in whole)
        last, expected = (torch.tensor(list(found[-1][0].tobytes())).float() for found in (shown, whole))
        assert (last - expected).abs().mean() < 10
    assert len(pages(keep.small_gif(data, int(0.3 * len(data))))) < len(whole)
    with pytest.raises(FastdrawError, match="cannot be made as small as 100: show fewer drawings"):
        keep.small_gif(data, 100)


def test_what_does_not_belong_together_is_refused(keep, table, tmp_path):
    target = tmp_path / "docs"
    with pytest.raises(FastdrawError, match="is a table of multi-digit MNIST, not of SVHN"):
        keep.keep_table("svhn", table, target)
    folder = figures(tmp_path / "figures")
    with pytest.raises(FastdrawError, match="shows a model of mnist, not of svhn"):
        keep.keep_figures("svhn", {"seqDRAW": folder}, target)
    other = figures(tmp_path / "other")
    claims = json.loads((other / "claims.json").read_text())
    claims["drawings"] = {"33": claims["drawings"]["68"]}
    (other / "claims.json").write_text(json.dumps(claims))
    with pytest.raises(FastdrawError, match="seqDRAW, rnnDRAW have no digits of two places or more in common"):
        keep.keep_figures("mnist", {"seqDRAW": folder, "rnnDRAW": other}, target)
    (other / "claims.json").write_text("[]")
    with pytest.raises(FastdrawError, match=r"claims.json holds no claims of fastdraw figures"):
        keep.keep_figures("mnist", {"rnnDRAW": other}, target)
    (table / "curves.png").unlink()
    with pytest.raises(FastdrawError, match=r"cannot read .*curves.png: No such file"):
        keep.keep_table("mnist", table, target)
    assert not target.exists()


@pytest.mark.parametrize("arguments", [[], ["mnist"], ["cifar", "table"], ["mnist", "table", "figures"]])
def test_wrong_usage_shows_the_right_one(keep, arguments):
    with pytest.raises(SystemExit, match=r"python scripts/keep_table2.py DATA TABLE"):
        keep.main(arguments)


def test_a_mistake_is_one_line(keep, tmp_path, monkeypatch):
    monkeypatch.setattr(keep, "DOCS", tmp_path)
    with pytest.raises(SystemExit, match=r"^keep_table2: cannot read [^\n]*results.json: No such file or directory$"):
        keep.main(["mnist", str(tmp_path / "nowhere")])
