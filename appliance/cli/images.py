"""``fedward images``: the container images, for the operator who builds them and the hosts that load them."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.console import console, explained, print_table, visible
from appliance.images import artifacts, wheels
from appliance.images.catalogue import BASE, IMAGES, Source, choose
from appliance.images.errors import BuildError

app = typer.Typer(
    no_args_is_help=True,
    help="""The container images: build, sign, carry, check.

    One folder of artifacts holds all that a deployment carries to its hosts. Hosts start an image only by the id that
    the folder's images.lock pins.""",
)

Folder = Annotated[Path, typer.Argument(help="The folder of artifacts.", file_okay=False, show_default=False)]
Out = Annotated[Path, typer.Option("--out", help="The folder of artifacts to write.", file_okay=False)]
Names = Annotated[list[str] | None, typer.Argument(help="Which images; without names, all but runner-gpu.")]
SourceFolder = Annotated[Path, typer.Option("--source", help="A checkout of FedWard.", file_okay=False)]
SignKey = Annotated[Path | None, typer.Option("--sign-key", help="The operator's SSH key: sign the checksums.")]
Signers = Annotated[
    Path | None, typer.Option("--allowed-signers", help="Whose signature counts, as ssh-keygen's ALLOWED SIGNERS.")
]
CaBundle = Annotated[Path | None, typer.Option("--ca-bundle", help="PEM file: a company's authorities.")]
Proxy = Annotated[str | None, typer.Option("--proxy", help="URL of a company's proxy.")]
_CHECKOUT = Path(__file__).parents[2]
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "fedward"


@app.command()
@explained
def lock(source: SourceFolder = _CHECKOUT) -> None:
    """Resolve every image's requirements anew, with the hash of each file: images/locks. Also 'make locks'."""
    for path in wheels.write_locks(Source(source)):
        console.print(visible(str(path)), soft_wrap=True)


@app.command()
@explained
def build(
    names: Names = None,
    out: Out = Path("artifacts"),
    source: SourceFolder = _CHECKOUT,
    base_image: Annotated[
        str | None, typer.Option("--base-image", help="Debian 12 from a registry, instead of mmdebstrap.")
    ] = None,
    ca_bundle: CaBundle = None,
    proxy: Proxy = None,
    sign_key: SignKey = None,
    cache: Annotated[Path, typer.Option("--cache", help="Where fetched wheels are kept.", file_okay=False)] = _CACHE,
) -> None:
    """Build images with the Docker of this machine, and write the folder of artifacts.

    Wheels are fetched here with pip as this machine has set it up; the builds themselves have no network. What the
    folder holds of images that are not named stays.

    Example: fedward images build --out artifacts --sign-key ~/.ssh/id_ed25519
    """
    from appliance.images.build import Builder, Network

    began = time.monotonic()
    checkout = Source(source)
    chosen = choose(names or [])
    network = Network(ca_bundle, proxy)
    builder = Builder(checkout, cache, base_image, network, lambda step: console.print(visible(step), soft_wrap=True))
    ids = builder.build(chosen)
    with network.in_force():
        wheels.wheelhouse(checkout, out / "wheels")
    _write(out, ids, checkout.version, sign_key)
    console.print(f"Built in {time.monotonic() - began:.0f} s.")


@app.command("save")
@explained
def save_built(
    names: Names = None, out: Out = Path("artifacts"), source: SourceFolder = _CHECKOUT, sign_key: SignKey = None
) -> None:
    """Write the folder of artifacts from images that were built before, with its wheels as they are."""
    from appliance.images.build import docker_client

    checkout, client = Source(source), docker_client()
    wanted = [BASE, *IMAGES] if not names else [image.name for image in choose(names)]
    ids = {}
    for name in wanted:
        found = client.images.list(filters={"reference": f"fedward/{name}:{checkout.version}"})
        if found:
            ids[name] = str(found[0].id)
        elif names:
            raise BuildError(f"fedward/{name}:{checkout.version} is not in Docker here.")
    _write(out, ids, checkout.version, sign_key)


@app.command()
@explained
def sign(folder: Folder, key: Annotated[Path, typer.Option("--sign-key", help="The operator's SSH key.")]) -> None:
    """Sign a folder's checksums."""
    artifacts.verify(folder, None)
    artifacts.sign(folder, key)
    console.print(visible(f"{folder / artifacts.SIGNATURE}"), soft_wrap=True)


@app.command()
@explained
def verify(folder: Folder, allowed_signers: Signers = None) -> None:
    """Check the signature, then every file; say which images this machine's Docker has, by their pinned ids."""
    from appliance.images.build import docker_client

    ids = artifacts.verify(folder, allowed_signers)
    if allowed_signers is None:
        console.print("The signature was not checked: --allowed-signers says whose counts.")
    try:
        client = docker_client()
    except BuildError:
        states = dict.fromkeys(ids, "no Docker here")
    else:
        states = {name: "loaded" if artifacts.has_image(client, ids[name]) else "not loaded" for name in ids}
    print_table("Images", ("image", "id", "here"), ((name, ids[name], states[name]) for name in ids))


@app.command()
@explained
def load(folder: Folder, names: Names = None, allowed_signers: Signers = None) -> None:
    """Check the folder, then load its images into the Docker of this host; refuses any image but the pinned ones."""
    from appliance.images.build import docker_client

    ids = artifacts.verify(folder, allowed_signers)
    loaded = artifacts.load(docker_client(), folder, ids, names or [])
    typer.echo("changed" if loaded else "unchanged")
    for name in loaded:
        typer.echo(f"{name} {ids[name]}")


def _write(out: Path, ids: dict[str, str], version: str, sign_key: Path | None) -> None:
    """Archives, bills of materials, ids, checksums, signature; an archive that is there is not written again."""
    from appliance.images.bill import bill, installed, require_no_torch
    from appliance.images.build import docker_client, save

    client = docker_client()
    out.mkdir(parents=True, exist_ok=True)
    known = artifacts.read_lock(out) if (out / artifacts.LOCK).exists() else {}
    (out / "sbom").mkdir(exist_ok=True)
    for name, image_id in ids.items():
        found = installed(client, image_id)
        if name != BASE:
            require_no_torch(IMAGES[name], found)
        created = str(client.images.get(image_id).attrs["Created"])
        (out / f"sbom/{name}.cdx.json").write_text(bill(name, version, image_id, created, found), "utf-8")
    # Hosts need no base: each image's archive holds its own.
    new = [n for n in ids if n != BASE and (known.get(n) != ids[n] or not artifacts.archive(out, n).exists())]

    def archived(name: str) -> Path:
        path = artifacts.archive(out, name)
        save(docker_client(), ids[name], f"fedward/{name}:{version}", path)
        return path

    with ThreadPoolExecutor() as pool:  # zlib lets other threads run
        for name, path in zip(new, pool.map(archived, new), strict=True):
            console.print(visible(f"{name}: {path}"), soft_wrap=True)
    artifacts.write_lock(out, known | ids)
    artifacts.write_sums(out)
    if sign_key is not None:
        artifacts.sign(out, sign_key)
