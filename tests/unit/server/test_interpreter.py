"""Which Python a model's workers get, asked without a server."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import pytest

from naiad.backends import identity
from naiad.config.message import ModelConfigMessage
from naiad.environments.errors import BadArchive, Unfit
from naiad.errors import ConfigError, LoadError
from naiad.server.allowed import worker_environment
from naiad.server.interpreter import Interpreter, InterpreterOptions, Interpreters, explained, variables_of


def message(**parameters: str) -> object:
    made = ModelConfigMessage()
    for name, value in parameters.items():
        made.parameters[name].string_value = value
    return made


def packed(*, python: str = f'exec {sys.executable} "$@"', **files: str) -> bytes:
    """An archive whose Python is the one that runs this; it must hold numpy, as that one does."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in {"bin/python": f"#!/bin/sh\n{python}\n", **files}.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size, info.mode = len(text), 0o755
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def choose(tmp_path: Path, model: Path):
    def ask(text: str, source: str = "config.pbtxt", directory: Path = model) -> Interpreter:
        options = InterpreterOptions(
            own="/own/python",
            environments=tmp_path / "environments",
            repositories=(tmp_path / "models",),
            allow_paths=True,
            environ={"PATH": "/usr/bin:/bin", "VIRTUAL_ENV": "/own", "NAIAD_KEY": "secret"},
        )
        parameters = {"EXECUTION_ENV_PATH": text} if text else {}
        return Interpreters(options).choose(message(**parameters), source, directory, identity.BACKEND)

    return ask


def test_nothing_asked_is_the_servers_own(choose):
    assert choose("") == Interpreter(python="/own/python")


def test_conda_unpack_runs_once_at_the_final_place(choose, model, tmp_path):
    script = "import sys\nopen('ran', 'a').write(sys.argv[0] + '\\n')\n"
    (model / "env.tar.gz").write_bytes(packed(**{"bin/conda-unpack": script}))
    for _ in range(2):
        chosen = choose("$$TRITON_MODEL_DIRECTORY/env.tar.gz")
    prefix = Path(chosen.python).parents[1]
    assert prefix.parent == tmp_path / "environments" / "archives"
    assert (prefix / "ran").read_text() == f"{prefix}/bin/conda-unpack\n"


def test_a_conda_unpack_that_fails_is_no_failure(choose, model):
    (model / "env.tar.gz").write_bytes(packed(**{"bin/conda-unpack": "raise SystemExit(1)\n"}))
    assert choose("$$TRITON_MODEL_DIRECTORY/env.tar.gz").python.endswith("/bin/python")


def test_what_is_held_is_looked_at_once_and_a_folder_each_time(tmp_path, model):
    asked = tmp_path / "asked"
    options = InterpreterOptions(
        own="/own/python",
        environments=tmp_path / "environments",
        repositories=(tmp_path / "models",),
        allow_paths=True,
        environ={"PATH": "/usr/bin:/bin"},
    )
    python = f'echo x >> {asked}; exec {sys.executable} "$@"'
    (model / "env.tar.gz").write_bytes(packed(python=python))
    place = model / "env" / "bin" / "python"
    place.parent.mkdir(parents=True)
    place.write_text(f"#!/bin/sh\n{python}\n")
    place.chmod(0o755)
    interpreters = Interpreters(options)
    for name, times in (("env.tar.gz", 1), ("env", 4)):
        for _ in range(3):
            path = {"EXECUTION_ENV_PATH": f"$$TRITON_MODEL_DIRECTORY/{name}"}
            interpreters.choose(message(**path), "config.pbtxt", model, identity.BACKEND)
        assert len(asked.read_text().split()) == times


def test_an_archive_may_hold_one_folder(choose, model):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("env/bin/python")
        text = f'#!/bin/sh\nexec {sys.executable} "$@"\n'.encode()
        info.size, info.mode = len(text), 0o755
        archive.addfile(info, io.BytesIO(text))
    (model / "env.tar").write_bytes(buffer.getvalue())
    assert choose("$$TRITON_MODEL_DIRECTORY/env.tar").python.endswith("/env/bin/python")


def test_c4_a_hostile_archive_leaves_nothing(choose, model, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../canary"))
    (model / "env.tar").write_bytes(buffer.getvalue())
    with pytest.raises(BadArchive, match="EXECUTION_ENV_PATH") as caught:
        choose("$$TRITON_MODEL_DIRECTORY/env.tar")
    assert str(tmp_path) not in str(caught.value)
    assert not list((tmp_path / "environments" / "archives").glob("*/"))


def test_a_changed_archive_is_another_one(choose, model):
    (model / "env.tar.gz").write_bytes(packed())
    first = choose("$$TRITON_MODEL_DIRECTORY/env.tar.gz").python
    (model / "env.tar.gz").write_bytes(packed(note="2"))
    assert choose("$$TRITON_MODEL_DIRECTORY/env.tar.gz").python != first


def test_w69_what_a_broken_python_says_holds_no_place(choose, model, tmp_path):
    (model / "env.tar.gz").write_bytes(packed(python='echo "$0: libfoo.so is not there" >&2; exit 1'))
    with pytest.raises(Unfit, match=r"libfoo\.so is not there") as caught:
        choose("$$TRITON_MODEL_DIRECTORY/env.tar.gz")
    assert str(tmp_path) not in str(caught.value)


def test_c2_only_the_repositorys_own_configuration_names_a_place(choose, tmp_path):
    place = tmp_path / "env"
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (place / "bin" / "python").chmod(0o755)
    assert choose(str(place)).python == f"{place}/bin/python"
    for source, directory in (("load parameter 'config'", tmp_path / "models" / "m"), ("config.pbtxt", tmp_path / "x")):
        with pytest.raises(ConfigError, match="a load call names no path"):
            choose(str(place), source, directory)


def test_a_folder_inside_a_model_is_not_written_to(choose, model, tmp_path):
    for place in (model / "env", tmp_path / "env"):
        (place / "bin").mkdir(parents=True)
        (place / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (place / "bin" / "python").chmod(0o755)
    inside = choose("$$TRITON_MODEL_DIRECTORY/env").environment
    assert inside["PYTHONDONTWRITEBYTECODE"] == "1"
    assert "PYTHONDONTWRITEBYTECODE" not in choose(str(tmp_path / "env")).environment


def test_variables_of_an_environment(tmp_path):
    base = {"PATH": "/bin", "LD_LIBRARY_PATH": "/cuda", "VIRTUAL_ENV": "/own", "NAIAD_KEY": "x", "AWS_KEY": "y"}
    conda = worker_environment(base, variables_of(tmp_path, base))
    assert conda["PATH"] == f"{tmp_path}/bin:/bin"
    assert conda["LD_LIBRARY_PATH"] == f"{tmp_path}/lib:/cuda"
    assert conda["CONDA_PREFIX"] == str(tmp_path)
    assert "VIRTUAL_ENV" not in conda
    (tmp_path / "pyvenv.cfg").touch()
    venv = worker_environment(base, variables_of(tmp_path, base))
    assert (venv["VIRTUAL_ENV"], venv["LD_LIBRARY_PATH"]) == (str(tmp_path), "/cuda")
    for variables in (conda, venv):  # E6
        assert variables["PYTHONNOUSERSITE"] == "1"
        assert not {"NAIAD_KEY", "AWS_KEY"} & variables.keys()


def test_a_missing_module_gets_the_line_to_add():
    error = LoadError(model="m", version=1, stage="load", cause="No module named 'sklearn.svm'", fix="pip install it")
    assert explained(error, message()).fix == "pip install it"
    named = explained(error, message(**{"naiad.environment": "small"}))
    assert named.fix == "add the line 'scikit-learn' to its requirements and build it again"
    assert named.code == "MISSING_MODULE"
