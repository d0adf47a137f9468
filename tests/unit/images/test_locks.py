"""What the locks in the source name, and what is made of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance.images.bill import bill, require_no_torch
from appliance.images.catalogue import IMAGES, Source, choose
from appliance.images.errors import BuildError
from appliance.images.wheels import PIP, SITE, with_cuda

SOURCE = Source(Path(__file__).parents[3])
LEARNING = re.compile(r"^(torch|scikit-learn|pandas|opacus|scipy|declearn|nvidia-\S+)==", re.MULTILINE)


@pytest.mark.parametrize("name", [*IMAGES, SITE, PIP])
def test_every_package_of_a_lock_has_a_hash(name: str) -> None:
    """A file whose hash has changed must end the build, whichever it is."""
    entries = re.split(r"^(?=\S)", SOURCE.lock(name).read_text(), flags=re.MULTILINE)

    assert [entry for entry in entries if "==" in entry and "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", [name for name, image in IMAGES.items() if not image.carries_torch] + [SITE])
def test_no_learning_library_is_where_keys_are(name: str) -> None:
    """Nor on any host, outside the runner's container and the researcher's; the federator has declearn's alone."""
    allowed = {"declearn", "pandas", "scikit-learn", "scipy"} if name == "federator" else set()

    assert {*LEARNING.findall(SOURCE.lock(name).read_text())} == allowed


def test_without_a_wheel_for_cpus_the_one_for_gpus_is_taken_with_what_it_wants() -> None:
    """The index's wheel of torch does not load without its CUDA libraries, not even on a machine without a GPU."""
    gpu = SOURCE.lock("runner-gpu").read_text()

    assert sorted(with_cuda(SOURCE.lock("runner-cpu").read_text(), gpu).splitlines()) == sorted(gpu.splitlines())


def test_every_image_has_a_dockerfile_with_a_user_and_a_health_check() -> None:
    """A number, because the host gives folders to it; a check, because 'running' says little."""
    files = {name: (SOURCE.images / name / "Dockerfile").read_text() for name in IMAGES}

    wanted = (r"^USER \d{5}:\d{5}$", r"^HEALTHCHECK ")
    assert [
        name for name, text in files.items() if not all(re.search(want, text, re.MULTILINE) for want in wanted)
    ] == []


def test_no_dockerfile_asks_for_what_it_would_have_to_fetch() -> None:
    """A syntax line is an image that is pulled; a network in a build is code that nobody locked."""
    texts = [path.read_text() for path in SOURCE.images.glob("*/Dockerfile")]

    assert [text for text in texts if "syntax=" in text or re.search(r"\b(curl|wget)\b", text)] == []


def test_an_unknown_image_is_refused_with_the_likely_one() -> None:
    """Before anything is built."""
    with pytest.raises(BuildError, match=r"no image 'wardn'.*warden"):
        choose(["wardn"])


def test_the_gpu_image_is_built_only_when_it_is_named() -> None:
    """It is gigabytes that most hospitals do not want."""
    assert {image.name for image in choose([])} == set(IMAGES) - {"runner-gpu"}


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    """An installed fedward has no Dockerfiles."""
    with pytest.raises(BuildError, match="is no checkout"):
        Source(tmp_path)


def test_an_image_with_a_stray_library_is_refused() -> None:
    """A dependency of a dependency may bring it, one day."""
    with pytest.raises(BuildError, match="warden holds torch"):
        require_no_torch(IMAGES["warden"], {"python": [["torch", "2.13.0"]], "debian": []})
    with pytest.raises(BuildError, match="federator holds torch:"):
        require_no_torch(IMAGES["federator"], {"python": [["torch", "2.13.0"], ["scipy", "1.17.1"]], "debian": []})


def test_a_bill_of_materials_is_the_same_each_time() -> None:
    """The checksums over it would change with every look otherwise."""
    found = {"python": [["Flask", "3.1.3"]], "debian": [["libc6", "2.36-9", "amd64"]]}
    texts = {bill("warden", "0.1.0", "sha256:" + "1" * 64, "2026-11-21T23:14:00.5Z", found) for _ in range(2)}

    (text,) = texts
    assert "pkg:pypi/flask@3.1.3" in text
    assert "pkg:deb/debian/libc6@2.36-9" in text
