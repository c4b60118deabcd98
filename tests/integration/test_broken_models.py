"""Broken models: the load's answer, the index, the log and `naiad inspect` give one code, the evidence and the fix."""

from __future__ import annotations

import importlib.util
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from naiad.backends.registry import BACKENDS
from naiad.cli import inspect as command
from naiad.control.diagnosis import Evidence, diagnose
from tests.support import server as support
from tests.support.broken import ALL, MNIST, ROOT, Broken
from tests.support.repository import Repository
from tests.support.server import Serve, serve


def missing(broken: Broken) -> str:
    """Why this row cannot be tried here, or ""."""
    if broken.backend not in BACKENDS:
        return f"the backend '{broken.backend}' is not served yet"
    absent = [module for module in broken.modules if importlib.util.find_spec(module) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def directory(name: str) -> str:
    return name.replace(" ", "-")


@pytest.fixture(scope="module")
def broken_repository(module_repository: Repository) -> Repository:
    for name, broken in ALL.items():
        if not missing(broken):
            broken.write(module_repository.root / directory(name))
    return module_repository


@pytest.fixture(scope="module")
def server(broken_repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """One server, which loads them all, one after the other, and lives on."""
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(broken_repository.root, log, "--model-control-mode=explicit") as running:
        yield running.wait_ready()


def test_there_are_twenty_of_them():
    assert len(ALL) >= 20
    assert {broken.code for broken in ALL.values()} >= {
        "WEIGHTS_ONLY", "UNSAFE_PICKLE", "IO_MISMATCH", "DTYPE_MISMATCH", "BATCH_FROZEN", "OPSET_TOO_NEW", "IR_TOO_NEW",
        "MISSING_OP", "FORMAT_NOT_SERVED", "VLLM_BACKEND_DEPRECATED",
    }  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_a_load_says_why_in_answer_index_and_log(server: Serve, name: str) -> None:
    broken, model = ALL[name], directory(name)
    if missing(broken):
        pytest.skip(missing(broken))
    answer = server.post(f"/v2/repository/models/{model}/load")
    assert answer.status == 400
    reason = server.index()[model]["reason"]
    (record,) = server.until(
        lambda: [r for r in server.records() if r["message"] == f"failed to load '{model}'"],
        20,
        "the log does not tell",
    )
    told: dict[str, Any] = {
        "answer": answer.error,
        "index": reason,
        "log": f"{record['cause']} {record.get('fix', '')}",
    }
    for where, text in told.items():
        assert broken.cause in text, where
        assert broken.fix in text, where
        assert str(server.log.parent) not in text, f"{where} names a path of this machine"
    assert record["code"] == broken.code
    assert reason in answer.error
    diagnosis = diagnose(Evidence(text=answer.error, service=model))
    assert (diagnosis.code, bool(diagnosis.fixes) or broken.fix in answer.error) == (broken.code, True)
    assert server.get("/v2/health/live").status == 200


@pytest.mark.parametrize("name", [name for name, broken in ALL.items() if broken.inspect])
def test_inspect_says_the_same(broken_repository: Repository, capsys: pytest.CaptureFixture[str], name: str) -> None:
    broken = ALL[name]
    if missing(broken):
        pytest.skip(missing(broken))
    assert command.inspect(broken_repository.root / directory(name), "json") != 0
    said = capsys.readouterr().err
    assert f"({broken.code})" in said
    assert broken.cause in said
    assert broken.fix in said


def without(module: str, folder: Path) -> Path:
    """An interpreter that has everything that this one has but `module`."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    hidden = f"import sys; sys.modules[{module!r}] = None"
    (site / "here.pth").write_text("\n".join([str(ROOT), sysconfig.get_path("purelib"), hidden]) + "\n")
    return folder / "bin" / "python"


def test_an_interpreter_without_the_framework_is_told_what_to_install(repository, start, tmp_path, monkeypatch):
    monkeypatch.setattr(support, "COMMAND", [str(without("torch", tmp_path / "env")), "-m", "naiad", "serve"])
    repository.file("m", MNIST.read_bytes())
    server = start("--model-control-mode=explicit").wait_ready()
    answer = server.post("/v2/repository/models/m/load")
    assert answer.status == 400
    assert "(ENV_MISSING_BACKEND) (fix: install it: pip install 'naiad[torch]')" in answer.error
    assert server.index()["m"]["reason"] in answer.error
    message = "failed to load 'm'"
    (record,) = server.until(lambda: [r for r in server.records() if r["message"] == message], 20, "no record")
    assert (record["code"], record["stage"]) == ("ENV_MISSING_BACKEND", "import")


def test_no_canary_has_run(server: Serve, broken_repository: Repository) -> None:
    places = (Path.cwd(), server.log.parent, *broken_repository.root.rglob("*"))
    assert not [place for place in places if (place / "canary").exists()]
