from __future__ import annotations

import httpx

BODY = {"name": "digits", "model": {"path": "repo/digits/1/model.pt"}}


def test_a_service_becomes_ready_and_is_called_where_its_caller_is(platform):
    client = platform.client()
    answer = client.post("/api/v1/services", json=BODY)
    assert answer.status_code == 201, answer.text
    created = answer.json()
    assert created["status"]["state"] in ("Pending", "Starting")
    assert created["key"]["name"] == "digits-default"
    assert created["key"]["key"].startswith("nk_")

    ready = platform.wait("digits", "Ready")
    port = platform.server_url.rpartition(":")[2]
    assert ready["status"]["access"]["infer"] == f"http://127.0.0.1:{port}/v2/models/digits/infer"
    assert ready["observed_generation"] == ready["generation"] == 1
    assert "key" not in ready
    assert [step["step"] for step in ready["status"]["timeline"]][-1] == "Ready"
    assert (platform.state.models / "digits.v1" / "1" / "model.pt").read_bytes() == b"weights"

    view = platform.server_view()
    assert view["loaded"] == ["digits.v1"]
    assert view["access"]["aliases"]["digits"] == [{"model": "digits.v1", "weight": 100}]
    assert [key["services"] for key in view["access"]["keys"] if key["services"] == ["digits"]]


def test_urls_carry_the_host_that_the_caller_used(platform):
    client = platform.client()
    client.post("/api/v1/services", json=BODY)
    port = platform.url.rpartition(":")[2]
    answer = client.get("/api/v1/services/digits", headers={"Host": f"localhost:{port}"}).json()
    assert answer["status"]["access"]["http"].startswith("http://localhost:")


def test_create_is_idempotent_by_name(platform):
    client = platform.client()
    first = client.post("/api/v1/services", json=BODY)
    again = client.post("/api/v1/services", json=BODY)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["generation"] == 1
    assert again.json()["key"] is None
    assert len(client.get("/api/v1/keys").json()["items"]) == 2  # the CLI's and the service's

    other = client.post("/api/v1/services", json=BODY | {"description": "another"})
    assert other.status_code == 409
    assert other.json()["code"] == "ALREADY_EXISTS"
    assert "description" in other.json()["detail"]


def test_a_deleted_service_leaves_nothing_behind(platform):
    client = platform.client()
    client.post("/api/v1/services", json=BODY)
    platform.wait("digits", "Ready")
    answer = client.delete("/api/v1/services/digits")
    assert answer.status_code == 202
    assert answer.json()["status"]["state"] == "Deleting"
    platform.wait_gone("digits")
    assert platform.server_view()["loaded"] == []
    assert platform.server_view()["access"]["aliases"] == {}
    assert list(platform.state.models.iterdir()) == []
    assert [key["name"] for key in client.get("/api/v1/keys").json()["items"]] == ["admin"]
    assert client.post("/api/v1/services", json=BODY).status_code == 201


def test_a_public_service_gets_no_key(platform):
    answer = platform.client().post("/api/v1/services", json=BODY | {"auth": {"mode": "public"}})
    assert answer.json()["key"] is None
    assert platform.server_view()["access"]["services"]["digits"]["mode"] == "public"


def test_a_service_can_be_added_to_an_existing_key(platform):
    client = platform.client()
    client.post("/api/v1/services", json=BODY)
    body = BODY | {"name": "digits-two", "auth": {"keys": ["digits-default"]}}
    answer = client.post("/api/v1/services", json=body)
    assert answer.status_code == 201
    assert answer.json()["key"] is None
    assert client.get("/api/v1/keys/digits-default").json()["services"] == ["digits", "digits-two"]


def test_a_model_that_the_server_refuses_fails_with_a_diagnosis(platform):
    (platform.models / "repo" / "digits" / "1" / "refuse.txt").write_text("the file holds a state_dict, weights only")
    platform.client().post("/api/v1/services", json=BODY)
    failed = platform.wait("digits", "Failed")
    diagnosis = failed["status"]["diagnosis"]
    assert diagnosis["code"] == "WEIGHTS_ONLY"
    assert diagnosis["stage"] == "model"
    assert "state_dict" in diagnosis["evidence"][0]
    assert diagnosis["fixes"][0]["text"]
    assert failed["observed_generation"] == 1


def test_declared_tensors_make_a_configuration(platform):
    client = platform.client()
    body = BODY | {
        "inputs": [
            {"name": "image", "dtype": "torch.float32", "dims": [-1, 1, 32, 32], "argument": "x"},
            {"name": 'odd"name', "dtype": "TYPE_STRING", "dims": [-1, 1]},
        ],
        "outputs": [{"name": "OUTPUT__0", "dtype": "FP32", "dims": [-1, 10]}],
    }
    client.post("/api/v1/services", json=body)
    platform.wait("digits", "Ready")
    text = client.get("/api/v1/services/digits/config.pbtxt").text
    assert text == (platform.state.models / "digits.v1" / "config.pbtxt").read_text()
    assert 'name: "digits.v1"' in text
    assert "max_batch_size: 32" in text
    assert 'name: "image" data_type: TYPE_FP32 dims: [ 1, 32, 32 ]' in text
    assert r'name: "odd\"name" data_type: TYPE_STRING dims: [ 1 ]' in text
    assert 'key: "naiad.argument.image" value { string_value: "x" }' in text


def test_an_upload_becomes_a_service_and_is_then_removed(platform):
    client = platform.client()
    upload = client.post("/api/v1/uploads").json()["id"]
    put = client.put(f"/api/v1/uploads/{upload}/files/net.pt", content=b"x" * 3_000_000)
    assert put.status_code == 201, put.text
    assert put.json() == {"path": "net.pt", "size": 3_000_000}
    body = {"name": "sent", "model": {"upload": upload, "path": "net.pt"}}
    assert client.post("/api/v1/services", json=body).status_code == 201
    platform.wait("sent", "Ready")
    assert (platform.state.models / "sent.v1" / "1" / "model.pt").stat().st_size == 3_000_000
    assert list(platform.state.uploads.iterdir()) == []


def test_an_upload_that_breaks_off_leaves_nothing(platform):
    client = platform.client()
    upload = client.post("/api/v1/uploads").json()["id"]

    def half():
        yield b"x" * 1000
        raise RuntimeError("the client gives up")

    try:
        client.put(f"/api/v1/uploads/{upload}/files/net.pt", content=half(), headers={"Content-Length": "5000"})
    except (RuntimeError, httpx.HTTPError):
        pass
    body = {"name": "sent", "model": {"upload": upload, "path": "net.pt"}}
    answer = platform.client().post("/api/v1/services", json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == "PATH_NOT_FOUND"


def test_logs_are_the_newest_lines(platform):
    client = platform.client()
    client.post("/api/v1/services", json=BODY)
    assert client.get("/api/v1/services/digits/logs").text == ""
    (platform.state.logs / "digits.jsonl").write_text("".join(f'{{"n":{n}}}\n' for n in range(5000)) + '{"half')
    assert client.get("/api/v1/services/digits/logs?tail=2").text == '{"n":4998}\n{"n":4999}\n'
    assert client.get("/api/v1/services/nobody/logs").status_code == 404
