"""SVHN's archives: fetched once, checked, unpacked whole or not at all, and never beyond their folder."""

import hashlib
import io
import shutil
import tarfile
from urllib.error import URLError

import pytest

from fastdraw.data import svhn_archive
from fastdraw.data.svhn import load_svhn
from fastdraw.errors import FastdrawError
from tests.data.svhn import write_svhn

NUMBERS = [[(4, 10, 10, 12, 30), (2, 30, 10, 12, 30)], [(10, 10, 10, 20, 40)]]
DOWNLOAD = "torchvision.datasets.utils.download_url"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def archive(tmp_path):
    """An archive of two photos, as the original ones are made."""
    folder = write_svhn(tmp_path / "source", "train", NUMBERS)
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as tar:
        tar.add(folder, "train")
    return tmp_path / "archive.tar.gz"


@pytest.fixture
def server(archive, monkeypatch):
    """A server that has the archive, and the list of what was asked of it."""
    asked = []

    def download(url, root, filename):
        asked.append(url)
        shutil.copyfile(archive, f"{root}/{filename}")

    monkeypatch.setattr(DOWNLOAD, download)
    expect(monkeypatch, archive)
    return asked


def expect(monkeypatch, archive):
    monkeypatch.setitem(svhn_archive.SHA256, "train", hashlib.sha256(archive.read_bytes()).hexdigest())


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_download_fetches_checks_and_unpacks(tmp_path, server):
    svhn = load_svhn(tmp_path / "svhn", "train", download=True)

    assert svhn.labels.tolist() == [[4, 2, 0, 0], [0, 0, 0, 0]]
    assert server == ["http://ufldl.stanford.edu/housenumbers/train.tar.gz"]
    assert names(tmp_path / "svhn" / "train") == ["1.png", "2.png", "digitStruct.mat"]
    # Neither the archive nor its temporary folder is left.
    assert {path.name for path in (tmp_path / "svhn").iterdir() if path.suffix != ".npz"} == {"train"}
    load_svhn(tmp_path / "svhn", "train", align="slots", download=True)
    assert len(server) == 1


def test_an_archive_that_is_there_is_taken_and_kept(tmp_path, server, archive):
    (tmp_path / "svhn").mkdir()
    shutil.copyfile(archive, tmp_path / "svhn" / "train.tar.gz")
    load_svhn(tmp_path / "svhn", "train", download=True)

    assert server == []
    assert (tmp_path / "svhn" / "train.tar.gz").read_bytes() == archive.read_bytes()


def test_an_archive_of_another_sum_is_not_unpacked(tmp_path, server, archive):
    data = bytearray(archive.read_bytes())
    data[-1] ^= 1
    archive.write_bytes(data)

    with pytest.raises(FastdrawError, match=r"train.tar.gz has the SHA-256 .* was expected: it is broken or another"):
        load_svhn(tmp_path / "svhn", "train", download=True)

    assert names(tmp_path / "svhn") == []


def test_a_folder_that_is_there_is_not_touched(tmp_path, server):
    (tmp_path / "svhn" / "train").mkdir(parents=True)
    (tmp_path / "svhn" / "train" / "mine.txt").write_text("mine")

    with pytest.raises(FastdrawError, match=r"train exists but holds no digitStruct.mat: move it away"):
        load_svhn(tmp_path / "svhn", "train", download=True)

    assert names(tmp_path / "svhn") == ["train", "train/mine.txt"]
    assert server == []


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("File not found\nor corrupted.")])
def test_a_failing_download_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(url, root, filename):
        raise error

    monkeypatch.setattr(DOWNLOAD, fail)

    with pytest.raises(FastdrawError, match=r"SVHN could not be fetched .*: check the network") as caught:
        load_svhn(tmp_path / "svhn", "train", download=True)

    assert "\n" not in str(caught.value)
    assert names(tmp_path / "svhn") == []


def member(name, kind=tarfile.REGTYPE, data=b"", link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), link
    return info, data


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([member("../evil.png")], "holds '../evil.png', which is no plain file in train/"),
        ([member("train/../../evil.png")], "holds 'train/../../evil.png'"),
        ([member("train/..")], "holds 'train/..'"),
        ([member("/tmp/evil.png")], "holds '/tmp/evil.png'"),
        ([member("train/more/1.png")], "holds 'train/more/1.png'"),
        ([member("train/a\\b.png")], "holds "),
        ([member("evil.png")], "holds 'evil.png'"),
        ([member("train", tarfile.SYMTYPE, link="/tmp")], "holds 'train'"),
        ([member("train/1.png", tarfile.SYMTYPE, link="/etc/passwd")], "holds 'train/1.png'"),
        ([member("train/1.png", tarfile.LNKTYPE, link="../2.png")], "holds 'train/1.png'"),
        ([member("train/1.png", tarfile.CHRTYPE)], "holds 'train/1.png'"),
        ([member("train/1.png", tarfile.FIFOTYPE)], "holds 'train/1.png'"),
        ([member("train/1.png", data=bytes(600)), member("train/2.png", data=bytes(600))], "more than 1000 bytes"),
        ([member("train/1.png"), member("train/1.png")], "could not be fetched .*exists"),
        ([member("train", tarfile.DIRTYPE)], "holds no file"),
    ],
    ids=lambda value: None if isinstance(value, str) else "+".join(info.name for info, _ in value),
)
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path, monkeypatch, members, message):
    root = tmp_path / "root" / "svhn"
    root.mkdir(parents=True)
    with tarfile.open(root / "train.tar.gz", "w:gz") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    monkeypatch.setattr(svhn_archive, "MAX_UNPACKED", 1000)
    expect(monkeypatch, root / "train.tar.gz")

    with pytest.raises(FastdrawError, match=message):
        load_svhn(root, "train", download=True)

    assert names(tmp_path / "root") == ["svhn", "svhn/train.tar.gz"]


def test_rights_and_owners_of_the_archive_are_not_taken(tmp_path, monkeypatch):
    info, data = member("train/1.png", data=b"x")
    info.mode = 0o4777
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(info, io.BytesIO(data))
    svhn_archive.unpack(tmp_path / "a.tar.gz", "train", tmp_path)

    assert (tmp_path / "train" / "1.png").stat().st_mode & 0o7111 == 0


@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_a_truncated_archive_is_named(tmp_path, archive, share):
    data = archive.read_bytes()
    archive.write_bytes(data[: int(share * len(data))])

    with pytest.raises(FastdrawError, match=r"archive.tar.gz (is no whole archive|holds no file)"):
        svhn_archive.unpack(archive, "train", tmp_path)


def test_every_split_has_its_sum():
    assert {split: len(bytes.fromhex(sha256)) for split, sha256 in svhn_archive.SHA256.items()} == {
        "train": 32,
        "test": 32,
        "extra": 32,
    }
