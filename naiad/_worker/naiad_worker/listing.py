"""Executes calls as lists of requests: the loop of a model that is handed each request apart and answers each apart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from naiad_worker import channel
from naiad_worker.arena import ALIGN, Arena, ArenaError, NoRoom
from naiad_worker.serving import CANCELLED, INTERNAL, OK, UNAVAILABLE, Serving, apart, error_text, prepare, room

MAX_PARAMETERS = 32_768
"""Bytes of one response's parameters: a record has to fit into a frame."""
_OFFSET_BITS = 40
_now = time.monotonic_ns


class Asked:
    """One request of a list: its inputs by index, views on the arena, and what the client said besides."""

    __slots__ = ("_arena", "_slot", "_tag", "inputs", "meta")

    def __init__(self, inputs: dict[int, Any], meta: bytes, request: Any, arena: Arena) -> None:
        self.inputs = inputs
        self.meta = meta
        """A JSON object, or b"" where there is nothing to say."""
        self._slot, self._tag = request[0], request[1]
        self._arena = arena

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the response any more."""
        return bool(self._arena.cancelled[self._slot] == self._tag)


class Answer(NamedTuple):
    """What one request gets: outputs by index and parameters as JSON, or a status and its text."""

    status: int
    outputs: list[tuple[int, Any]]
    text: bytes


class Listing(Serving):
    """One instance at work; its backend has `answer(asked)`, which gives one answer a request, in order."""

    def _handle(self, frame: Any, size: int, descriptors: list[int]) -> None:
        kind, count = channel.unpack_header(frame, size)
        if kind != channel.EXECUTE:
            super()._handle(frame, size, descriptors)
            return
        for call in channel.unpack_execute(frame, size, count):
            self._list(call)
        self._flush()

    def _list(self, call: channel.Call) -> None:
        """Runs the requests of a call as one list and queues a record for each."""
        start = _now()
        wanted: list[int] = []
        for index, request in enumerate(call.requests):
            if self._begin([request]):
                wanted.append(index)
            else:
                self._record((call.call, index, CANCELLED, channel.FINAL), [], b"cancelled", (start,) * 4)
        if not wanted:
            return
        inputs = list(self._inputs(call))
        asked = [Asked(inputs[at], self._meta(call.requests[at]), call.requests[at], self._arena) for at in wanted]
        ready = _now()
        answers = self._answers(asked)
        self._respond(call, list(zip(wanted, answers)), (start, ready, _now()))

    def _answers(self, asked: list[Asked]) -> list[Answer]:
        try:
            answers: list[Answer] = self._backend.answer(asked)
        except Exception as error:  # a model may raise anything
            self._tell(error)
            return [Answer(INTERNAL, [], error_text(error))] * len(asked)
        if len(answers) != len(asked):
            raise channel.FrameError(f"the backend gave {len(answers)} answers to {len(asked)} requests")
        return answers

    def _inputs(self, call: channel.Call) -> Iterator[dict[int, Any]]:
        """The inputs of each request; those of a gathered call are rows of the same arrays."""
        if call.mode == channel.LISTED:
            for _, entries in apart(call):
                yield {entry.tensor: self._arena.tensor(entry) for entry in entries}
            return
        whole = {entry.tensor: self._arena.tensor(entry) for entry in call.entries}
        if len(call.requests) == 1:
            yield whole
            return
        if any(array.ndim == 0 or array.shape[0] != call.rows for array in whole.values()):
            raise channel.FrameError(f"an input of a gathered call has not its {call.rows} rows")
        at = 0
        for request in call.requests:
            rows = request[2]
            yield {tensor: array[at : at + rows] for tensor, array in whole.items()}
            at += rows

    def _meta(self, request: Any) -> bytes:
        _slot, _tag, _rows, segment, packed = request
        length = packed >> _OFFSET_BITS
        if not length:
            return b""
        return bytes(self._arena.memory(segment, packed & ((1 << _OFFSET_BITS) - 1), length))

    def _respond(self, call: channel.Call, answers: list[tuple[int, Answer]], times: tuple[int, int, int]) -> None:
        """Lays the outputs of all answers one behind the other and queues the records."""
        ready = [(index, self._prepared(answer)) for index, answer in answers]
        place = _Place(call, [prepared for _, (_, prepared, _) in ready])
        for index, (status, prepared, text) in ready:
            try:
                entries = self._lay(place, prepared, index)
            except NoRoom as error:
                head = (call.call, index, UNAVAILABLE, channel.FINAL)
                self._record(head, [], error_text(error), (*times, _now()))
                continue
            self._record((call.call, index, status, channel.FINAL), entries, text, (*times, _now()))

    def _prepared(self, answer: Answer) -> tuple[int, list[Any], bytes]:
        if answer.status != OK:
            return answer.status, [], answer.text
        try:
            if len(answer.text) > MAX_PARAMETERS:
                raise ValueError(f"the response's parameters take {len(answer.text)} bytes, at most {MAX_PARAMETERS}")
            return OK, prepare(answer.outputs), answer.text
        except Exception as error:  # what a model gives may be anything
            self._tell(error)
            return INTERNAL, [], error_text(error)

    def _lay(self, place: _Place, prepared: list[Any], index: int) -> list[Any]:
        """The entries of one response; more room is asked for once for all that is left."""
        entries = []
        for tensor, code, content, size in prepared:
            at = (place.at + ALIGN - 1) & -ALIGN
            if at + size > place.end:
                place.move(self._need(place.call, place.left))
                at = (place.at + ALIGN - 1) & -ALIGN
                if at + size > place.end:
                    raise ArenaError(f"the granted range is too small for {size} bytes")
            dims = self._put(code, content, place.segment, at, size)
            entries.append((tensor, code, index, place.segment, at, size, dims))
            place.at = at + size
            place.left -= size + ALIGN
        return entries


class _Place:
    """Where the next output of a call goes."""

    def __init__(self, call: channel.Call, prepared: list[list[Any]]) -> None:
        self.call = call.call
        self.left = sum(room(tensors, 0) for tensors in prepared)
        self.move(call.area)

    def move(self, area: tuple[int, int, int]) -> None:
        """From now on into this range."""
        self.segment, self.at, length = area
        self.end = self.at + length
