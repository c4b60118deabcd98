from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from naiad.server.options import (
    ALIASES,
    LATER,
    NO_EFFECT,
    TABLE,
    ServeOptions,
    UsageError,
    cache_byte_size,
    parse,
    usage,
)

REPOSITORY = "--model-repository=/m"


def refusal(*arguments: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(arguments)
    message, _, rest = str(caught.value).partition("\n")
    assert rest == "'naiad serve --help' lists the options"
    return message


def test_each_row_of_the_table_is_a_field_and_the_other_way_round():
    fields = {field.name for field in dataclasses.fields(ServeOptions)} - {"ignored"}
    assert [option.field for option in TABLE] == list(dict.fromkeys(option.field for option in TABLE))
    assert {option.field for option in TABLE} == fields


def test_a_name_is_in_one_place():
    names = {option.name for option in TABLE}
    assert not names & LATER
    assert not names & NO_EFFECT
    assert not LATER & NO_EFFECT
    assert set(ALIASES.values()) <= names


def test_the_help_names_each_option():
    text = usage()
    for option in TABLE:
        assert f"--{option.name} " in text
        assert option.help in text


def test_the_defaults_are_those_of_the_table():
    options = parse([REPOSITORY])
    for option in TABLE:
        if option.field != "model_repository":
            assert getattr(options, option.field) == option.default, option.name
    assert options.http_address == "127.0.0.1"  # F: loopback unless asked


@pytest.mark.parametrize("words", [["--http-port=1234"], ["--http-port", "1234"]])
def test_a_value_follows_an_equals_sign_or_a_space(words):
    assert parse([REPOSITORY, *words]).http_port == 1234


def test_repeatable_options_keep_their_order():
    words = ["--model-repository", "/a", "--model-store=/b", "--model-control-mode=explicit"]
    options = parse([*words, "--load-model=y", "--load-model", "x"])
    assert options.model_repository == (Path("/a"), Path("/b"))
    assert options.load_model == ("y", "x")


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "on", "On", "yes"])
def test_true_in_any_case(text):
    assert parse([REPOSITORY, f"--exit-on-error={text}"]).exit_on_error is True
    assert parse([REPOSITORY, "--exit-on-error", text]).exit_on_error is True


@pytest.mark.parametrize("text", ["false", "False", "0", "OFF", "no"])
def test_false_in_any_case(text):
    assert parse([REPOSITORY, f"--strict-readiness={text}"]).strict_readiness is False


def test_a_bare_boolean_is_true_and_eats_nothing():
    options = parse(["--exit-on-error", "--require-key", REPOSITORY])
    assert (options.exit_on_error, options.require_key) == (True, True)


@pytest.mark.parametrize("name", sorted(NO_EFFECT))
def test_options_without_effect_are_taken_and_remembered(name):
    assert parse([REPOSITORY, f"--{name}=1"]).ignored == (name,)
    assert parse([REPOSITORY, f"--{name}", "1"]).ignored == (name,)


@pytest.mark.parametrize("name", sorted(LATER))
def test_an_option_of_a_later_feature_says_so(name):
    assert refusal(REPOSITORY, f"--{name}=x") == f"option --{name}: this feature comes with a later version of Naiad"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--http-prot=1"], "unknown option --http-prot; did you mean --http-port?"),
        (["--zzzzzz"], "unknown option --zzzzzz"),
        (["serve"], "unexpected argument 'serve'"),
        (["--http-port"], "option --http-port: expected a value"),
        (["--http-port", "--exit-on-error"], "option --http-port: expected a value"),
        (["--http-port=x"], "option --http-port: expected a number, got 'x'"),
        (["--http-port=65536"], "option --http-port: expected 0 to 65535, got 65536"),
        (["--exit-on-error=maybe"], "option --exit-on-error: expected true or false, got 'maybe'"),
        (["--model-control-mode=x"], "option --model-control-mode: expected none, poll, explicit, got 'x'"),
        (["--load-model=m"], "option --load-model: works with --model-control-mode=explicit only"),
        (["--log-format=xml"], "option --log-format: expected default, ISO8601 or json, got 'xml'"),
        (
            ["--metrics-config=counter_latencies=maybe"],
            "option --metrics-config: expected one of counter_latencies, histogram_latencies with =BOOL, "
            "got 'counter_latencies=maybe'",
        ),
        (["--metrics-port=65536"], "option --metrics-port: expected 0 to 65535, got 65536"),
        (["--io-threads=0"], f"option --io-threads: expected at least 1 and at most {2**63 - 1}, got 0"),
        (["--byte-budget=-1"], f"option --byte-budget: expected at least 0 and at most {2**63 - 1}, got -1"),
        (
            ["--repository-poll-secs=0"],
            "option --repository-poll-secs: expected more than 0 and at most 100000000, got 0.0",
        ),
        (["--drain-delay=nan"], "option --drain-delay: expected at least 0 and at most 100000000, got nan"),
        (["--exit-timeout-secs=inf"], "option --exit-timeout-secs: expected at least 0 and at most 100000000, got inf"),
    ],
)
def test_what_is_refused(words, expected):
    assert refusal(REPOSITORY, *words) == expected


def test_a_repository_is_needed():
    assert refusal() == "option --model-repository: expected at least one folder"


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ((), 0),
        (("--cache-config=local,size=1048576",), 1 << 20),
        (("--response-cache-byte-size", "4096"), 4096),
        (("--response-cache-byte-size=4096", "--cache-config", "local,size=4096"), 4096),
    ],
)
def test_the_cache_has_the_size_that_is_asked_for(arguments, size):
    assert cache_byte_size(parse([REPOSITORY, *arguments])) == size


@pytest.mark.parametrize(
    "text", ["redis,host=x", "local", "local,size=", "local,size=-1", "local,size=x", "local,host=1"]
)
def test_another_cache_is_refused(text):
    expected = f"option --cache-config: expected local,size=BYTES, got '{text}'"
    assert refusal(REPOSITORY, f"--cache-config={text}") == expected


def test_two_cache_sizes_are_refused():
    arguments = ("--response-cache-byte-size=1", "--cache-config=local,size=2")
    assert refusal(REPOSITORY, *arguments) == "option --cache-config: the size is given twice, as 1 and as 2"
