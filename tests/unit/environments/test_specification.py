from __future__ import annotations

import pytest

from naiad.environments import conda_file
from naiad.environments.errors import WrongSpecification
from naiad.environments.names import is_name
from naiad.environments.specification import Specification, check, name_of, requirement_lines


def said(**fields: object) -> str:
    with pytest.raises(WrongSpecification) as caught:
        check(Specification(**{"text": "six\n", **fields}))  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "six",
        "# nothing\n",
        "six>=1.16 ; python_version > '3.8'",
        "torch[opt]==2.1 # why",
        "a==1 \\\n  --hash=sha256:" + "0" * 64,
    ],
)
def test_requirements_are_taken(text):
    check(Specification(text=text))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--index-url https://x.test", "give it to the command as --index-url, to the API as the field 'index_url'"),
        ("-i https://x.test", "give it to the command as --index-url, to the API as the field 'index_url'"),
        ("--find-links=/x", "give it to the command as --find-links, to the API as the field 'find_links'"),
        ("-r other.txt", "option '-r' is not taken"),
        ("-e .", "option '-e' is not taken"),
        ("--config-settings x=y", "is not taken"),
        ("./local.whl", "names a file or URL"),
        ("/etc/passwd", "names a file or URL"),
        ("six @ file:///etc/passwd", "names a file or URL"),
        ("six @ git+https://x.test/six", "names a file or URL"),
        ("https://x.test/six.whl", "names a file or URL"),
        ("six --no-binary :all:", "expected a requirement"),
        ("$(id)", "expected a requirement"),
        (";id", "expected a requirement"),
    ],
)
def test_d7_a_line_that_could_do_more_is_refused(line, says):
    text = said(text=f"numpy\n{line}\n")
    assert text.startswith("spec: line 2: ")
    assert says in text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"manager": "POETRY"}, "manager: expected PIP or CONDA, got 'POETRY'"),
        ({"python": "3.8"}, "python: expected 3.9 or newer, got 3.8"),
        ({"python": "2.7"}, "python: expected a version such as 3.12"),
        ({"python": "3.12; id"}, "python: expected a version such as 3.12"),
        ({"index_url": "ftp://x"}, "index_url: expected https://HOST/PATH"),
        ({"index_url": "https://me:secret@x.test/simple"}, "a password goes into ~/.netrc"),
        ({"extra_index_urls": ("file:///etc",)}, "extra_index_urls: expected https://HOST/PATH"),
        ({"find_links": ("wheels",)}, "find_links: expected a URL or an absolute path, got 'wheels'"),
        ({"channels": ("defaults",)}, "channels: 'defaults' may need a licence"),
        ({"channels": ("https://repo.anaconda.com/pkgs/main",)}, "may need a licence"),
        ({"channels": ("a b",)}, "expected a channel's name, https://HOST/PATH or file:///FOLDER"),
        ({"channels": ("pkgs/main",)}, "may need a licence"),
        ({"channels": ("https://conda.anaconda.org/main",)}, "may need a licence"),
        ({"channels": ("file:///srv/x#/../../etc",)}, "expected a channel's name"),
        ({"channels": ("file:///srv/%2e%2e/etc",)}, "expected a channel's name"),
        ({"channels": ("file:///srv/../etc",)}, "expected a channel's name"),
        ({"channels": ("file://host/srv",)}, "expected a channel's name"),
        ({"index_url": "https://good.test\\.evil.test/"}, "expected https://HOST/PATH"),
        ({"index_url": "https://[::zz]/"}, "expected https://HOST/PATH"),
        ({"index_url": "https://x.test:99999/"}, "expected https://HOST/PATH"),
        ({"text": "six\x00\n"}, "line 1: expected text, got a control character"),
        ({"manager": "CONDA", "text": "dependencies: [ {pip: [ 'six @ https://x.test' ]} ]"}, "names a file or URL"),
        ({"text": "x" * 300_000}, "spec: expected at most"),
    ],
)
def test_a_wrong_field_is_named(fields, says):
    assert says in said(**fields)


def test_a_secret_in_a_url_is_not_repeated():
    assert "secret" not in said(index_url="https://me:secret@x.test/simple").replace("a password", "")


def test_lines_are_joined_and_counted():
    text = "# head\nsix==1 \\\n    --hash=sha256:00\n\nnumpy # tail\n"
    assert list(requirement_lines(text)) == [(2, "six==1      --hash=sha256:00"), (5, "numpy")]
    assert name_of("Ruamel_Yaml>=1") == "ruamel-yaml"


def test_a_document_comes_back():
    wish = Specification(text="six", find_links=("/w",), python="3.12")
    assert Specification.of_document(wish.document()) == wish


@pytest.mark.parametrize("name", ["a", "", "A-b", "../x", "a/b", "a.b", "-a", "a-", "a" * 64, "ä-b", "a\n"])
def test_c1_names(name):
    assert not is_name(name)
    assert is_name("torch-cpu")


FILE = """
name: thing   # of no interest
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=3.10
  - numpy >=1.26,<2
  - 'scipy'
  - pip
  - pip:
      - six>=1.16
      - "tiny==1.0"
  - zlib
prefix: /home/me/thing
"""


def test_an_environment_file():
    file = conda_file.read(FILE)
    assert file.channels == ("conda-forge",)
    assert file.dependencies == ("numpy >=1.26,<2", "scipy", "pip", "zlib")
    assert file.pip == ("six>=1.16", "tiny==1.0")


def test_lists_may_stand_in_brackets_and_unindented():
    file = conda_file.read("channels: [a, b]\ndependencies:\n- zlib\n- pip:\n  - six\n")
    assert (file.channels, file.dependencies, file.pip) == (("a", "b"), ("zlib",), ("six",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dependencies: [!!python/object/apply:os.system ['id']]", r"dependencies\[0\]: expected a text"),
        ("dependencies:\n- {a: b}", r"dependencies\[0\]: expected a text, got"),
        ("dependencies:\n- x\n- [a]", r"dependencies\[1\]: expected a text, got"),
        ("dependencies:\n- &a b\n- *a", "expected plain lists, got an alias"),
        ("variables: {A: b}", "unknown key 'variables'; known: name, channels, dependencies"),
        ("dependencies: text", "dependencies: expected a list, got 'text'"),
        ("dependencies:\n\t- x", "line 2: "),
        ("- x", "expected channels and dependencies, got no mapping"),
        ("dependencies: " + "[" * 100_000, "more than 1000 brackets"),
        ("dependencies: " + "[" * 900 + "]" * 900, "nested too deeply"),
        ("dependencies:\n- {pip: six}", "pip: expected a list, got 'six'"),
    ],
)
def test_d6_anything_else_is_refused_with_its_place(text, says):
    with pytest.raises(WrongSpecification, match=f"spec: ({says})"):
        conda_file.read(text)


@pytest.mark.parametrize(
    "entry",
    [
        "https://x.test/noarch/evil-1.0-0.conda",
        "file:///etc/evil-1.0-0.conda",
        "/etc/evil-1.0-0.conda",
        "evil[url=https://x.test/noarch/evil-1.0-0.conda]",
        "https://x.test/channel::evil",
        "evil[channel=https://x.test]",
        "evil-1.0-0.conda",
        "C:\\evil",
        "evil 1 ../x",
    ],
)
def test_a_conda_package_that_lies_elsewhere_is_refused(entry):
    with pytest.raises(WrongSpecification, match="expected a package such as 'numpy>=2'"):
        conda_file.read(f"dependencies:\n- '{entry}'\n")


def test_conda_packages_are_names_with_versions_and_pythons_is_overridden():
    names = ("numpy>=2,<3", "pytorch=2.*=*cuda*", "conda-forge::zlib", "_x_mutex 4.5 2_gnu", "a (>=1)", "python-x")
    lines = [*names, "python", "python=3.9", "python >=3.10", "conda-forge::python"]
    assert conda_file.read("dependencies:\n" + "".join(f"- {line}\n" for line in lines)).dependencies == names


def test_versions_stay_texts():
    assert conda_file.read("dependencies:\n- 1.10\n- no\n").dependencies == ("1.10", "no")
