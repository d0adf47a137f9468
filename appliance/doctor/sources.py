"""What this machine is set to reach outside, by its own files: package mirrors, proxies, time and name servers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from appliance.doctor.host import Host, is_there

_LIST_LINE = re.compile(r"^\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s*)?(\S+)", re.MULTILINE)
_SOURCES_LINE = re.compile(r"^URIs:[ \t]*(.+)$", re.MULTILINE | re.IGNORECASE)
_APT_PROXY = re.compile(r"^\s*Acquire::(https?)::Proxy\s+\"([^\"]+)\"", re.MULTILINE | re.IGNORECASE)
_DEBIAN_POOL = tuple(f"{number}.debian.pool.ntp.org" for number in range(4))


def mirrors(host: Host) -> list[str]:
    """The addresses that apt fetches from: ``http://mirror.example.org``, each host and scheme once."""
    found = [match for text in host.texts("etc/apt/sources.list", "etc/apt/sources.list.d/*.list")
             for match in _LIST_LINE.findall(text)]  # fmt: skip
    for text in host.texts("etc/apt/sources.list.d/*.sources"):
        found += [each for line in _SOURCES_LINE.findall(text) for each in line.split()]
    kept = (urlsplit(each) for each in found)
    return _once(
        f"{each.scheme}://{each.netloc.rpartition('@')[2]}" for each in kept if each.scheme in ("http", "https")
    )


def apt_proxies(host: Host) -> dict[str, str]:
    """The proxy of apt for ``http`` and ``https``, as it is written there: it may hold a password."""
    texts = host.texts("etc/apt/apt.conf", "etc/apt/apt.conf.d/*")
    return {
        scheme.lower(): address
        for text in texts
        for scheme, address in _APT_PROXY.findall(text)
        if address.upper() != "DIRECT"
    }


def proxies(host: Host) -> list[str]:
    """Every proxy that this machine is set to, without user and password."""
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    set_here = [host.environment[name] for name in names if host.environment.get(name)]
    for text in host.texts("etc/environment"):
        set_here += re.findall(r"^\s*(?:export\s+)?https?_proxy=\"?([^\"\s]+)", text, re.MULTILINE | re.IGNORECASE)
    return _once(without_password(each) for each in [*apt_proxies(host).values(), *set_here])


def without_password(address: str) -> str:
    """A proxy's address as it may be shown: ``http://proxy.hospital.example:3128``."""
    parts = urlsplit(address if "://" in address else f"http://{address}")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def time_servers(host: Host) -> list[str]:
    """What the time service asks: systemd-timesyncd, chrony or ntpsec."""
    found: list[str] = []
    for text in host.texts("etc/systemd/timesyncd.conf", "etc/systemd/timesyncd.conf.d/*.conf"):
        found += [each for line in re.findall(r"^NTP=(.*)$", text, re.MULTILINE) for each in line.split()]
    others = ("etc/chrony/chrony.conf", "etc/chrony/conf.d/*", "etc/chrony/sources.d/*", "etc/ntpsec/ntp.conf")
    for text in host.texts(*others):
        found += re.findall(r"^\s*(?:server|pool|peer)\s+(\S+)", text, re.MULTILINE)
    if not found and is_there(host.path("usr/lib/systemd/systemd-timesyncd")):
        found = list(_DEBIAN_POOL)
    return _once(found)


def name_servers(host: Host) -> list[str]:
    """The DNS servers; behind systemd's own resolver on loopback, those that it asks."""
    found = _name_servers(host.texts("etc/resolv.conf"))
    if found and all(each.startswith("127.") for each in found):
        found = _name_servers(host.texts("run/systemd/resolve/resolv.conf")) or found
    return _once(found)


def _name_servers(texts: Iterable[str]) -> list[str]:
    return [each for text in texts for each in re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE)]


def _once(values: Iterable[str] | Iterator[str]) -> list[str]:
    return list(dict.fromkeys(values))
