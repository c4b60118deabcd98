"""A1-A6: every route of the live table against every kind of key, on a real server."""

from __future__ import annotations

import pytest

from tests.support.keys import ALLOWED

OTHER_VERBS = ("DELETE", "PATCH", "BREW")
NAMES = {"{model}": "mine", "{version}": "1", "{repository}": "r"}


@pytest.fixture(scope="module")
def routes(secured):
    server, made = secured
    rows = server.get("/naiad/v1/routes", X_API_Key=made["admin"]).json
    rows = [row for row in rows if row["verb"] != "GRPC"]
    assert len(rows) > 20
    return rows


def _path(row: dict) -> str:
    path = row["pattern"]
    for pattern, name in NAMES.items():
        path = path.replace(pattern, name)
    return path


def _listener(server, row: dict) -> str:
    return {"v2": server.address, "metrics": server.metrics}[row["listener"]]


def test_every_route_has_a_scope(routes):
    assert {row["scope"] for row in routes} <= set(ALLOWED)


def test_every_route_by_every_key(secured, routes):
    server, made = secured
    for row in routes:
        if row["pattern"].endswith("/unload"):
            continue  # it would take the model away from the rows behind it; see below
        for caller in (None, *made):
            headers = {"X_API_Key": made[caller]} if caller else {}
            body = b"" if row["verb"] != "GET" else None
            answer = server.send(row["verb"], _path(row), body, at=_listener(server, row), **headers)
            where = f"{row['verb']} {row['pattern']} by {caller}: {answer.status} {answer.body[:100]!r}"
            if caller in ALLOWED[row["scope"]]:
                assert answer.status not in (401, 403), where
            elif caller in (None, "expired", "forged"):
                assert answer.status == 401, where
                assert "Authorization: Bearer" in answer.error and "X-API-Key" in answer.error, where
            else:
                assert answer.status == 403, where


def test_unload_is_for_managers(secured):
    server, made = secured
    for caller, expected in ((None, 401), ("infer mine", 403), ("metrics", 403), ("expired", 401)):
        headers = {"X_API_Key": made[caller]} if caller else {}
        assert server.post("/v2/repository/models/mine/unload", **headers).status == expected


def test_a4_other_verbs_are_never_served(secured, routes):
    server, made = secured
    for row in routes:
        for verb in OTHER_VERBS:
            answer = server.send(verb, _path(row), at=_listener(server, row), X_API_Key=made["admin"])
            assert answer.status == 405, (verb, row["pattern"])


def test_both_headers_and_never_two_keys(secured):
    server, made = secured
    path = "/v2/models/mine"
    assert server.get(path, Authorization=f"Bearer {made['infer mine']}").status == 200
    assert server.get(path, Authorization=f"bearer {made['infer mine']}").status == 200
    same = {"Authorization": f"Bearer {made['admin']}", "X_API_Key": made["admin"]}
    assert server.get(path, **same).status == 200
    assert server.get(path, **(same | {"X_API_Key": made["infer mine"]})).status == 401
    assert server.get(path, Authorization=f"Basic {made['admin']}").status == 401


def test_a6_a_model_of_another_service_is_403_whether_it_exists_or_not(secured):
    server, made = secured
    for name in ("other", "nope"):
        assert server.get(f"/v2/models/{name}", X_API_Key=made["infer mine"]).status == 403
    assert server.get("/v2/models/nope", X_API_Key=made["infer all"]).status == 404


def test_lists_show_a_key_its_own_services(secured):
    server, made = secured
    rows = server.post("/v2/repository/index", X_API_Key=made["infer mine"]).json
    assert {row["name"] for row in rows} == {"mine"}
    stats = server.get("/v2/models/stats", X_API_Key=made["infer other"]).json["model_stats"]
    assert {row["name"] for row in stats} == {"other"}


def test_h3_no_key_is_in_the_log(secured):
    server, made = secured
    text = server.log.read_text()
    assert not any(key in text for key in made.values())
