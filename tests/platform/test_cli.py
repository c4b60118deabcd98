"""The commands as a user runs them: results on stdout, progress on stderr, one exit code for each way to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from naiad import __version__, keys
from tests.platform.conftest import Ups, clean_environment

OK, ERROR, USAGE, NOT_READY, AUTH, NOT_FOUND = range(6)


class Cli:
    """Runs `naiad` against one platform."""

    def __init__(self, ups: Ups, environment: dict[str, str], models: Path) -> None:
        self.ups, self.environment, self.models = ups, environment, models

    def run(self, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "naiad", *map(str, words)],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self.models,
        )

    def json(self, *words: object) -> dict:
        ended = self.run(*words, "-o", "json")
        assert ended.returncode == OK, ended.stderr
        return json.loads(ended.stdout)

    def deploy(self, name: str, *words: object) -> dict:
        return self.json("deploy", self.models / "repo/digits/1/model.pt", "--name", name, *words)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    folder = tmp_path_factory.mktemp("cli")
    version = folder / "files/repo/digits/1"
    version.mkdir(parents=True)
    (version / "model.pt").write_bytes(b"weights")
    environment = clean_environment(folder)
    ups = Ups(folder / "state", folder / "files", environment)
    ups.start("--port", "0", "--http-port", "0")
    yield Cli(ups, environment, folder / "files")
    for process in ups.processes:
        process.terminate()
        process.communicate(timeout=30)


def test_deploy_waits_and_names_the_next_step(cli):
    ended = cli.run("deploy", "repo", "--name", "first")
    assert ended.returncode == OK, ended.stderr
    assert ended.stdout.startswith("ready     first v1\nurl       http://127.0.0.1:")
    assert "key       nk_" in ended.stdout
    assert "loading" in ended.stderr
    assert ended.stderr.endswith("next: naiad infer first --random\n")


def test_deploy_again_is_the_same_service(cli):
    created = cli.deploy("twice")
    again = cli.deploy("twice")
    assert created["key"].startswith("nk_")
    assert again["key"] is None
    assert again["generation"] == created["generation"]
    other = cli.run("deploy", "repo", "--name", "twice", "--public")
    assert other.returncode == ERROR
    assert "naiad rm twice" in other.stderr


def test_deploy_names_the_service_after_its_model(cli):
    assert cli.json("deploy", cli.models / "repo/digits/1/model.pt")["name"] == "digits"


def test_deploy_writes_the_key_for_curl(cli, tmp_path):
    path = tmp_path / "digits.header"
    service = cli.deploy("for-curl", "--key-file", path)
    assert service["key"] is None
    header = path.read_text()
    assert header.startswith("X-API-Key: nk_")
    assert path.stat().st_mode & 0o777 == 0o600
    cli.deploy("for-curl", "--key-file", path)
    assert path.read_text() == header
    path.unlink()
    cli.deploy("for-curl", "--key-file", path)  # the key is gone: another one is made
    assert path.read_text() != header


def test_a_file_from_elsewhere_is_uploaded(cli, tmp_path):
    (tmp_path / "net.pt").write_bytes(b"x" * 100_000)
    ended = cli.run("deploy", tmp_path / "net.pt")
    assert ended.returncode == OK, ended.stderr
    assert "uploading 1 file(s)" in ended.stderr
    assert (cli.ups.state / "models/net.v1/1/model.pt").stat().st_size == 100_000


@pytest.mark.parametrize("what", ["folder", "file"])
def test_c5_a_link_brings_nothing_from_elsewhere(cli, tmp_path, what):
    version = tmp_path / "hostile" / "digits" / "1"
    version.mkdir(parents=True)
    (version / "model.pt").write_bytes(b"weights")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    (version / "extra").symlink_to(tmp_path / "private" / ("key" if what == "file" else ""))
    ended = cli.run("deploy", tmp_path / "hostile", "--name", f"link-{what}")
    assert ended.returncode == USAGE
    says = {"file": "is a link that leaves", "folder": "is a link to a folder"}[what]
    assert ended.stderr.startswith(f"error: '{version / 'extra'}' {says}")


def test_a_folder_from_elsewhere_is_uploaded_with_its_layout(cli, tmp_path):
    version = tmp_path / "net-two/4"
    version.mkdir(parents=True)
    (version / "model.pt").write_bytes(b"x")
    (version.parent / "config.pbtxt").write_text('name: "net-two"\nbackend: "identity"\n')
    assert cli.run("deploy", tmp_path / "net-two").returncode == OK
    made = cli.ups.state / "models/net-two.v1"
    assert (made / "4/model.pt").is_file()
    assert (made / "config.pbtxt").read_text().startswith('name: "net-two.v1"\nbackend: "identity"')


@pytest.mark.parametrize("inside", ["", "saved_model.pb"])
def test_a_saved_model_from_elsewhere_is_uploaded_whole(cli, tmp_path, inside):
    folder = tmp_path / f"pitch{len(inside)}"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables/variables.index").write_bytes(b"index")
    ended = cli.run("deploy", folder / inside)
    assert ended.returncode == OK, ended.stderr
    made = cli.ups.state / f"models/{folder.name}.v1/1/model.savedmodel"
    assert (made / "saved_model.pb").read_bytes() == b"graph"
    assert (made / "variables/variables.index").read_bytes() == b"index"


def test_declared_tensors_reach_the_service(cli):
    words = ["--input", "image:FP32:-1,1,32,32", "--output", "y:FP32:-1,10", "--argument", "image=x"]
    service = cli.deploy("declared", *words)
    assert service["inputs"] == [{"name": "image", "dtype": "FP32", "dims": [-1, 1, 32, 32], "argument": "x"}]
    assert service["outputs"][0]["dims"] == [-1, 10]


def test_a_failed_deploy_says_why(cli, tmp_path):
    version = tmp_path / "bad/1"
    version.mkdir(parents=True)
    (version / "model.pt").write_bytes(b"x")
    (version / "refuse.txt").write_text("the file holds a state_dict")
    ended = cli.run("deploy", tmp_path / "bad", "--name", "bad")
    assert ended.returncode == NOT_READY
    assert "WEIGHTS_ONLY" in ended.stderr
    assert "fix:" in ended.stderr
    status = cli.run("status", "bad")
    assert status.returncode == NOT_READY
    assert "WEIGHTS_ONLY" in status.stdout


def test_d4_code_waits_for_trust(cli, tmp_path):
    (tmp_path / "net.py").write_text("class TritonPythonModel: ...\n")
    ended = cli.run("deploy", tmp_path / "net.py", "--name", "coded")
    assert ended.returncode == NOT_READY
    assert "'net.py' is Python code, which runs when the model is loaded" in ended.stderr
    assert "naiad deploy --trust" in ended.stderr
    assert not (cli.ups.state / "models/coded.v1").exists()
    trusted = cli.json("deploy", tmp_path / "net.py", "--name", "trusted", "--trust")
    assert trusted["model"]["trust"] is True
    assert (cli.ups.state / "models/trusted.v1/1/model.py").is_file()


def test_ls_and_status(cli):
    cli.deploy("shown")
    names = [item["name"] for item in cli.json("ls")["items"]]
    assert "shown" in names
    table = cli.run("ls").stdout.splitlines()
    assert table[0].split() == ["NAME", "STATE", "VERSION", "ACCESS", "URL"]
    status = cli.json("status", "shown")["status"]
    assert status["state"] == "Ready"
    access, shown = status["access"], cli.run("status", "shown").stdout.splitlines()
    assert "timeline" in shown
    assert access["grpc"].startswith("127.0.0.1:") and access["metrics"].endswith("/metrics")
    ports = {access[name].split(":")[-1].partition("/")[0] for name in ("http", "grpc", "metrics")}
    assert len(ports - {"0"}) == 3
    for line in (f"url       {access['http']}", f"gRPC      {access['grpc']}", f"metrics   {access['metrics']}"):
        assert line in shown


def test_logs(cli):
    cli.deploy("chatty")
    empty = cli.run("logs", "chatty")
    assert (empty.returncode, empty.stdout) == (OK, "")
    (cli.ups.state / "logs/chatty.jsonl").write_text('{"time":"t","level":"info","message":"hello","pid":7}\n')
    assert cli.run("logs", "chatty").stdout == "t INFO    hello  pid=7\n"
    assert json.loads(cli.run("logs", "chatty", "-o", "json").stdout)["pid"] == 7


def test_keys(cli):
    cli.deploy("locked")
    made = cli.json("key", "create", "--service", "locked", "--expires", "30d", "--name", "mine")
    assert keys.key_id(made["key"])
    listed = {item["name"]: item for item in cli.json("key", "ls")["items"]}
    assert listed["mine"]["status"] == "Active"
    assert listed["mine"]["expires"]
    assert made["key"] not in cli.run("key", "ls", "-o", "json").stdout
    assert cli.run("key", "revoke", "mine").returncode == OK
    assert cli.run("key", "revoke", "nobody").returncode == NOT_FOUND
    assert cli.run("key", "create", "--scope", "root").returncode == USAGE
    assert cli.run("key", "create", "--service", "nobody").returncode == USAGE


def test_a_keys_file_for_a_server_alone(cli, tmp_path):
    path = tmp_path / "keys.json"
    made = cli.json("key", "create", "--keys-file", path, "--service", "digits")
    row = json.loads(path.read_text())["keys"][0]
    assert row["digest"] == keys.digest(made["key"])
    assert row == {
        "id": made["name"],
        "digest": row["digest"],
        "scopes": ["infer"],
        "services": ["digits"],
        "expires": None,
    }
    assert path.stat().st_mode & 0o777 == 0o600
    cli.run("key", "create", "--keys-file", path, "--scope", "admin")
    assert len(cli.json("key", "ls", "--keys-file", path)["items"]) == 2
    assert cli.run("key", "revoke", f"nk_{made['name']}", "--keys-file", path).returncode == OK
    assert len(json.loads(path.read_text())["keys"]) == 1
    assert cli.run("key", "revoke", "nobody00", "--keys-file", path).returncode == NOT_FOUND


def test_rm(cli):
    cli.deploy("gone")
    assert cli.json("rm", "gone") == {"deleted": ["gone"]}
    assert cli.run("status", "gone").returncode == NOT_FOUND
    assert cli.run("rm", "gone").returncode == NOT_FOUND


def test_a_name_nearly_right_is_suggested(cli):
    cli.deploy("spelled-right")
    ended = cli.run("status", "spelled-rigth")
    assert ended.returncode == NOT_FOUND
    assert ended.stderr == "error: there is no service 'spelled-rigth'; did you mean 'spelled-right'?\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["deploy", "nothing.pt"], NOT_FOUND),
        (["deploy", "repo", "--name", "Bad_Name"], USAGE),
        (["deploy", "repo", "--input", "x"], USAGE),
        (["deploy", "repo", "--input", "x:FP33:1"], USAGE),
        (["deploy", "repo", "--argument", "x=y"], USAGE),
        (["infer", "x"], USAGE),
        (["infer", "nobody", "--random"], NOT_FOUND),
        (["frobnicate"], USAGE),
        (["ls", "--frob"], USAGE),
        (["logs", "nobody"], NOT_FOUND),
    ],
)
def test_exit_codes(cli, words, code):
    ended = cli.run(*words)
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


def test_a_wrong_key(cli):
    ended = cli.run("ls", NAIAD_KEY="nk_" + "0" * 40)
    assert ended.returncode == AUTH
    assert "API key" in ended.stderr


def test_no_platform(cli, tmp_path):
    ended = cli.run("ls", "--state", tmp_path / "none")
    assert ended.returncode == ERROR
    assert "naiad up" in ended.stderr


def test_a_platform_elsewhere_by_its_url(cli):
    key = (cli.ups.state / "keys/admin").read_text().strip()
    assert cli.run("ls", NAIAD_URL=cli.ups.address, NAIAD_KEY=key).returncode == OK
    assert cli.run("ls", NAIAD_URL="http://127.0.0.1:9", NAIAD_KEY=key).returncode == ERROR


def test_version(cli):
    assert cli.run("--version").stdout == f"naiad {__version__}\n"
    assert cli.json("version")["naiad"] == __version__


def test_no_framework_is_imported_for_a_small_command(cli):
    code = "import sys; sys.argv=['naiad','--version']\ntry:\n from naiad.cli.main import main; main()\n"
    code += "except SystemExit: pass\n"
    code += "print([m for m in ('fastapi','sqlalchemy','numpy','httpx','torch') if m in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=cli.environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"


def test_the_environment_of_tests_holds_no_setting(cli):
    assert not [name for name in cli.environment if name.startswith("NAIAD_")]
    assert os.environ.get("NAIAD_STATE") is None
