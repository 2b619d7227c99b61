"""The archives of SVHN, format 1: fetched, checked, and unpacked beside what is there."""

import hashlib
import shutil
import tarfile
import zlib
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from tqdm import tqdm

from fastdraw.errors import FastdrawError

URL = "http://ufldl.stanford.edu/housenumbers/"
# Of SPLIT.tar.gz, as data set libraries that fetch these archives give them.
SHA256 = {
    "train": "4b17bb33b6cd8f963493168f80143da956f28ec406cc12f8e5745a9f91a51898",
    "test": "57ac9ceb530e4aa85b55d991be8fc49c695b3d71c6f6a88afea86549efde7fb5",
    "extra": "e857e27d1e65bd1e7d3959b094061777f6506bbc39889a0df3bba6a729d60f9c",
}
MAX_UNPACKED = 8 * 2**30  # bytes; the greatest split, extra, packs 2 GB


def fetch_svhn(root: Path, split: str) -> None:
    """Make the folder root/split from root/SPLIT.tar.gz, which is fetched if it is not there and then not kept.

    The folder appears whole or not at all, and nothing that was there before is touched.

    Raises:
        FastdrawError: the folder exists already, the archive cannot be fetched or has another SHA-256, holds anything
            but plain files in one folder of the split's name, or the disk is full.
    """
    # torchvision takes a second to import, and nothing but a download needs it.
    from torchvision.datasets.utils import download_url

    folder, name = root / split, f"{split}.tar.gz"
    if folder.exists():
        raise FastdrawError(f"{folder} exists but holds no digitStruct.mat: move it away, then fetch it again")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{split}-", dir=root) as work:
            archive = root / name
            if not archive.is_file():
                archive = Path(work) / name
                download_url(URL + name, work, name)
            check_sum(archive, SHA256[split])
            unpack(archive, split, Path(work))
            (Path(work) / split).rename(folder)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
        raise FastdrawError(
            f"SVHN could not be fetched into {folder} ({reason}): check the network, the room on the disk and that the "
            f"folder can be written, or put {name} into {root} yourself"
        ) from error


def check_sum(archive: Path, sha256: str) -> None:
    """Compare the SHA-256 of a file.

    Raises:
        FastdrawError: it is another.
    """
    digest = hashlib.sha256()
    with open(archive, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise FastdrawError(
            f"{archive.name} has the SHA-256 {digest.hexdigest()} where {sha256} was expected: it is broken or another "
            f"file; delete it and fetch it again"
        )


def unpack(archive: Path, folder: str, target: Path) -> None:
    """Unpack an archive that holds plain files in one folder, and nothing else, into target/folder, a new folder.

    Names alone are taken from the archive: no owner, no rights, no links, no devices, no path that leads elsewhere.

    Raises:
        FastdrawError: it holds anything else, no file or more than MAX_UNPACKED bytes, or is no whole archive.
        OSError: it holds a name twice, or the disk is full.
    """
    (target / folder).mkdir()
    room, count = MAX_UNPACKED, 0
    try:
        with tarfile.open(archive, "r:gz") as tar, tqdm(tar, f"unpacking {folder}", unit="file", disable=None) as bar:
            for member in bar:
                path = PurePosixPath(member.name)
                if member.isdir() and path == PurePosixPath(folder):
                    continue
                if not member.isreg() or path.parent != PurePosixPath(folder) or path.name == ".." or "\\" in path.name:
                    raise FastdrawError(
                        f"{archive.name} holds {member.name!r}, which is no plain file in {folder}/: it is not SVHN's"
                    )
                room -= member.size
                if room < 0:
                    raise FastdrawError(f"{archive.name} unpacks to more than {MAX_UNPACKED} bytes: it is not SVHN's")
                source = tar.extractfile(member)
                with open(target / folder / path.name, "xb") as file:
                    shutil.copyfileobj(source, file)  # type: ignore[arg-type]  # of a plain file it is never None
                count += 1
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise FastdrawError(f"{archive.name} is no whole archive ({error}): delete it and fetch it again") from error
    if not count:
        raise FastdrawError(f"{archive.name} holds no file: delete it and fetch it again")
