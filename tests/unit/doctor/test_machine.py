"""The machine: disk, encryption, memory, graphics, Docker, containers, certificates, units."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from appliance.doctor import certificates, containers, disk, encryption, firewall, hardware, units
from appliance.doctor.commands import CommandError
from appliance.doctor.finding import State
from appliance.enrolment.authority import Authority, open_transport_key, signing_request
from tests.unit.doctor.conftest import Machine

GIB = 1 << 30
IMAGE = "sha256:" + "a" * 64


def space(monkeypatch: pytest.MonkeyPatch, free: float, total: float, *, inodes: float = 0.5) -> None:
    """A file system with so many GiB."""
    block = 4096
    fields = (block, block, int(total * GIB / block), 0, int(free * GIB / block), 1000, 0, int(1000 * inodes), 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(fields))


@pytest.mark.parametrize(
    ("free", "total", "inodes", "state"),
    [
        (500, 1000, 0.5, State.OK),
        (50, 1000, 0.5, State.WEAKER),
        (5, 20, 0.5, State.WEAKER),
        (0.5, 20, 0.5, State.FAILED),
        (500, 1000, 0.001, State.FAILED),
        (500, 1000, 0.03, State.WEAKER),
    ],
)
def test_space_and_inodes_are_judged(
    free: float, total: float, inodes: float, state: State, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without inodes has space and takes nothing."""
    space(monkeypatch, free, total, inodes=inodes)
    found = list(disk.check(machine.host()))

    assert [finding.state for finding in found] == [state]  # one file system: told once


def disk_of(machine: Machine, uuid: str, device: str = "253:1", point: str = "/") -> None:
    """A mount table with one block device, made of a partition."""
    machine.write("proc/self/mountinfo", f"22 1 {device} / {point} rw - ext4 /dev/x rw\n")
    machine.write(f"sys/dev/block/{device}/dm/uuid", f"{uuid}\n")
    machine.write(f"sys/dev/block/{device}/slaves/sda3/size", "1\n")


@pytest.mark.parametrize(("uuid", "state"), [("CRYPT-LUKS2-1234-x", State.OK), ("LVM-abc", State.WEAKER)])
def test_a_crypt_device_below_the_folder_is_seen(uuid: str, state: State, machine: Machine) -> None:
    """The kernel knows the layers; nobody has to be believed."""
    disk_of(machine, uuid)

    assert {finding.state for finding in encryption.check(machine.host())} == {state}


def test_lvm_on_luks_is_encrypted(machine: Machine) -> None:
    """Debian's installer makes it so."""
    disk_of(machine, "LVM-abc")
    machine.write("sys/dev/block/253:1/slaves/dm-0/dm/uuid", "CRYPT-LUKS2-1234-x\n")

    assert {finding.state for finding in encryption.check(machine.host())} == {State.OK}


def test_what_lies_on_no_disk_is_unknown(machine: Machine) -> None:
    """A network's or a container's file system: this machine cannot see what is below."""
    disk_of(machine, "CRYPT-LUKS2-1234-x", point="/boot")
    with (machine.root / "proc/self/mountinfo").open("a") as table:
        table.write("23 1 0:45 / / rw - overlay overlay rw\n")

    assert {finding.state for finding in encryption.check(machine.host())} == {State.UNKNOWN}


@pytest.mark.parametrize(("gib", "state"), [(16, State.OK), (4, State.WEAKER), (1, State.FAILED)])
def test_a_nodes_memory_is_judged(gib: int, state: State, node: Machine) -> None:
    """Training needs more than forwarding."""
    node.write("proc/meminfo", f"MemTotal:       {gib << 20} kB\nMemFree: 1 kB\n")
    (found,) = hardware.check_memory(node.host())

    assert found.state is state


def test_a_card_without_its_driver_is_told(node: Machine) -> None:
    """No card is no fault; one that is idle is a waste."""
    (without,) = hardware.check_graphics(node.host())
    node.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    node.write("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n")
    (idle,) = hardware.check_graphics(node.host())
    node.said["nvidia-smi -L"] = "GPU 0: NVIDIA H200 (UUID: GPU-1)\n"
    (works,) = hardware.check_graphics(node.host())

    assert (without.state, idle.state, works.state) == (State.OK, State.WEAKER, State.OK)
    assert works.because == "NVIDIA H200"


def test_docker_is_judged_by_what_keeps_containers_apart(node: Machine) -> None:
    """Before the installation it is the playbook's to set up, afterwards it must be so."""
    assert {finding.state for finding in containers.check_docker(node.host())} == {State.OK}
    node.docker(SecurityOptions=["name=seccomp"], LiveRestoreEnabled=False, ServerVersion="19.3.1")
    found = {finding.name: finding.state for finding in containers.check_docker(node.host())}

    assert found == {
        "version": State.FAILED,
        "userns-remap": State.WEAKER,
        "live-restore": State.WEAKER,
        "seccomp": State.OK,
    }


def test_no_docker_is_a_failure_only_on_a_site(node: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The playbook installs it."""
    del node.said["docker info"]
    (missing,) = containers.check_docker(node.host())
    (bare,) = containers.check_docker(Machine(tmp_path_factory.mktemp("bare")).host())

    assert (missing.state, bare.state) == (State.FAILED, State.OK)


def test_containers_that_do_not_run_are_named(node: Machine) -> None:
    """Each with its log's command."""
    inspect = "docker inspect --type container --format {{json .State}} "
    node.said[inspect + "fedward-warden"] = json.dumps({"Status": "running", "Health": {"Status": "healthy"}})
    node.said[inspect + "fedward-runner"] = json.dumps({"Status": "exited", "ExitCode": 137})
    node.said[inspect + "fedward-gui"] = CommandError("Error: No such container: fedward-gui")
    found = {finding.name: finding for finding in containers.check_containers(node.host())}

    assert found["fedward-warden"].state is State.OK
    assert "137" in found["fedward-runner"].because
    assert "docker logs" in found["fedward-runner"].remedy
    assert found["fedward-gui"].state is State.FAILED


def test_a_federators_own_image_is_pinned_as_well(federator: Machine) -> None:
    """With aggregators of the consortium's own; the release's image in its place would not have them."""
    federator.write("etc/fedward/own-images.lock", json.dumps({"federator": IMAGE}))
    running = "docker inspect --type container --format {{.Image}} fedward-federator"
    states = []
    for image in (IMAGE, "sha256:b"):
        federator.said[running] = image
        (found,) = containers.check_images(federator.host())
        states.append(found.state)

    federator.write("etc/fedward/images.lock", json.dumps({"federator": "sha256:b"}))
    (found,) = containers.check_images(federator.host())
    assert [*states, found.state] == [State.OK, State.FAILED, State.FAILED]


def test_an_image_that_is_not_the_pinned_one_fails(node: Machine) -> None:
    """Whoever could exchange an image could read the data."""
    node.write("etc/fedward/images.lock", json.dumps({"warden": IMAGE, "runner-gpu": IMAGE, "node-gui": IMAGE}))
    image = "docker inspect --type container --format {{.Image}} "
    node.said |= {f"{image}fedward-warden": IMAGE, f"{image}fedward-runner": IMAGE, f"{image}fedward-gui": "sha256:b"}
    found = {finding.name: finding.state for finding in containers.check_images(node.host())}

    assert found == {"fedward-warden": State.OK, "fedward-runner": State.OK, "fedward-gui": State.FAILED}


@pytest.mark.parametrize(("days", "state"), [(30, State.OK), (3, State.WEAKER), (-2, State.FAILED)])
def test_a_certificates_end_is_told(days: int, state: State, node: Machine, tmp_path: Path) -> None:
    """Before it comes, and with where to look why it was not renewed."""
    home = node.root / "var/lib/fedward/node"
    authority = Authority.open(tmp_path / "authority", "test")
    key = open_transport_key(home / "tls/key.pem")
    pem = authority.issue(signing_request(key, "north"), "north", days=abs(days))
    (home / "tls/cert.pem").write_text(pem if days > 0 else _ended(authority, home))
    (found,) = certificates.check(node.host())

    assert (found.name, found.state) == ("own", state)
    assert ("fedward-renew" in found.remedy) == (state is not State.OK)


def _ended(authority: Authority, home: Path) -> str:
    key = open_transport_key(home / "tls/key.pem")
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=9))
        .not_valid_after(now - dt.timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def test_units_that_failed_are_named(node: Machine) -> None:
    """With the command that shows why."""
    node.said["systemctl list-units"] = "fedward-renew.service loaded failed failed Renew\n"
    (found,) = units.check(node.host())
    node.said["systemctl list-units"] = ""
    (well,) = units.check(node.host())

    assert (found.name, found.state, well.state) == ("fedward-renew.service", State.FAILED, State.OK)
    assert "journalctl -u fedward-renew.service" in found.remedy


def test_a_firewall_that_is_not_loaded_fails(node: Machine) -> None:
    """Without it, who reaches the GUI is left to chance."""
    node.said["nft list table inet fedward"] = "table inet fedward {}\n"
    (loaded,) = firewall.check(node.host())
    node.said["nft list table inet fedward"] = CommandError("Error: No such file or directory")
    (gone,) = firewall.check(node.host())
    node.said["nft list table inet fedward"] = CommandError("Operation not permitted (you must be root)")

    assert (loaded.state, gone.state) == (State.OK, State.FAILED)
    with pytest.raises(CommandError, match="not permitted"):
        list(firewall.check(node.host()))
