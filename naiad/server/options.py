"""The options of `naiad serve`: one table, from which parsing, help and refusals derive. Triton's names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from naiad.errors import ConfigError, NaiadError
from naiad.server import restricted, threads, tracing

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+/?", re.ASCII)
TRUE, FALSE = {"true", "1", "on", "yes"}, {"false", "0", "off", "no"}


class UsageError(NaiadError):
    """A command line that cannot be understood; the message is what the user reads."""


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table."""

    name: str
    kind: str
    """`text`, `path`, `int`, `float`, `bool`, `list` (repeatable) or `paths` (repeatable)."""
    default: Any
    group: str
    help: str

    @property
    def field(self) -> str:
        """The name of the option as a field of `ServeOptions`."""
        return self.name.replace("-", "_")


def _option(group: str, name: str, kind: str, default: Any, text: str) -> Option:
    return Option(name, kind, default, group, text)


_ENVIRONMENT = "environments"
_REPOSITORY, _HTTP, _GRPC, _ACCESS, _LOG, _RUN = "model repository", "HTTP", "gRPC", "access", "logging", "running"
_METRICS, _TRACE = "metrics", "tracing"

TABLE: tuple[Option, ...] = (
    _option(_REPOSITORY, "model-repository", "paths", (), "folder of models; repeatable"),
    _option(_REPOSITORY, "model-control-mode", "text", "none", "none, poll or explicit"),
    _option(_REPOSITORY, "load-model", "list", (), "model to load at start in explicit mode; repeatable, '*' = all"),
    _option(_REPOSITORY, "repository-poll-secs", "float", 15.0, "seconds between two scans in poll mode"),
    _option(_REPOSITORY, "exit-on-error", "bool", False, "end if a model cannot be loaded at start"),
    _option(_REPOSITORY, "strict-readiness", "bool", True, "not ready while a model that was asked for is not"),
    _option(_REPOSITORY, "disable-auto-complete-config", "bool", False, "take config.pbtxt as it is"),
    _option(_REPOSITORY, "model-config-name", "text", "", "use configs/NAME.pbtxt of a model where it exists"),
    _option(_REPOSITORY, "model-load-thread-count", "int", 4, "models that load at the same time"),
    _option(_REPOSITORY, "model-load-retry-count", "int", 0, "further attempts where a load fails"),
    _option(_REPOSITORY, "model-load-timeout-secs", "float", 600.0, "seconds that one step of a load may take"),
    _option(_REPOSITORY, "model-threads", "text", "1", "threads of a model's operation; auto = a share of all"),
    _option(_REPOSITORY, "allow-file-override", "bool", False, "'file:' content in a load call without a key"),
    _option(
        _REPOSITORY, "backend-config", "list", (), "BACKEND,SETTING=VALUE, such as default-max-batch-size=N; repeatable"
    ),
    _option(_ENVIRONMENT, "environments", "path", None, "folder of named environments; made by 'naiad env'"),
    _option(_ENVIRONMENT, "allow-environment-path", "bool", True, "models may bring one by EXECUTION_ENV_PATH"),
    _option(_HTTP, "allow-http", "bool", True, "listen for HTTP"),
    _option(_HTTP, "http-port", "int", 8000, "0 picks a free one"),
    _option(_HTTP, "http-address", "text", "127.0.0.1", "another address than loopback needs a key"),
    _option(_HTTP, "reuse-http-port", "bool", False, "share the port with other processes"),
    _option(_HTTP, "http-max-input-size", "int", 64 << 20, "bytes of JSON, or of one tensor made from it"),
    _option(_HTTP, "http-max-binary-size", "int", 2 << 30, "bytes of a body with binary tensors"),
    _option(_HTTP, "http-restricted-api", "list", (), "CATEGORY[,…]:KEY=VALUE: ask for header KEY; repeatable"),
    _option(_HTTP, "http-header-forward-pattern", "text", "", "headers whose names fit become request parameters"),
    _option(_HTTP, "http-cors-allowed-origin", "list", (), "web page that may call, https://host; repeatable"),
    _option(_HTTP, "http-tls-cert", "path", None, "certificate in PEM, then those up to its authority: encrypt"),
    _option(_HTTP, "http-tls-key", "path", None, "private key of the certificate, in PEM"),
    _option(_HTTP, "allowed-host", "list", (), "further Host value to answer to; repeatable, '*' = any"),
    _option(_GRPC, "allow-grpc", "bool", True, "listen for gRPC"),
    _option(_GRPC, "grpc-port", "int", 8001, "0 picks a free one"),
    _option(_GRPC, "grpc-address", "text", "127.0.0.1", "another address than loopback needs a key"),
    _option(_GRPC, "reuse-grpc-port", "bool", False, "share the port with other processes"),
    _option(_GRPC, "grpc-restricted-protocol", "list", (), "CATEGORY[,…]:KEY=VALUE: ask for metadata; repeatable"),
    _option(_GRPC, "grpc-header-forward-pattern", "text", "", "metadata whose names fit become request parameters"),
    _option(_GRPC, "grpc-use-ssl", "bool", False, "encrypt; needs --grpc-server-cert and --grpc-server-key"),
    _option(_GRPC, "grpc-use-ssl-mutual", "bool", False, "the same, and ask clients for a certificate, too"),
    _option(_GRPC, "grpc-server-cert", "path", None, "certificate in PEM, then those up to its authority"),
    _option(_GRPC, "grpc-server-key", "path", None, "private key of the certificate, in PEM"),
    _option(_GRPC, "grpc-root-cert", "path", None, "authorities of the clients' certificates, in PEM"),
    _option(_GRPC, "grpc-infer-response-compression-level", "text", "none", "none, low, medium or high"),
    _option(_GRPC, "grpc-keepalive-time", "int", 7_200_000, "milliseconds of silence before the client is asked"),
    _option(_GRPC, "grpc-keepalive-timeout", "int", 20_000, "milliseconds that the client gets to answer"),
    _option(
        _GRPC, "grpc-max-connection-age", "int", 0, "milliseconds until a connection takes no more calls; 0 = never"
    ),
    _option(
        _GRPC, "grpc-max-connection-age-grace", "int", 0, "milliseconds that its calls get then; 0 = all they need"
    ),
    _option(_ACCESS, "keys-file", "path", None, "API keys made by 'naiad key create --keys-file'"),
    _option(_ACCESS, "require-key", "bool", False, "deny whatever comes without a key"),
    _option(_ACCESS, "bootstrap-key-fd", "int", None, "descriptor that holds an admin key"),
    _option(_ACCESS, "allow-client-shm", "bool", False, "clients on this machine may pass tensors in shared memory"),
    _option(_LOG, "log-verbose", "int", 0, "0 = off"),
    _option(_LOG, "log-info", "bool", True, "write information"),
    _option(_LOG, "log-warning", "bool", True, "write warnings"),
    _option(_LOG, "log-error", "bool", True, "write errors"),
    _option(_LOG, "log-format", "text", "", "default, ISO8601 or json; json where stderr is no terminal"),
    _option(_LOG, "log-file", "path", None, "file instead of stderr"),
    _option(_LOG, "access-log", "path", None, "file that gets a JSON line a request; - = standard output"),
    _option(_LOG, "access-log-rate", "int", 1, "write one of so many good requests, and every failure"),
    _option(_LOG, "log-dir", "path", None, "folder that gets one NAME.jsonl a model"),
    _option(_METRICS, "allow-metrics", "bool", True, "listen for scrapes of GET /metrics"),
    _option(_METRICS, "metrics-port", "int", 8002, "0 picks a free one"),
    _option(_METRICS, "metrics-address", "text", "", "as --http-address unless given; others than loopback need a key"),
    _option(_METRICS, "allow-cpu-metrics", "bool", True, "show the machine's processors and memory"),
    _option(_METRICS, "allow-gpu-metrics", "bool", True, "show NVIDIA GPUs, where there are any"),
    _option(_METRICS, "metrics-interval-ms", "int", 2000, "milliseconds that a reading of the machine is kept"),
    _option(_METRICS, "metrics-config", "list", (), "counter_latencies=, histogram_latencies=BOOL; repeatable"),
    _option(_TRACE, "trace-config", "list", (), "level=, rate=, count=, mode=, triton,file=F, …; repeatable"),
    _option(_TRACE, "trace-file", "path", None, "older spelling of --trace-config=triton,file=F"),
    _option(_TRACE, "trace-level", "list", (), "older spelling of --trace-config=level=LEVEL; repeatable"),
    _option(_TRACE, "trace-rate", "int", None, "older spelling of --trace-config=rate=N"),
    _option(_TRACE, "trace-count", "int", None, "older spelling of --trace-config=count=N"),
    _option(_TRACE, "trace-log-frequency", "int", None, "older spelling of --trace-config=triton,log-frequency=N"),
    _option(_RUN, "id", "text", "naiad", "name in the server metadata"),
    _option(_RUN, "exit-timeout-secs", "float", 30.0, "seconds that running requests get at the end"),
    _option(_RUN, "drain-delay", "float", 0.0, "seconds to serve on after not-ready"),
    _option(_RUN, "ready-fd", "int", None, "descriptor that gets one JSON line with the bound addresses"),
    _option(_RUN, "lifeline-fd", "int", None, "descriptor whose end-of-file ends the server"),
    _option(_RUN, "io-threads", "int", 2, "threads of the data plane"),
    _option(_RUN, "busy-poll-us", "int", 0, "microseconds to spin for a reply before sleeping"),
    _option(_RUN, "byte-budget", "int", 0, "bytes of all requests and arenas; 0 = a quarter of the memory"),
    _option(_RUN, "cache-config", "list", (), "local,size=BYTES: keep answers of models with response_cache"),
    _option(_RUN, "response-cache-byte-size", "int", 0, "older spelling of --cache-config=local,size=BYTES"),
    _option(_RUN, "worker-linger-secs", "float", 60.0, "seconds that an idle zygote stays"),
)

AT_LEAST_ONE = frozenset({
    "access-log-rate", "io-threads", "model-load-thread-count", "http-max-input-size", "http-max-binary-size",
    "grpc-keepalive-time", "grpc-keepalive-timeout",
})  # fmt: skip
ENDLESS = frozenset({"trace-count"})
"""-1 = no end."""
POSITIVE = frozenset({"repository-poll-secs", "model-load-timeout-secs"})
MOST = {"int": 2**63 - 1, "float": 100_000_000}
"""Seconds: three years, for a clock that counts in nanoseconds overflows."""

METRICS_SWITCHES = ("counter_latencies", "histogram_latencies")

ALIASES = {"model-store": "model-repository", "strict-model-config": "disable-auto-complete-config"}

LATER = frozenset({
    "allow-sagemaker", "allow-vertex-ai", "backend-directory",
    "model-namespacing",
    "rate-limit", "rate-limit-resource",
})  # fmt: skip

# Taken so that command lines made for Triton work; the log names them once.
NO_EFFECT = frozenset({
    "grpc-keepalive-permit-without-calls", "grpc-http2-max-pings-without-data",
    "grpc-http2-min-recv-ping-interval-without-data", "grpc-http2-max-ping-strikes",
    "http-thread-count", "grpc-infer-thread-count",
    "grpc-infer-allocation-pool-size", "grpc-max-response-pool-size", "buffer-manager-thread-count",
    "pinned-memory-pool-byte-size", "cuda-memory-pool-byte-size", "model-load-gpu-limit", "enable-peer-access",
    "min-supported-compute-capability", "host-policy", "cache-directory", "repoagent-directory",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The parsed options; one field a row of the table."""

    model_repository: tuple[Path, ...]
    model_control_mode: str
    load_model: tuple[str, ...]
    repository_poll_secs: float
    exit_on_error: bool
    strict_readiness: bool
    disable_auto_complete_config: bool
    model_config_name: str
    model_load_thread_count: int
    model_load_retry_count: int
    model_load_timeout_secs: float
    model_threads: str
    allow_file_override: bool
    backend_config: tuple[str, ...]
    environments: Path | None
    allow_environment_path: bool
    allow_http: bool
    http_port: int
    http_address: str
    reuse_http_port: bool
    http_max_input_size: int
    http_max_binary_size: int
    http_restricted_api: tuple[str, ...]
    http_header_forward_pattern: str
    http_cors_allowed_origin: tuple[str, ...]
    http_tls_cert: Path | None
    http_tls_key: Path | None
    allowed_host: tuple[str, ...]
    allow_grpc: bool
    grpc_port: int
    grpc_address: str
    reuse_grpc_port: bool
    grpc_restricted_protocol: tuple[str, ...]
    grpc_header_forward_pattern: str
    grpc_use_ssl: bool
    grpc_use_ssl_mutual: bool
    grpc_server_cert: Path | None
    grpc_server_key: Path | None
    grpc_root_cert: Path | None
    grpc_infer_response_compression_level: str
    grpc_keepalive_time: int
    grpc_keepalive_timeout: int
    grpc_max_connection_age: int
    grpc_max_connection_age_grace: int
    keys_file: Path | None
    require_key: bool
    bootstrap_key_fd: int | None
    allow_client_shm: bool
    log_verbose: int
    log_info: bool
    log_warning: bool
    log_error: bool
    log_format: str
    log_file: Path | None
    access_log: Path | None
    access_log_rate: int
    log_dir: Path | None
    allow_metrics: bool
    metrics_port: int
    metrics_address: str
    allow_cpu_metrics: bool
    allow_gpu_metrics: bool
    metrics_interval_ms: int
    metrics_config: tuple[str, ...]
    trace_config: tuple[str, ...]
    trace_file: Path | None
    trace_level: tuple[str, ...]
    trace_rate: int | None
    trace_count: int | None
    trace_log_frequency: int | None
    id: str
    exit_timeout_secs: float
    drain_delay: float
    ready_fd: int | None
    lifeline_fd: int | None
    io_threads: int
    busy_poll_us: int
    byte_budget: int
    cache_config: tuple[str, ...]
    response_cache_byte_size: int
    worker_linger_secs: float
    ignored: tuple[str, ...] = field(default=())
    """Options that were taken without effect."""


_BY_NAME = {option.name: option for option in TABLE}


def usage() -> str:
    """The help text, by groups."""
    lines = ["usage: naiad serve --model-repository DIR [options]", ""]
    group = ""
    for option in TABLE:
        if option.group != group:
            group = option.group
            lines.append(f"{group}:")
        shown = "" if option.default in (None, (), "") else f" [{str(option.default).lower()}]"
        lines.append(f"  --{option.name:<30} {option.help}{shown}")
    return "\n".join(lines)


def parse(arguments: Sequence[str]) -> ServeOptions:
    """`--x=y` or `--x y`; a bare boolean means true. Raises `UsageError`."""
    values: dict[str, Any] = {option.field: option.default for option in TABLE}
    ignored: list[str] = []
    at = 0
    while at < len(arguments):
        word = arguments[at]
        at += 1
        if not word.startswith("--"):
            _refuse(f"unexpected argument '{word}'")
        name, equals, text = word[2:].partition("=")
        name = ALIASES.get(name, name)
        option = _BY_NAME.get(name)
        if option is None and name not in NO_EFFECT:
            _refuse(_unknown(name))
        if not equals:
            follows = at < len(arguments) and not arguments[at].startswith("--")
            bare = option is not None and option.kind == "bool"
            if follows and not (bare and arguments[at].lower() not in TRUE | FALSE):
                text = arguments[at]
                at += 1
            elif bare:
                text = "true"
            elif option is not None:
                _refuse(f"option --{name}: expected a value")
        if option is None:
            ignored.append(name)
            continue
        value = _convert(option, text)
        repeatable = option.kind in ("list", "paths")
        values[option.field] = (*values[option.field], value) if repeatable else value
    return _checked(ServeOptions(**values, ignored=tuple(ignored)))


def _refuse(text: str) -> NoReturn:
    raise UsageError(f"{text}\n'naiad serve --help' lists the options")


def _unknown(name: str) -> str:
    if name in LATER:
        return f"option --{name}: this feature comes with a later version of Naiad"
    near = difflib.get_close_matches(name, [*_BY_NAME, *NO_EFFECT], n=1)
    return f"unknown option --{name}" + (f"; did you mean --{near[0]}?" if near else "")


def _convert(option: Option, text: str) -> Any:
    try:
        if option.kind == "int":
            return int(text)
        if option.kind == "float":
            return float(text)
    except ValueError:
        _refuse(f"option --{option.name}: expected a number, got '{text}'")
    if option.kind == "bool":
        if text.lower() not in TRUE | FALSE:
            _refuse(f"option --{option.name}: expected true or false, got '{text}'")
        return text.lower() in TRUE
    return Path(text) if option.kind in ("path", "paths") else text


def _check_number(option: Option, value: float | None) -> None:
    if value is None:
        return
    least = 1 if option.name in AT_LEAST_ONE else -1 if option.name in ENDLESS else 0
    positive = option.kind == "float" and option.name in POSITIVE
    if not least <= value <= MOST[option.kind] or (positive and value == 0):
        wanted = "more than 0" if positive else f"at least {least}"
        _refuse(f"option --{option.name}: expected {wanted} and at most {MOST[option.kind]}, got {value}")


def _check_metrics(setting: str) -> None:
    name, _, value = setting.partition("=")
    if name not in METRICS_SWITCHES or value.lower() not in TRUE | FALSE:
        _refuse(f"option --metrics-config: expected one of {', '.join(METRICS_SWITCHES)} with =BOOL, got '{setting}'")


def _check_rules(options: ServeOptions) -> None:
    """What listeners ask of requests, and how they answer."""
    levels = ("none", "low", "medium", "high")
    if options.grpc_infer_response_compression_level not in levels:
        chosen = options.grpc_infer_response_compression_level
        _refuse(f"option --grpc-infer-response-compression-level: expected {', '.join(levels)}, got '{chosen}'")
    for name in ("http-restricted-api", "grpc-restricted-protocol"):
        try:
            restricted.rows(getattr(options, name.replace("-", "_")))
        except ConfigError as error:
            _refuse(f"option --{name}: {error}")
    for name in ("http-port", "grpc-port", "metrics-port"):
        port = getattr(options, name.replace("-", "_"))
        if not 0 <= port <= 65535:
            _refuse(f"option --{name}: expected 0 to 65535, got {port}")
    for setting in options.metrics_config:
        _check_metrics(setting)


def _check_tls(options: ServeOptions) -> None:
    """A certificate comes with its key, and encryption with both."""
    if (options.http_tls_cert is None) != (options.http_tls_key is None):
        _refuse("options --http-tls-cert and --http-tls-key: expected both or none")
    files = (options.grpc_server_cert, options.grpc_server_key)
    if options.grpc_use_ssl or options.grpc_use_ssl_mutual:
        if None in files:
            _refuse("option --grpc-use-ssl: expected --grpc-server-cert and --grpc-server-key, too")
        if options.grpc_use_ssl_mutual and options.grpc_root_cert is None:
            _refuse("option --grpc-use-ssl-mutual: expected --grpc-root-cert, the authorities of the clients, too")
    elif files != (None, None) or options.grpc_root_cert is not None:
        _refuse("options --grpc-server-cert, --grpc-server-key and --grpc-root-cert: work with --grpc-use-ssl only")


def _checked(options: ServeOptions) -> ServeOptions:
    if not options.model_repository:
        _refuse("option --model-repository: expected at least one folder")
    modes = ("none", "poll", "explicit")
    if options.model_control_mode not in modes:
        _refuse(f"option --model-control-mode: expected {', '.join(modes)}, got '{options.model_control_mode}'")
    if options.load_model and options.model_control_mode != "explicit":
        _refuse("option --load-model: works with --model-control-mode=explicit only")
    if "*" in options.load_model and len(options.load_model) > 1:
        _refuse("option --load-model: '*' means all models, so it must be the only one")
    if options.log_format not in ("", "default", "ISO8601", "json"):
        _refuse(f"option --log-format: expected default, ISO8601 or json, got '{options.log_format}'")
    try:
        threads.parse(options.model_threads, "option --model-threads")
    except ConfigError as error:
        _refuse(str(error))
    _check_rules(options)
    _check_tls(options)
    for origin in options.http_cors_allowed_origin:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            _refuse(f"option --http-cors-allowed-origin: expected https://host[:port] or '*', got '{origin}'")
    try:
        cache_byte_size(options)
    except ConfigError as error:
        _refuse(f"option --cache-config: {error}")
    for option in TABLE:
        if option.kind in ("int", "float"):
            _check_number(option, getattr(options, option.field))
    try:
        trace_options(options)
    except ConfigError as error:
        _refuse(f"option --trace-config: {error}")
    return options


def trace_options(options: ServeOptions) -> dict[str, Any]:
    """The `trace` object of `CoreOptions`; raises `ConfigError`."""
    older = tracing.older(
        file=options.trace_file,
        level=options.trace_level,
        rate=options.trace_rate,
        count=options.trace_count,
        log_frequency=options.trace_log_frequency,
    )
    return tracing.core_options([*older, *options.trace_config], service=options.id)


def cache_byte_size(options: ServeOptions) -> int:
    """Bytes of the response cache, 0 where there is none; raises `ConfigError`."""
    size = options.response_cache_byte_size
    for text in options.cache_config:
        name, comma, setting = text.partition(",")
        if name != "local" or not comma:
            raise ConfigError(f"expected local,size=BYTES, got '{text}'")
        key, _, value = setting.partition("=")
        if key != "size" or not (value.isascii() and value.isdigit()) or int(value) > MOST["int"]:
            raise ConfigError(f"expected local,size=BYTES, got '{text}'")
        if size and size != int(value):
            raise ConfigError(f"the size is given twice, as {size} and as {value}")
        size = int(value)
    return size
