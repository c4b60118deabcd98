"""Poll mode follows the repository: only what stands still is loaded, and nothing that it meets ends it."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.support.repository import Repository

ROW = [0.5] * 16
POLL = ("--model-control-mode=poll", "--repository-poll-secs=0.1")
LABELLED = 'output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] label_filename: "labels.txt" }'


def state(server, name: str) -> str:
    return server.index().get(name, {}).get("state", "")


def batch_size(server, name: str) -> int:
    return server.get(f"/v2/models/{name}/config").json.get("max_batch_size", -1)


def test_poll_follows_models_configurations_and_versions(repository, start):
    repository.identity("first")
    server = start(*POLL).wait_ready()
    repository.identity("second")
    server.until(lambda: server.infer("second", ROW).status == 200, 30, "the new model was not picked up")
    repository.identity("first", max_batch=2)
    server.until(lambda: batch_size(server, "first") == 2, 30, "the changed configuration was not picked up")
    (repository.root / "first" / "2").mkdir()
    path = "/v2/models/first"
    server.until(lambda: server.get(path).json["versions"] == ["2"], 30, "the new version was not picked up")
    (repository.root / "first" / "2").rmdir()
    server.until(lambda: server.get(path).json["versions"] == ["1"], 30, "the removed version still answers")
    shutil.rmtree(repository.root / "second")
    server.until(lambda: server.infer("second", ROW).status == 404, 30, "the removed model still answers")
    server.until(lambda: "second" not in server.index(), 30, "the removed model is in the index")
    assert server.get("/v2/health/ready").status == 200


def test_poll_follows_labels(repository, start):
    repository.identity("m")
    path = repository.root / "m" / "config.pbtxt"
    text = path.read_text()
    path.write_text(text[: text.index("output")] + LABELLED)
    (repository.root / "m" / "labels.txt").write_text("cat\ndog\n")
    server = start(*POLL).wait_ready()
    tensor = {"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": [0.5, 1.0] + [0.0] * 14}
    asked = [{"name": "OUTPUT0", "parameters": {"classification": 1}}]

    def best() -> str:
        answer = server.post("/v2/models/m/infer", {"inputs": [tensor], "outputs": asked})
        return answer.json["outputs"][0]["data"][0]

    assert best() == "1.000000:1:dog"
    (repository.root / "m" / "labels.txt").write_text("cat\nwolf\n")
    server.until(lambda: best() == "1.000000:1:wolf", 30, "the changed labels were not picked up")


def test_a_file_that_is_still_written_is_not_loaded(repository, start):
    """Each look sees another file: nothing is loaded until two looks see the same."""
    server = start("--model-control-mode=poll", "--repository-poll-secs=2").wait_ready()
    folder = repository.root / "m" / "1"
    folder.mkdir(parents=True)
    growing = folder / "weights"
    repository.identity("other")
    with growing.open("wb") as file:

        def other_is_there() -> bool:
            file.write(b"x")
            file.flush()
            return server.infer("other", ROW).status == 200

        server.until(other_is_there, 30, "the model that stands still was not picked up")
        assert state(server, "m") == ""
    repository.identity("m")
    server.until(lambda: state(server, "m") == "READY", 30, "the finished model was not picked up")
    loads = [r for r in server.records() if r["message"] == "failed to load 'm'"]
    assert loads == []


def test_w69_a_bad_file_keeps_the_old_version_and_a_good_one_is_picked_up(repository, start):
    repository.identity("m", max_batch=4)
    repository.identity("other")
    server = start(*POLL).wait_ready()
    good = (repository.root / "m" / "config.pbtxt").read_text()
    (repository.root / "m" / "config.pbtxt").write_text("max_batch_size: {")
    failed = server.until(lambda: server.index()["m"].get("reason"), 30, "the failure is not in the index")
    assert failed.startswith("reload failed: config.pbtxt:1:")
    assert server.infer("m", ROW).status == 200
    assert (state(server, "m"), batch_size(server, "m")) == ("READY", 4)
    assert server.get("/v2/health/ready").status == 200
    repository.identity("other", max_batch=2)
    server.until(lambda: batch_size(server, "other") == 2, 30, "polling ended with the bad file")
    (repository.root / "m" / "config.pbtxt").write_text(good.replace("4", "3"))
    server.until(lambda: batch_size(server, "m") == 3, 30, "the mended model was not picked up")
    assert "reason" not in server.index()["m"]
    tried = [r for r in server.records() if r["message"] == "failed to load 'm'"]
    assert len(tried) == 1, "it is tried again when its files change, not before"


def test_w9_a_model_that_never_worked_is_not_ready_until_it_is_mended_or_gone(repository, start):
    repository.identity("good")
    server = start(*POLL).wait_ready()
    repository.file("bad", b"no model")
    server.until(lambda: state(server, "bad") == "UNAVAILABLE", 30, "the bad model was not tried")
    assert server.get("/v2/health/ready").status == 400
    shutil.rmtree(repository.root / "bad")
    server.wait_ready(30)
    assert "bad" not in server.index()


def test_a_repository_that_cannot_be_read_unloads_nothing(repository, start, tmp_path):
    other = Repository(tmp_path / "other")
    repository.identity("m")
    other.identity("n")
    server = start(*POLL, f"--model-repository={other.root}").wait_ready()
    moved = tmp_path / "moved"
    repository.root.rename(moved)
    warned = "the model repository cannot be read: No such file or directory"
    server.until(lambda: any(r["message"] == warned for r in server.records()), 30, "nobody noticed")
    other.identity("n", max_batch=2)
    server.until(lambda: batch_size(server, "n") == 2, 30, "the other repository is not looked at any more")
    assert server.infer("m", ROW).status == 200
    assert sum(r["message"] == warned for r in server.records()) == 1
    moved.rename(repository.root)
    repository.identity("m", max_batch=2)
    server.until(lambda: batch_size(server, "m") == 2, 30, "polling ended")


def test_w66_a_model_that_comes_to_lie_in_two_repositories_serves_on_and_the_index_says_so(repository, start, tmp_path):
    other = Repository(tmp_path / "other")
    repository.identity("m")
    server = start(*POLL, f"--model-repository={other.root}").wait_ready()
    other.identity("m", max_batch=2)
    said = "reload failed: model appears in two or more repositories"
    server.until(lambda: server.index()["m"].get("reason") == said, 30, "the index does not tell")
    assert batch_size(server, "m") == 8
    shutil.rmtree(repository.root / "m")
    server.until(lambda: batch_size(server, "m") == 2, 30, "the one that is left was not loaded")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads what nobody may read")
def test_one_directory_without_rights_does_not_hide_the_others(repository, start):
    repository.identity("m")
    repository.identity("closed")
    (repository.root / "closed").chmod(0)
    try:
        server = start(*POLL)
        server.wait_settled("m", "closed")
        assert (state(server, "m"), state(server, "closed")) == ("READY", "UNAVAILABLE")
    finally:
        (repository.root / "closed").chmod(0o755)


def test_load_and_unload_are_refused(repository, start):
    server = start(*POLL).wait_ready()
    for verb in ("load", "unload"):
        answer = server.post(f"/v2/repository/models/m/{verb}")
        assert answer.status == 503
        assert answer.error == "explicit model load / unload is not allowed if polling is enabled"
