"""A host leaves: what goes, what stays, in which order, and what a second run mends."""

from __future__ import annotations

import datetime as dt
import tarfile
from pathlib import Path

import pytest

from appliance.leaving import plan
from appliance.leaving.errors import LeavingError
from appliance.leaving.found import look
from appliance.leaving.steps import Command, Keep, Remove, Step, carry_out
from tests.unit.leaving.conftest import Site

DAY = dt.date(2026, 11, 21)


def steps(site: Site, *, erase: bool = False) -> list[Step]:
    """What would be done."""
    return plan.make(look(site.root, site.run), root=site.root, today=DAY, erase=erase)


def leave(site: Site, *, erase: bool = False) -> list[Path]:
    """Do it; returns the archives."""
    made = [carry_out(step, site.run) for step in steps(site, erase=erase)]
    return [archive for archive in made if archive]


def place(step: Step) -> str:
    """A step in a word."""
    match step:
        case Command(words):
            return " ".join(words)
        case Keep(home):
            return f"keep {home.name}"
        case Remove(path):
            return f"remove {path.name}"


def test_looking_and_planning_change_nothing(site: Site) -> None:
    """``--dry-run`` is both."""
    before = site.files()
    steps(site)

    assert site.done == []
    assert site.files() == before


def test_what_is_left_is_the_hospitals_own(site: Site) -> None:
    """Data, others' containers and services, Docker, and what hardens the host."""
    leave(site, erase=True)

    assert site.files() == {
        "srv/fedward/data/patients.csv",
        "etc/wireguard/office.conf",
        "etc/systemd/system/orthanc.service",
        "etc/systemd/system/docker.service.d/fedward-proxy.conf",
        "etc/apt/apt.conf.d/80fedward-proxy",
        "etc/sysctl.d/90-fedward.conf",
        "etc/passwd",
    }
    assert site.containers == {"orthanc", "fedward-warden-test"}
    assert site.networks == {"bridge", "fdw-lab"}
    assert site.volumes == {"orthanc-data"}
    assert site.images == {"orthancteam/orthanc:1.10"}
    assert (site.is_up, site.has_table) == (False, False)


def test_upgrades_are_held_back_by_nothing_that_is_gone(site: Site) -> None:
    """A condition whose program is missing would hold them back for ever."""
    leave(site)

    assert not any("may-upgrade" in place or "apt-daily-upgrade" in place for place in site.files())


def test_a_persons_account_is_no_service_of_ours(site: Site) -> None:
    """Whatever the person is called."""
    leave(site)

    assert "fedward-smith" in (site.root / "etc/passwd").read_text()
    assert "fedward-node" not in (site.root / "etc/passwd").read_text()


def test_the_records_are_kept_and_no_secret_with_them(site: Site) -> None:
    """The hospital must be able to show for years what was done with its data."""
    (archive,) = leave(site)
    with tarfile.open(archive) as tar:
        kept = {name for name in tar.getnames() if name != "node"}
        texts = [file.read() for entry in tar if (file := tar.extractfile(entry))]

    assert archive.name == "north-2026-11-21.tar.gz"
    assert archive.stat().st_mode & 0o077 == 0
    assert kept == {"node/member.toml", "node/node.toml", "node/register.jws", "node/store", "node/store/node.sqlite3"}
    assert not any(b"SECRET" in text for text in texts)


def test_nothing_goes_before_it_is_kept_and_nothing_is_kept_that_still_changes(site: Site) -> None:
    """Containers end, then the archive is made, then the folder goes; firewall and program last of all."""
    order = [place(step) for step in steps(site)]
    marks = [
        "docker rm --force --volumes fedward-warden",
        "keep node",
        "remove node",
        "nft delete table inet fedward",
        "remove fedward-firewall.service",
        "remove opt",
    ]
    places = [order.index(mark) if mark in order else len(order) for mark in marks]

    assert places == sorted(places)
    assert order[-2:] == ["remove fedward", "remove fedward"]  # the link, and /opt/fedward


def test_a_timer_ends_before_any_service(site: Site) -> None:
    """The system cancels a service's end when its timer starts it at that moment."""
    leave(site)
    ended = [line.split()[-1] for line in site.done if line.startswith("systemctl disable --now fedward-")]
    kinds = [name.rpartition(".")[2] for name in ended]

    assert "timer" in kinds
    assert kinds.index("service") > max(place for place, kind in enumerate(kinds) if kind == "timer")


def test_once_left_there_is_nothing_more_to_do(site: Site) -> None:
    """The command may be said twice."""
    leave(site)
    found = look(site.root, site.run)

    assert found.is_nothing
    assert plan.make(found, root=site.root, today=DAY) == []


@pytest.mark.parametrize("number", range(36))
def test_a_run_that_was_cut_short_is_mended_by_another(number: int, site: Site) -> None:
    """After each step in turn the power goes; the second run ends where the first would have, records and all."""
    begun = steps(site)[:number]
    archives = [archive for step in begun if (archive := carry_out(step, site.run))]
    archives += leave(site)

    assert look(site.root, site.run).is_nothing
    assert "etc/fedward/vpn/private.key" not in site.files()
    with tarfile.open(archives[0]) as tar:
        assert "node/store/node.sqlite3" in tar.getnames()


def test_every_step_may_be_cut(site: Site) -> None:
    """So that the numbers above reach beyond the last."""
    assert 25 <= len(steps(site)) <= 36


def test_an_archive_is_never_replaced(site: Site) -> None:
    """Half a folder, archived again, must not take the whole one's place."""
    keep = next(step for step in steps(site) if isinstance(step, Keep))
    first, second = carry_out(keep, site.run), carry_out(keep, site.run)

    assert first is not None
    assert second is not None
    assert (first.name, second.name) == ("north-2026-11-21.tar.gz", "north-2026-11-21-2.tar.gz")


def test_a_step_that_is_refused_stops_the_run_and_says_which(site: Site) -> None:
    """A warden that still runs must not lose its folder beneath its feet."""
    site.fails_at = "docker rm"

    with pytest.raises(LeavingError, match="Remove the container fedward-gui: no") as raised:
        leave(site)

    assert "fedward leave" in raised.value.remedy
    assert "var/lib/fedward/node/keys/identity.pem" in site.files()


def test_a_docker_that_does_not_answer_stops_it_before_it_begins(site: Site) -> None:
    """Nobody knows then what still runs."""
    site.fails_at = "docker ps"

    with pytest.raises(LeavingError, match="Docker does not say"):
        steps(site)


def test_data_inside_the_nodes_folder_is_refused(site: Site) -> None:
    """Removing the folder would remove the hospital's data."""
    site.write("var/lib/fedward/node/node.toml", 'data_folder = "records"\n')
    site.write("var/lib/fedward/node/records/patients.csv")

    with pytest.raises(LeavingError, match="inside the node's own folder"):
        steps(site)


def test_a_data_folder_that_nobody_named_is_refused_too(site: Site) -> None:
    """``data/`` is where a node looks that was told nothing."""
    site.write("var/lib/fedward/node/data/patients.csv")

    with pytest.raises(LeavingError, match="is not empty"):
        steps(site)


def test_what_is_mounted_inside_is_refused(site: Site) -> None:
    """It would be emptied as well."""
    site.write("proc/self/mountinfo", "36 35 98:0 / /var/lib/fedward/node/share rw - nfs4 nas:/ rw\n")

    with pytest.raises(LeavingError, match="is mounted inside"):
        steps(site)


def test_the_hub_does_not_leave(site: Site) -> None:
    """It is the consortium."""
    (site.root / "var/lib/fedward/network").mkdir()

    with pytest.raises(LeavingError, match="is the consortium's hub"):
        steps(site)


def test_a_link_in_a_folder_that_goes_is_not_followed(site: Site) -> None:
    """It may lead to the data."""
    (site.root / "var/lib/fedward/node/share").symlink_to(site.root / "srv/fedward/data")
    leave(site)

    assert (site.root / "srv/fedward/data/patients.csv").read_text() == "the hospital's own\n"


def test_a_researchers_work_is_kept(site: Site) -> None:
    """Notebooks and breakpoints are theirs."""
    site.write("var/lib/fedward/researcher/member.toml", 'id = "alice"\n')
    site.write("var/lib/fedward/researcher/notebooks/study.ipynb")
    archives = leave(site)
    names = {archive.name for archive in archives}
    with tarfile.open(next(archive for archive in archives if archive.name.startswith("alice"))) as tar:
        kept = tar.getnames()

    assert names == {"north-2026-11-21.tar.gz", "alice-2026-11-21.tar.gz"}
    assert "researcher/notebooks/study.ipynb" in kept


def test_the_operator_is_told_whom_to_revoke(site: Site) -> None:
    """Leaving ends what is here; what others believe of this member is the operator's to end."""
    assert "fedward member revoke north" in plan.farewell(look(site.root, site.run), DAY)
    assert any("/srv/fedward/data" in sentence for sentence in plan.stays(look(site.root, site.run)))
