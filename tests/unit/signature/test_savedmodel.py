"""SavedModels are read as TensorFlow reads them, without it; what is broken is one refusal."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from naiad.errors import UnservableFile
from naiad.signature.model import Signature, TensorSignature
from naiad.signature.recognise import read
from tests.support import real_models
from tests.support.tensorflow_models import TYPES
from tests.support.wire_bytes import block, varint

NAMES = {"FP32": "float32", "BYTES": "string", **TYPES, "complex64": "complex64"}


# -- bytes by hand, from the specification ----------------------------------------------------------------------------


def number(at: int, value: int) -> bytes:
    return varint(at << 3) + varint(value)


def entry(at: int, key: str, value: bytes) -> bytes:
    return block(at, block(1, key) + block(2, value))


def shape(*dims: int) -> bytes:
    return b"".join(block(2, number(1, dim) if dim else b"") for dim in dims)


def info(dtype: int = 1, dims: bytes | None = None, *, encoding: bytes | None = None) -> bytes:
    tensor = block(1, "x:0") if encoding is None else encoding
    return tensor + number(2, dtype) + block(3, shape(-1, 2) if dims is None else dims)


def definition(inputs: dict[str, bytes], outputs: dict[str, bytes] | None = None) -> bytes:
    parts = [entry(1, name, value) for name, value in inputs.items()]
    parts += [entry(2, name, value) for name, value in (outputs or {"y": info()}).items()]
    return b"".join(parts) + block(3, "tensorflow/serving/predict")


def graph(signatures: dict[str, bytes], *tags: str, before: bytes = b"") -> bytes:
    meta = block(1, b"".join(block(4, tag) for tag in tags or ("serve",)))
    return block(2, meta + before + b"".join(entry(5, name, value) for name, value in signatures.items()))


def saved(folder: Path, *graphs: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(number(1, 1) + b"".join(graphs))
    return folder


def refusal(folder: Path, **parameters: str) -> UnservableFile:
    with pytest.raises(UnservableFile) as caught:
        read(folder, parameters)
    assert caught.value.fix
    return caught.value


# -- as TensorFlow reads them ------------------------------------------------------------------------------------------


def told(tensors: tuple[TensorSignature, ...]) -> dict[str, list[object]]:
    return {
        t.name: [NAMES[t.type], None if t.dims is None else [None if d == -1 else d for d in t.dims]] for t in tensors
    }


@pytest.mark.parametrize("name", ["add-sub", "texts", "types", "keeping", "exported"])
def test_a_signature_is_that_of_tensorflows_own_loader(tensorflow_models, name):
    signature = read(tensorflow_models.path(name))
    inputs, outputs = tensorflow_models.signatures[name]["serving_default"]
    assert (told(signature.inputs), told(signature.outputs)) == (inputs, outputs)
    assert [t.name for t in signature.inputs] == sorted(inputs)
    assert signature.backend == "tensorflow"
    assert signature.complete


def test_every_signature_can_be_chosen(tensorflow_models):
    for key in ("TF_SIGNATURE_DEF", "signature"):
        for name, (inputs, outputs) in tensorflow_models.signatures["several"].items():
            signature = read(tensorflow_models.path("several"), {key: name})
            assert (told(signature.inputs), told(signature.outputs)) == (inputs, outputs)
            assert signature.complete == (name == "twice")  # the other takes any rank


def test_outputs_that_no_client_can_get_stay_away(tensorflow_models):
    signature = read(tensorflow_models.path("shapes"))
    inputs, outputs = tensorflow_models.signatures["shapes"]["serving_default"]
    assert told(signature.inputs) == inputs == {"scale": ["float32", []], "x": ["float32", [None, None]]}
    assert outputs.pop("wave")[0] == "complex64"
    assert told(signature.outputs) == outputs
    assert signature.warnings == ("output 'wave' is not served: no client can get complex64",)


def test_a_file_of_tensorflow_1_needs_its_tags(tensorflow_models):
    error = refusal(tensorflow_models.path("old"))
    assert error.what == "'old' has no graph with the tags 'serve', but with: cpu,serve"
    signature = read(tensorflow_models.path("old"), {"TF_GRAPH_TAG": "serve,cpu"})
    assert signature.format == "TensorFlow SavedModel (signature 'only')"
    assert [t.name for t in signature.outputs] == ["same", "y"]


def test_a_real_one():
    signature = read(real_models.path("basic-pitch.savedmodel"))
    assert told(signature.inputs) == {"input_2": ["float32", [None, 43844, 1]]}
    assert told(signature.outputs) == {
        "contour": ["float32", [None, 172, 264]],
        "note": ["float32", [None, 172, 88]],
        "onset": ["float32", [None, 172, 88]],
    }


def test_the_graph_file_stands_for_its_folder(tensorflow_models):
    folder = tensorflow_models.path("add-sub")
    assert read(folder / "saved_model.pb") == read(folder)


# -- what the specification allows -------------------------------------------------------------------------------------


def test_open_ranks_scalars_and_references_are_told(tmp_path):
    inputs = {"any": info(dims=number(3, 1)), "one": info(3, b""), "zero": info(dims=shape(0)), "ref": info(101)}
    signature = read(saved(tmp_path / "m", graph({"serving_default": definition(inputs)})))
    assert {t.name: (t.datatype, t.dims) for t in signature.inputs} == {
        "any": ("FP32", None), "one": ("INT32", ()), "zero": ("FP32", (0,)), "ref": ("FP32", (-1, 2)),
    }  # fmt: skip


def test_the_only_signature_needs_no_name(tmp_path):
    only = {"mine": definition({"x": info()}), "__saved_model_init_op": definition({})}
    assert read(saved(tmp_path / "m", graph(only))).format.endswith("(signature 'mine')")


def test_others_than_the_default_are_mentioned(tmp_path):
    both = {"serving_default": definition({"x": info()}), "mine": definition({"z": info()})}
    signature = read(saved(tmp_path / "m", graph(both)))
    assert [t.name for t in signature.inputs] == ["x"]
    assert signature.warnings == ("signature 'serving_default' is served; the file has others: mine",)


GOOD = definition({"x": info()})
REFUSED = {
    "none": (graph({}), "'m' has no signature, so nothing says what it takes", "IO_MISMATCH"),
    "several": (
        graph({"a": GOOD, "b": GOOD}),
        "'m' has several signatures and no 'serving_default': a, b",
        "CONFIG_INVALID",
    ),
    "sparse": (
        graph({"serving_default": definition({"s": info(encoding=block(4, b""))})}),
        "'m' takes input 's' of sparse or composite, which no client can send",
        "IO_UNSUPPORTED",
    ),
    "complex input": (
        graph({"serving_default": definition({"c": info(8)})}),
        "'m' takes input 'c' of complex64, which no client can send",
        "IO_UNSUPPORTED",
    ),
    "no output": (
        graph({"serving_default": definition({"x": info()}, {"r": info(20)})}),
        "'m' gives no output that a client can get: 'r' of resource",
        "IO_UNSUPPORTED",
    ),
    "variables": (
        graph({"serving_default": GOOD}, before=block(3, b"")),
        "'m' lacks variables/variables.index and variables/variables.data (0 of at least 1 files), "
        "where its weights are",
        "TRUNCATED",
    ),
}


@pytest.mark.parametrize(("content", "what", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_served_is_refused_by_name(tmp_path, content, what, code):
    error = refusal(saved(tmp_path / "m", content))
    assert (error.what, error.code) == (what, code)


def test_a_signature_that_is_not_there_is_refused(tmp_path):
    folder = saved(tmp_path / "m", graph({"a": GOOD, "b": GOOD}))
    assert refusal(folder, TF_SIGNATURE_DEF="c").what == "'m' has no signature 'c', but a, b"


# -- files that are broken or meant to break ---------------------------------------------------------------------------


@pytest.fixture
def copied(tensorflow_models, tmp_path) -> Path:
    return Path(shutil.copytree(tensorflow_models.path("exported"), tmp_path / "m"))


def test_lost_files_are_named(copied):
    (copied / "variables/variables.data-00000-of-00001").rename(copied / "variables/variables.data-00000-of-00002")
    assert refusal(copied).what == ("'m' lacks variables/variables.data (1 of 00002 files), where its weights are")
    shutil.rmtree(copied / "variables")
    error = refusal(copied)
    assert (error.kind, error.fix) == ("truncated", "copy the whole folder, not only saved_model.pb")


@pytest.mark.parametrize("file", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_pointers_of_git_lfs_are_named(copied, file):
    (copied / file).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert refusal(copied).code == "LFS_POINTER"


def test_the_text_form_says_what_to_do(copied):
    (copied / "saved_model.pb").rename(copied / "saved_model.pbtxt")
    assert refusal(copied).what == "'m' holds its graph as text (saved_model.pbtxt)"


def test_an_empty_graph_file_is_refused(copied):
    (copied / "saved_model.pb").write_bytes(b"")
    assert refusal(copied).code == "EMPTY_FILE"


def test_a_file_that_breaks_off_anywhere_is_refused(copied):
    path = copied / "saved_model.pb"
    whole = path.read_bytes()
    for length in (2, 3, 10, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert refusal(copied).code == "TRUNCATED"


def test_changed_bytes_never_end_in_anything_but_an_answer_or_a_refusal(copied):
    path = copied / "saved_model.pb"
    whole = path.read_bytes()
    dice = random.Random(5)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data)
        try:
            assert isinstance(read(copied), Signature)
        except UnservableFile as error:
            assert error.code


HOSTILE = {
    "no protobuf": b"\xff" * 64,
    "a claim of 10 GB": varint(2 << 3 | 2) + varint(10 << 30) + b"x",
    "a number without end": b"\x08" + b"\xff" * 12,
    "a group": b"\x0b",
    "too many fields": number(1, 1) * 70_000,
    "too many inputs": graph({"serving_default": definition({f"x{i}": info() for i in range(2_100)})}),
    "too many dims": graph({"serving_default": definition({"x": info(dims=shape(*[1] * 40))})}),
    "a text that is none": graph({"serving_default": block(1, block(1, b"\xff\xfe") + block(2, info()))}),
    "a graph that is a number": number(2, 7),
    "a text as a message": block(2, block(5, number(2, 9))),
    "no graph": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_refused(tmp_path, content):
    error = refusal(saved(tmp_path / "m", content))
    assert (error.kind, error.code) == ("truncated", "TRUNCATED")


def test_a_graph_of_gigabytes_is_seeked_over(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    size = 10 << 30
    signature = entry(5, "serving_default", GOOD)
    tags = block(1, block(4, "serve"))
    graph_def = varint(2 << 3 | 2) + varint(size)
    with (folder / "saved_model.pb").open("wb") as file:
        file.write(varint(2 << 3 | 2) + varint(len(tags) + len(graph_def) + size + len(signature)) + tags + graph_def)
        file.seek(size, 1)  # a hole: reading it would take longer than the test may
        file.write(signature)
    assert read(folder).complete
