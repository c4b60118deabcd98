"""Which hosts a build may be sent to; nothing is connected to, names are resolved as the machine does it."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from naiad.environments.reach import Reach, SourceNotAllowed
from naiad.environments.specification import Specification, check
from naiad.errors import ConfigError


def wanted(field: str, url: str) -> Specification:
    value = url if field == "index_url" else (url,)
    specification = Specification(text="", manager="CONDA" if field == "channels" else "PIP", **{field: value})
    check(specification)
    return specification


INNER = [
    "127.0.0.1", "localhost", "a.localhost", "LOCALHOST.", "10.1.2.3", "169.254.169.254", "192.168.0.1:8443", "[::1]",
    "[fd00::1]", "[fe80::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    "0.0.0.0", "224.0.0.1", "100.64.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", INNER)
@pytest.mark.parametrize("field", ["index_url", "extra_index_urls", "find_links", "channels"])
def test_g1_an_inner_address_is_refused_before_anything_is_resolved(field, host):
    with pytest.raises(SourceNotAllowed, match="is no public one") as caught:
        Reach().check_urls(wanted(field, f"https://{host}/simple"))
    assert caught.value.field == field


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1"])
def test_g2_other_ways_to_write_an_address_are_refused_when_the_build_begins(host):
    assert socket.getaddrinfo(host, None)[0][4][0] == "127.0.0.1"  # what a client would connect to
    with pytest.raises(SourceNotAllowed, match="is no public one"):
        Reach().check(wanted("index_url", f"https://{host}/simple"))


def test_a_name_is_judged_by_its_addresses():
    name = socket.gethostname()
    try:
        inner = not any(ip_address(entry[4][0]).is_global for entry in socket.getaddrinfo(name, None))
    except OSError:
        inner = False
    if not inner:
        pytest.skip(f"'{name}', this machine's name, stands for no inner address: write one into /etc/hosts")
    specification = wanted("index_url", f"https://{name}/simple")
    Reach().check_urls(specification)  # its text alone tells nothing
    with pytest.raises(SourceNotAllowed, match=f"host '{name}' is no public one"):
        Reach().check(specification)
    Reach([name.upper()]).check(specification)


def test_what_the_administrator_lists_is_allowed():
    reach = Reach(["10.0.0.0/8", "mirror.corp", "fd00::/8", "[::1]"])
    for host in ("10.1.2.3:8080", "mirror.corp", "[fd00::2]", "[::1]"):
        for scheme in ("http", "https"):
            reach.check(wanted("index_url", f"{scheme}://{host}/simple"))
    for host in ("11.0.0.1", "[fe80::1]", "x.mirror.corp", "[::ffff:10.1.2.3]"):
        with pytest.raises(SourceNotAllowed, match=r"expected https|no public"):
            reach.check_urls(wanted("index_url", f"http://{host}/simple"))


def test_public_hosts_need_https_and_no_entry():
    for host in ("pypi.org", "1.1.1.1", "[2606:4700:4700::1111]"):
        Reach().check_urls(wanted("index_url", f"https://{host}/simple"))
        with pytest.raises(SourceNotAllowed, match="expected https, or a host that is listed"):
            Reach().check_urls(wanted("index_url", f"http://{host}/simple"))


def test_a_channel_of_the_file_counts_too():
    specification = Specification(manager="CONDA", text="channels:\n  - https://10.0.0.1/conda\n")
    with pytest.raises(SourceNotAllowed, match=r"spec: host '10.0.0.1' is no public one"):
        Reach().check_urls(specification)


@pytest.mark.parametrize("entry", ["", "a b", "http://x", "x/y", "10.0.0.0/99", "-x"])
def test_an_entry_that_is_none_is_refused(entry):
    with pytest.raises(ConfigError, match="expected a host's name, an address or a network"):
        Reach([entry])
