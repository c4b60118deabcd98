"""Which hosts a build may be sent to by those who ask for one over the network: public ones, and those that are listed.

A name is judged by the addresses that it has when the build begins, each time (G1, G2). What an index redirects or
links to is not seen here, so only an administrator names an index.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from naiad.environments import conda_file
from naiad.environments.specification import Specification
from naiad.errors import ConfigError, NaiadError

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*", re.ASCII)
_NAT64 = ip_network("64:ff9b::/96")
_SCHEMES = ("https://", "http://")
_FILE = "file://"
ASK = "ask the administrator for: naiad up --fetch-allow HOST"
Address = IPv4Address | IPv6Address


class SourceNotAllowed(NaiadError):
    """A place that a build may not be sent to; `field` names it, `message` says why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Reach:
    """The hosts that are allowed although they are not public."""

    def __init__(self, listed: Sequence[str] = ()) -> None:
        self._names: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in listed:
            try:
                self._networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if not _NAME.fullmatch(entry):
                    text = f"expected a host's name, an address or a network such as 10.0.0.0/8, got '{entry[:80]}'"
                    raise ConfigError(text) from None
                self._names.add(entry.lower())

    def check_urls(self, specification: Specification) -> None:
        """Raises `SourceNotAllowed` for what the URLs alone tell: nothing is resolved."""
        for field, url in _urls(specification):
            self._check_text(field, url)

    def check(self, specification: Specification) -> None:
        """The same for the addresses that each host has now; one that has none is left to the build, which says so."""
        for field, url in _urls(specification):
            self._check_text(field, url)
            self._check_resolved(field, url)

    def check_packages(self, urls: Sequence[str], channels: Sequence[str]) -> None:
        """The same for packages, which a channel may say to lie elsewhere; files only below a channel in a folder."""
        folders = [f"{channel.rstrip('/')}/" for channel in channels if channel.startswith(_FILE)]
        seen: set[str] = set()
        for url in urls:
            if url.startswith(_FILE) and url.startswith(tuple(folders)) and ".." not in url.split("/"):
                continue
            if not url.startswith(_SCHEMES):
                raise SourceNotAllowed("channels", f"a package lies at '{url[:80]}', which is no part of it")
            self._check_text("channels", url)
            if _host(url) not in seen:
                self._check_resolved("channels", url)
            seen.add(_host(url))

    def _check_text(self, field: str, url: str) -> None:
        host = _host(url)
        literal = _literal(host)
        if self._is_listed(host, literal):
            return
        if literal is not None or host == "localhost" or host.endswith(".localhost"):
            self._check(field, host, [literal or IPv4Address("127.0.0.1")])
        if url.startswith("http://"):
            raise SourceNotAllowed(field, f"'http://{host}': expected https, or a host that is listed")

    def _check_resolved(self, field: str, url: str) -> None:
        host = _host(url)
        if not self._is_listed(host, _literal(host)):
            self._check(field, host, _addresses(host))

    def _is_listed(self, host: str, address: Address | None) -> bool:
        return host in self._names or (address is not None and self._is_within(address))

    def _is_within(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._networks)

    def _check(self, field: str, host: str, addresses: Sequence[Address]) -> None:
        for address in addresses:
            if not _is_public(address) and not self._is_within(address):
                raise SourceNotAllowed(field, f"host '{host[:80]}' is no public one")


def _urls(specification: Specification) -> Iterator[tuple[str, str]]:
    """(field, URL) of everything that a build would connect to because the specification says so."""
    file = conda_file.read(specification.text).channels if specification.manager == "CONDA" else ()
    places = {
        "index_url": (specification.index_url,),
        "extra_index_urls": specification.extra_index_urls,
        "find_links": specification.find_links,
        "channels": specification.channels,
        "spec": file,
    }
    for field, texts in places.items():
        yield from ((field, text) for text in texts if text.startswith(_SCHEMES))


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").rstrip(".").lower()


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _addresses(host: str) -> list[Address]:
    """As the machine resolves it, which reads `2130706433` and `0x7f.1` as addresses, too."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def _is_public(address: Address) -> bool:
    inner: Address | None = None
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return address.is_global and not address.is_multicast if inner is None else _is_public(inner)
