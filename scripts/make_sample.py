"""Write the sample of MNIST that ships inside the package: 1,000 train and 200 test digits of every class.

    python scripts/make_sample.py --root DIR        DIR holds MNIST/raw/

The digits are a seeded draw from each class and keep MNIST's order and split; the same input gives the same digits.
"""

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np

from fastdraw.data.cells import SAMPLE
from fastdraw.data.mnist import RAW, SPLITS, load_mnist

PER_CLASS = {"train": 1000, "test": 200}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds MNIST/raw/")
    parser.add_argument("--out", type=Path, default=SAMPLE, help="where MNIST/raw/ is written (default: the package)")
    arguments = parser.parse_args()

    folder = arguments.out / RAW
    folder.mkdir(parents=True, exist_ok=True)
    for split, prefix in SPLITS.items():
        images, labels = load_mnist(arguments.root, split)
        picks = choose(labels, PER_CLASS[split])
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images[picks])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels[picks])
    print(f"{sum(path.stat().st_size for path in folder.iterdir()):,} bytes in {folder}")


def choose(labels: np.ndarray, per_class: int) -> np.ndarray:
    order = np.random.default_rng(0).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == digit][:per_class] for digit in range(10)]))


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    # Without a time stamp the file depends on its digits alone.
    path.write_bytes(gzip.compress(header + array.tobytes(), 9, mtime=0))


if __name__ == "__main__":
    main()
