"""Starts workers, talks to them until they serve, notices when they die, and starts them again."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from naiad._worker.naiad_worker.control import Closed, ControlChannel
from naiad.errors import LoadError
from naiad.server.reaper import Reaper
from naiad.server.restart import RestartPolicy
from naiad.server.spawn import spawn
from naiad.server.worker import Worker, WorkerSpec
from naiad.server.zygote import Zygote, ZygoteError, ZygoteKey, ZygoteOptions

log = logging.getLogger("naiad.supervisor")


class CoreDoors(Protocol):
    """The doors of the core that supervision uses."""

    def open_worker(self, spec: bytes) -> tuple[int, int]:
        """See `naiad._core.Core`."""

    def close_worker(self, worker: int) -> None:
        """See `naiad._core.Core`."""

    def attach_worker(self, model: str, version: int, worker: int) -> None:
        """See `naiad._core.Core`."""

    def follow_worker(self, worker: int, control: int) -> None:
        """See `naiad._core.Core`."""

    def pump_output(self, descriptor: int, labels: bytes) -> None:
        """See `naiad._core.Core`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorOptions:
    """How workers and zygotes are run."""

    linger_secs: float = 60.0
    start_timeout_secs: float = 120.0
    base_environment: Mapping[str, str]
    descriptor_limit: tuple[int, int]


@dataclass(slots=True, kw_only=True)
class Replay:
    """What brings a replacement of a lost worker to the state of the first."""

    load: dict[str, Any]
    warm_up: Sequence[Mapping[str, Any]]
    table: dict[str, Any]
    policy: RestartPolicy
    on_state: Callable[[str | None], None]
    """Told why the version is impaired, or None when it is whole again."""


class Supervisor:
    """All zygotes and workers of this server."""

    def __init__(
        self,
        core: CoreDoors,
        *,
        options: SupervisorOptions,
        run_on_main: Callable[[Callable[[], subprocess.Popen[bytes]]], subprocess.Popen[bytes]],
    ) -> None:
        self._core = core
        self._options = options
        self._zygote_options = ZygoteOptions(
            import_timeout_secs=options.start_timeout_secs,
            base_environment=options.base_environment,
            descriptor_limit=options.descriptor_limit,
            spawn=lambda start: self._reaper.spawn(lambda: run_on_main(start)),
            adopt_output=self._adopt_output,
        )
        self._zygotes: dict[ZygoteKey, Zygote] = {}
        self._starting: dict[ZygoteKey, threading.Lock] = {}
        self._zygote_of: dict[int, Zygote] = {}
        self._replays: dict[int, Replay] = {}
        self._successors: dict[int, Worker] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._reaper = Reaper(tick=self._end_idle_zygotes)

    def _adopt_output(self, descriptor: int, labels: dict[str, Any]) -> None:
        self._core.pump_output(descriptor, json.dumps(labels).encode())

    # -- zygotes ----------------------------------------------------------------------------------------------------

    def _zygote(self, key: ZygoteKey, timeout_secs: float | None) -> Zygote:
        """The zygote of this key with a place taken in it, so that it does not end for idleness meanwhile."""
        # A lock for each key: one backend's import takes seconds and must not hold up another's workers.
        with self._lock:
            starting = self._starting.setdefault(key, threading.Lock())
        with starting:
            with self._lock:
                zygote = self._zygotes.get(key)
                if zygote is not None:
                    zygote.workers += 1
                    return zygote
            zygote = Zygote(key, self._zygote_options)
            try:
                zygote.await_ready(timeout_secs)
            except ZygoteError:
                self._reaper.disown(zygote.pid)
                raise
            with self._lock:
                zygote.workers += 1
                self._zygotes[key] = zygote
            return zygote

    def _leave(self, zygote: Zygote) -> None:
        with self._lock:
            zygote.workers -= 1
            zygote.idle_since = time.monotonic()

    def _forget(self, zygote: Zygote) -> None:
        with self._lock:
            if self._zygotes.get(zygote.key) is zygote:
                del self._zygotes[zygote.key]
        zygote.stop()
        self._reaper.disown(zygote.pid)

    def _end_idle_zygotes(self) -> None:
        now = time.monotonic()
        with self._lock:
            idle = [
                zygote
                for zygote in self._zygotes.values()
                if zygote.ended() or (zygote.workers == 0 and now - zygote.idle_since > self._options.linger_secs)
            ]
            for zygote in idle:
                del self._zygotes[zygote.key]
        for zygote in idle:
            self._forget(zygote)

    # -- workers ----------------------------------------------------------------------------------------------------

    def start(self, spec: WorkerSpec) -> Worker:
        """A worker that has said HELLO; raises `LoadError`."""
        try:
            worker = self._start(spec)
            if worker is None:  # its zygote was killed: one more try, with another zygote and fresh channels
                log.warning("the zygote ended; starting another", extra={"fields": {"backend": spec.backend}})
                worker = self._start(spec)
            if worker is None:
                raise ZygoteError(f"the zygote of backend '{spec.backend}' ends at once")
        except ZygoteError as error:
            failure = LoadError(
                model=spec.model, version=spec.version, stage=error.stage, cause=str(error), fix=error.fix
            )
            raise failure.coded(error.code) from error
        try:
            worker.hello()
        except LoadError:
            self.discard(worker)
            raise
        return worker

    def _start(self, spec: WorkerSpec) -> Worker | None:
        """Forks or spawns a worker; None if its zygote is gone. What is half made ends with its channels."""
        zygote = None
        with contextlib.ExitStack() as undo:
            if spec.forks:
                key = ZygoteKey(spec.python, spec.backend, tuple(sorted(spec.environment.items())))
                zygote = self._zygote(key, spec.start_timeout_secs)
                undo.callback(self._leave, zygote)
            place = {"model": spec.model, "version": spec.version, "instance": spec.instance}
            worker_id, data = self._core.open_worker(json.dumps(place).encode())
            undo.callback(self._core.close_worker, worker_id)
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, read_end)
            try:
                pid = self._born(spec, zygote, (theirs.fileno(), data, write_end))
            finally:
                theirs.close()
                os.close(data)
                os.close(write_end)
            if pid is None:
                return None
            undo.pop_all()
        worker = Worker(spec, worker_id=worker_id, pid=pid, control=ControlChannel(ours))
        if zygote is not None:
            with self._lock:
                self._zygote_of[worker_id] = zygote
        self._reaper.watch(pid, lambda status: self._ended(worker, status))
        self._adopt_output(read_end, {"model": spec.model, "version": spec.version, "pid": pid})
        return worker

    def _born(self, spec: WorkerSpec, zygote: Zygote | None, descriptors: tuple[int, int, int]) -> int | None:
        """The pid of a new worker that gets these descriptors; None if its zygote is gone."""
        if zygote is None:
            process = spawn(spec, descriptors, self._zygote_options)
            self._reaper.disown(process.pid)  # from here on it is watched as every worker is
            process.returncode = 0  # else Popen would wait for it, too
            return process.pid
        try:
            return zygote.fork(descriptors, spec.own_environment)
        except Closed:
            self._forget(zygote)
            return None
        except TimeoutError:
            self._forget(zygote)
            raise ZygoteError(f"the zygote of backend '{spec.backend}' does not answer; it was stopped") from None

    def keep(self, worker: Worker, replay: Replay) -> None:
        """From now on a death of this worker is answered by a replacement; one that is dead already, at once.

        It serves: from here on the core listens to its control channel.
        """
        with contextlib.suppress(OSError):
            self._core.follow_worker(worker.id, worker.control())
        with self._lock:
            if worker.exit is None:
                self._replays[worker.id] = replay
                return
        self._start_replacement(worker, replay)

    def current(self, workers: Sequence[Worker]) -> list[Worker]:
        """The workers, or whoever took over from them."""
        with self._lock:
            return [self._last(worker) for worker in workers]

    def _last(self, worker: Worker) -> Worker:
        while worker.id in self._successors:
            worker = self._successors[worker.id]
        return worker

    def release(self, workers: Sequence[Worker]) -> list[Worker]:
        """From now on deaths of these workers are no loss; whoever serves in their place by now, to be discarded."""
        with self._lock:
            last = self.current(workers)
            for worker in [*workers, *last]:
                self._replays.pop(worker.id, None)
                worker.stopping = True
            return last

    def hand_over(self, workers: Sequence[Worker], publish: Callable[[], None]) -> list[Worker]:
        """Publishes what replaces these workers and releases them, in one step.

        A replacement that comes up meanwhile joins either the old model or nothing, never the new one.
        """
        with self._lock:
            publish()
            return self.release(workers)

    def discard(self, worker: Worker) -> None:
        """Stops a worker and closes its channel."""
        self.release([worker])
        worker.stop()
        with self._lock:
            for lost in [lost for lost in self._successors if self._last(self._successors[lost]) is worker]:
                del self._successors[lost]
        self._core.close_worker(worker.id)

    def _ended(self, worker: Worker, status: int) -> None:
        with self._lock:
            worker.ended(status)
            zygote = self._zygote_of.pop(worker.id, None)
            if zygote is not None:
                self._leave(zygote)
            replay = self._replays.pop(worker.id, None)
        if replay is not None:
            self._start_replacement(worker, replay)

    def _start_replacement(self, lost: Worker, replay: Replay) -> None:
        if not (lost.stopping or self._stopping.is_set()):
            threading.Thread(target=self._replace, args=(lost, replay), name="restart", daemon=True).start()

    def _replace(self, lost: Worker, replay: Replay) -> None:
        spec = lost.spec
        fields = {"model": spec.model, "version": spec.version, "cause": lost.exit}
        lost.close()
        self._core.close_worker(lost.id)
        cause = f"the worker process ended: {lost.exit}"
        while not (self._stopping.is_set() or lost.stopping):
            delay = replay.policy.crashed()
            if delay is None:
                log.error("crash loop: the worker is not started again", extra={"fields": fields})
                replay.on_state(f"CRASH_LOOP: five crashes within ten minutes, last: {cause}")
                return
            log.warning("worker lost; it is started again", extra={"fields": {**fields, "delay_secs": delay}})
            replay.on_state(f"{cause}; it is being started again")
            if self._stopping.wait(delay) or lost.stopping:
                return
            try:
                worker = self._bring_up(spec, replay)
            except LoadError as error:
                cause = error.cause
                continue
            if self._take_over(lost, worker):
                self.keep(worker, replay)
                replay.on_state(None)
                log.info("worker restarted", extra={"fields": {**fields, "pid": worker.pid}})
            else:
                self.discard(worker)
            return

    def _take_over(self, lost: Worker, worker: Worker) -> bool:
        """Attaches a replacement, unless its model was unloaded or replaced while it came up."""
        spec = lost.spec
        with self._lock:  # with `release`: a replacement of the old model must not join the new one
            if lost.stopping:
                return False
            try:
                self._core.attach_worker(spec.model, spec.version, worker.id)
            except Exception as error:
                log.info("a replacement is not needed any more: %s", error)
                return False
            self._successors[lost.id] = worker
            return True

    def _bring_up(self, spec: WorkerSpec, replay: Replay) -> Worker:
        worker = self.start(spec)
        try:
            worker.load(replay.load)
            worker.warm_up(replay.warm_up)
            worker.serve(replay.table)
        except LoadError:
            self.discard(worker)
            raise
        return worker

    def stop_all(self, workers: Sequence[Worker]) -> None:
        """Ends all workers at the same time, then the zygotes and the reaper."""
        self._stopping.set()
        threads = [threading.Thread(target=self.discard, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with self._lock:
            zygotes = list(self._zygotes.values())
        for zygote in zygotes:
            self._forget(zygote)
        self._reaper.stop()
