from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from naiad.control.api.access import ACCESS
from naiad.control.api.gate import Hosts, KeyFacts, decide, host_name

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "gate.json").read_text())


class GoldenRing:
    def __init__(self, snapshot: dict) -> None:
        self._keys = {
            row["id"]: KeyFacts(
                name=row["id"],
                digest=row["digest"],
                scopes=frozenset(row["scopes"]),
                services=frozenset(row["services"]),
                expires=row["expires"],
            )
            for row in snapshot["keys"]
        }
        self._services = snapshot["services"]

    def find(self, identifier: str) -> KeyFacts | None:
        return self._keys.get(identifier)

    def is_public(self, service: str) -> bool:
        return self._services.get(service, {}).get("mode") == "public"


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_both_gates_decide_alike(case):
    headers = [(name, value) for name, value in case["headers"]]
    ring = GoldenRing(GOLDEN["snapshot"])
    decision = decide(headers, scope=case["scope"], model=case["model"], ring=ring, now=1_800_000_000)
    assert decision.status == case["expect"]


def url_of(path: str) -> str:
    return path.replace("{name}", "x1").replace("{upload}", "0" * 32).replace("{path:path}", "f")


def test_no_route_answers_without_a_key_but_health(platform):  # A1, A4
    client = platform.client(None)
    for verb, path in [
        *ACCESS,
        ("PATCH", "/api/v1/services"),
        ("FROB", "/api/v1/keys"),
        ("GET", "/nothing"),
        ("GET", "/"),
    ]:
        answer = client.request(verb, url_of(path))
        expected = 200 if ACCESS.get((verb, path)) == "public" else 401
        assert answer.status_code == expected, (verb, path, answer.text)
        if expected == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "'Authorization: Bearer <key>' or 'X-API-Key: <key>'" in answer.json()["detail"]


def test_an_infer_key_may_do_nothing_here(platform):
    body = {"name": "digits", "model": {"path": "repo/digits/1/model.pt"}}
    key = platform.client().post("/api/v1/services", json=body).json()["key"]["key"]
    client = platform.client(key)
    for (verb, path), scope in ACCESS.items():
        expected = {"manage": 403, "any": 200, "public": 200}[scope]
        assert client.request(verb, url_of(path)).status_code == expected, (verb, path)


def test_a_manage_key_makes_no_wider_key(platform):  # A6
    admin = platform.client()
    manage = admin.post("/api/v1/keys", json={"name": "boss", "scopes": ["manage"]}).json()["key"]
    client = platform.client(manage)
    for body in ({"scopes": ["admin"]}, {"scopes": ["manage"]}, {"scopes": ["metrics"]}, {"services": ["*"]}):
        assert client.post("/api/v1/keys", json=body).status_code == 403, body
    assert client.delete("/api/v1/keys/admin").status_code == 403
    assert client.get("/api/v1/keys").status_code == 200


def test_two_different_keys_are_no_key(platform):
    client = platform.client("admin", Authorization="Bearer nk_" + "0" * 40)
    assert client.get("/api/v1/services").status_code == 401


def test_a_revoked_key_is_worthless_at_once(platform):
    admin = platform.client()
    made = admin.post("/api/v1/keys", json={"name": "temp", "scopes": ["manage"]}).json()
    client = platform.client(made["key"])
    assert client.get("/api/v1/services").status_code == 200
    assert made["prefix"] in str(platform.server_view()["access"]["keys"]).replace("'id': '", "'id': 'nk_")
    assert admin.delete("/api/v1/keys/temp").json()["status"] == "Revoked"
    assert client.get("/api/v1/services").status_code == 401
    assert made["prefix"][3:] not in str(platform.server_view()["access"]["keys"])


def test_lists_show_no_secret(platform):  # H3
    admin = platform.client()
    secret = admin.post("/api/v1/keys", json={"name": "temp", "services": ["*"], "expires": "30d"}).json()["key"]
    text = admin.get("/api/v1/keys").text
    assert secret not in text
    assert platform.admin not in text
    assert "digest" not in text


def test_a_strange_host_is_refused(platform):  # F2, A2
    port = platform.url.rpartition(":")[2]
    client = platform.client()
    for host in ("evil.test", f"evil.test:{port}", "a/health?x=", "127.0.0.1.evil.test", "10.0.0.1"):
        answer = client.get("/api/v1/health", headers={"Host": host})
        assert answer.status_code in (400, 421), host
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert client.get("/api/v1/health", headers={"Host": host}).status_code == 200, host


def test_another_sites_page_is_refused(platform):  # F2
    client = platform.client()
    for headers in ({"Origin": "http://evil.test"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        assert client.post("/api/v1/uploads", headers=headers).status_code == 403, headers
    own = {"Origin": platform.url, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/v1/uploads", headers=own).status_code == 201


def test_allowed_hosts_open_it(make_platform):
    platform = make_platform(allowed_hosts=("Naiad.Example",))
    answer = httpx.get(f"{platform.url}/api/v1/health", headers={"Host": "naiad.example:1"}, trust_env=False)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("header", "name"),
    [("a.b:80", "a.b"), ("[::1]:80", "::1"), ("A", "a"), ("a:b", None), ("", None), ("a b", None), ("ä.x", None)],
)
def test_host_names(header, name):
    assert host_name(header) == name


def test_an_open_address_takes_any_ip_but_no_name():
    hosts = Hosts(bound="0.0.0.0")
    assert hosts.accepts("10.1.2.3:8080")
    assert not hosts.accepts("evil.test")
