"""The data plane, written in Rust. Every argument and result that is `bytes` is a JSON document."""

from typing import Self, final

__all__ = ["Core", "CoreError", "version"]

class CoreError(Exception):
    """A refusal of the core: `args` is `(code, message)`, code one of Triton's eight in snake case."""

    code: str
    message: str

@final
class Core:
    """One inference server's data plane; its threads never take the GIL."""

    def __new__(cls, options: bytes) -> Self:
        """Takes `CoreOptions`, opens the log and starts the threads; binds nothing.

        Raises `CoreError("invalid_arg")` naming an unknown or wrong field or a log file that cannot be written.
        """

    def start(self) -> bytes:
        """Binds the listeners; every other method works before, too.

        Answers `{"http","grpc","metrics","boot_id"}`: `host:port` or null where off.
        Raises `CoreError("unavailable")` naming the occupied address.
        """

    def next_command(self, timeout_millis: int) -> bytes | None:
        """Waits (detached) for what a client asked Python to do; None when the time is over.

        `{"id","kind":"load","model","config","files"}` (`config`: str or null; `files`: path → base64),
        `{"id","kind":"unload","model","unload_dependents"}`, `{"id","kind":"inspect","parameters"}`,
        `{"id":0,"kind":"worker_lost","worker","model","version","started","reason"}` (needs no answer).
        Raises `CoreError("cancelled")` once the core is stopped.
        """

    def complete(self, command_id: int, result: bytes) -> None:
        """Answers a command: `{"ok":true,"body":…}` or `{"ok":false,"code","message"}`."""

    def open_worker(self, spec: bytes) -> tuple[int, int]:
        """Makes a data channel and an arena for `{"model","version","instance"}`.

        Answers the worker's id and the descriptor of its end of the channel, which the caller owns and closes.
        """

    def close_worker(self, worker: int) -> None:
        """Closes a worker's channel and frees its arena; what it had started fails, the rest is queued again."""

    def attach_worker(self, model: str, version: int, worker: int) -> None:
        """Adds a worker (a replacement, say) to a published model version."""

    def follow_worker(self, worker: int, control: int) -> None:
        """Takes over a descriptor of a serving worker's control channel: its metrics and readiness are read there.

        The caller may still write to the channel. A worker that has ended is fine.
        """

    def publish(self, spec: bytes) -> None:
        """Makes a `ModelSpec` with its workers the one that serves its name and version.

        A version that it replaces takes no new requests; call `retire_replaced` to wait for the old ones.
        """

    def reconfigure(self, model: str, version: int, config: str) -> bool:
        """Gives a published version another configuration (JSON text); its workers and its queue stay.

        For a change of the number of instances: `attach_worker` adds those, a worker that ends is gone.
        False if it is not published.
        """

    def withdraw(self, model: str, version: int) -> bool:
        """Takes a version out of service at once; call `retire_replaced` to wait for its requests.

        False if it is not published.
        """

    def retire_replaced(self, model: str, drain_millis: int) -> bool:
        """Waits (detached) for requests of what `publish` replaced and `withdraw` took out under this name.

        Then closes its workers. False if some requests had to be cut off at the deadline.
        """

    def set_index(self, rows: bytes) -> None:
        """Tells the core the repository index: a list of `{"name","version","state","reason"}`."""

    def set_access(self, snapshot: bytes) -> bytes:
        """Takes a full access snapshot (keys, aliases, limits, services); answers `{"boot_id","generation"}`."""

    def set_ready(self, ready: bool) -> None:
        """Says whether the server is ready, as the control mode and `--strict-readiness` see it."""

    def pump_output(self, descriptor: int, labels: bytes) -> None:
        """Takes over the read end of a worker's output pipe; each line becomes a log record.

        `labels` is `{"model","version","pid"}`.
        """

    def log(self, record: bytes) -> None:
        """Writes a log record `{"level","message",…}`; never blocks, never raises for a full log queue."""

    def drain(self, deadline_millis: int) -> bool:
        """Refuses new requests and waits (detached) for running ones; False if the deadline came first."""

    def stop(self) -> None:
        """Ends listeners and threads and flushes the log; `next_command` raises from now on."""

def version() -> str:
    """The version of the data plane."""
