"""Locks, and the wheels that they name.

All wheels are fetched here, on the operator's machine, with pip as this machine has set it up (its index, its company's
authority and proxy, its folder of wheels). No image's build has a network.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from appliance.images.catalogue import IMAGES, Image, Source
from appliance.images.process import run

CONTAINER_PYTHON = "3.11"  # Debian 12's, which the base is made of
HOST_PYTHONS = ("3.11", "3.13")  # Debian 12's and 13's
SITE, PIP = "site", "pip"
_PLATFORM = "manylinux_2_28_x86_64"
_PLATFORMS = (_PLATFORM, "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "linux_x86_64")
_PINNED_DATE = "1760000000"  # of the files in our own wheel, so that the same source makes the same bytes
_LOCK_REMEDY = "Read what it says; 'make locks' makes the locks anew after a change of requirements."
_FETCH_REMEDY = (
    "Check that pip reaches its index from here: --proxy and --ca-bundle serve a company's network. "
    "torch's wheel without CUDA comes from a folder (PIP_FIND_LINKS) or an index (PIP_EXTRA_INDEX_URL) that has it."
)


def write_locks(source: Source) -> list[Path]:
    """Resolve what each image and the hosts need, with the hash of every file that may serve.

    Raises:
        BuildError: The requirements cannot be met.
    """
    locks = [_compile(source, image.name, image.extras, _for_containers(image)) for image in IMAGES.values()]
    for_all = ("--universal", "--python-version", HOST_PYTHONS[0])
    locks.append(_compile(source, SITE, (SITE,), for_all))
    with tempfile.NamedTemporaryFile("w", suffix=".in") as wanted:
        wanted.write("pip\n")
        wanted.flush()
        locks.append(_compile(source, PIP, (), for_all, Path(wanted.name)))
    return locks


def _for_containers(image: Image) -> tuple[str, ...]:
    options = ("--python-version", CONTAINER_PYTHON, "--python-platform", "x86_64-manylinux_2_28")
    if not image.carries_torch or image.name == "runner-gpu":
        return options
    folder = os.environ.get("PIP_FIND_LINKS")
    return (*options, *(("--find-links", folder) if folder else ("--torch-backend", "cpu")))


def _compile(
    source: Source, name: str, extras: tuple[str, ...], options: tuple[str, ...], wanted: Path | None = None
) -> Path:
    lock = source.lock(name)
    lock.parent.mkdir(exist_ok=True)
    run(
        [
            _tool("uv"), "pip", "compile", wanted or "pyproject.toml", *(f"--extra={extra}" for extra in extras),
            "--generate-hashes", "--constraints", "constraints.txt", "--no-emit-index-url", "--no-emit-find-links",
            "--no-header", "--no-annotate", "--quiet", *options, "--output-file", lock,
        ],
        cwd=source.root,
        remedy=_LOCK_REMEDY,
    )  # fmt: skip
    return lock


def _tool(name: str) -> Path:
    """A program of this Python's own environment."""
    return Path(sys.executable).with_name(name)


def fetch(lock: Path, folder: Path, python: str = CONTAINER_PYTHON) -> list[Path]:
    """Fetch a lock's wheels into ``folder``; those that are there already are only checked.

    Returns:
        The wheels that this lock names.

    Raises:
        BuildError: A wheel is not to be had, or is not the one that was locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        fresh = Path(name)
        platforms = [f"--platform={platform}" for platform in _PLATFORMS]
        run(
            [
                sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                "--require-hashes", "--no-deps", "--only-binary=:all:", f"--python-version={python}", *platforms,
                "--find-links", folder, "--requirement", lock, "--dest", fresh,
            ],
            remedy=_FETCH_REMEDY,
        )  # fmt: skip
        wheels = sorted(folder / wheel.name for wheel in fresh.iterdir())
        for wheel in wheels:
            (fresh / wheel.name).replace(wheel)
    return wheels


def with_cuda(lock: str, gpu_lock: str) -> str:
    """A lock whose torch is the index's own, with the CUDA libraries that it wants; it runs without a GPU as well."""
    packages, gpu_packages = _packages(lock), _packages(gpu_lock)
    wanted = {name: text for name, text in gpu_packages.items() if name == "torch" or name not in packages}
    return "".join((packages | wanted).values())


def _packages(lock: str) -> dict[str, str]:
    """A lock's text by package."""
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)
    return {entry.split("==")[0]: entry for entry in entries if "==" in entry}


def own_wheel(source: Source, folder: Path) -> Path:
    """FedWard itself, as a wheel made from ``source``.

    Raises:
        BuildError: It cannot be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        # A copy of what belongs to it: setuptools leaves folders of its own where it builds.
        copy = Path(name, "source")
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "node_modules")
        for package in ("appliance", "node_gui", "researcher_kit", "secagg_mpc"):
            shutil.copytree(source.root / package, copy / package, ignore=ignored)
        for file in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(source.root / file, copy)
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
        run(
            [*pip, "--no-cache-dir", "--wheel-dir", Path(name, "wheel"), copy],
            env=os.environ | {"SOURCE_DATE_EPOCH": _PINNED_DATE},
            remedy=_FETCH_REMEDY,
        )
        (made,) = Path(name, "wheel").glob("fedward-*.whl")
        for old in folder.glob("fedward-*.whl"):
            old.unlink()
        return Path(shutil.copy(made, folder))


def wheelhouse(source: Source, folder: Path) -> Path:
    """Fill ``folder`` with all that a host's own ``fedward`` is installed from; returns the lock in there.

    On the host: ``pip install --no-index --find-links FOLDER --require-hashes -r FOLDER/site.lock``.

    Raises:
        BuildError: A wheel is not to be had, or cannot be built.
    """
    wheels = {wheel for python in HOST_PYTHONS for wheel in fetch(source.lock(SITE), folder, python)}
    own = own_wheel(source, folder)
    for left in set(folder.glob("*.whl")) - wheels - {own}:
        left.unlink()
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    lock = folder / "site.lock"
    lock.write_text(source.lock(SITE).read_text() + f"fedward=={source.version} \\\n    --hash=sha256:{digest}\n")
    return lock
