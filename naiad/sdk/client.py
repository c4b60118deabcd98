"""The platform's client: typed, synchronous, over HTTP only; it knows of the platform nothing but its documents."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from naiad.control.environments.schema import Environment, EnvironmentFields, EnvironmentList
from naiad.control.keys.schema import CreatedKey, Key, KeyFields, KeyList
from naiad.control.schema import Problem
from naiad.control.services.schema import CreatedService, Service, ServiceFields, ServiceList
from naiad.sdk.errors import ApiError, Missing, NotAllowed, NotReady, Unreachable

_PREFIX = "/api/v1"
_BLOCK = 1 << 20
_LOOK_SECONDS = 0.1

Model = TypeVar("Model", bound=BaseModel)


class Client:
    """One platform, spoken to with one key."""

    def __init__(self, url: str, key: str | None = None, *, timeout_seconds: float = 60.0) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._key_headers = headers
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_seconds, trust_env=False)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def health(self) -> bool:
        """Whether the platform answers."""
        try:
            return self._http.get(f"{_PREFIX}/health").status_code == 200
        except httpx.HTTPError:
            return False

    def services(self) -> list[Service]:
        """All services, by name."""
        return self._read(ServiceList, self._call("GET", "/services")).items

    def service(self, name: str) -> Service:
        """One service with its status."""
        return self._read(Service, self._call("GET", f"/services/{name}"))

    def create_service(self, fields: ServiceFields) -> CreatedService:
        """Wants a service; the same fields again answer what exists, then without a key."""
        return self._read(CreatedService, self._call("POST", "/services", json=fields.model_dump(mode="json")))

    def delete_service(self, name: str) -> Service:
        """Wants a service gone."""
        return self._read(Service, self._call("DELETE", f"/services/{name}"))

    def wait(self, name: str, *, timeout_seconds: float, seen: Callable[[Service], None] | None = None) -> Service:
        """Waits until a service is ready; raises `NotReady` with the diagnosis if it fails, or if time is over."""
        end = time.monotonic() + timeout_seconds
        while True:
            service = self.service(name)
            if seen is not None:
                seen(service)
            if service.status.state == "Ready":
                return service
            diagnosis = service.status.diagnosis
            waits_in_vain = service.status.state == "Preparing" and diagnosis is not None
            if service.status.state == "Failed" or waits_in_vain:
                raise NotReady(f"service '{name}' failed: {diagnosis.title if diagnosis else 'no reason'}", diagnosis)
            if time.monotonic() >= end:
                state = service.status.state
                raise NotReady(f"service '{name}' is {state} after {timeout_seconds:g} s", diagnosis)
            time.sleep(_LOOK_SECONDS)

    def wait_gone(self, name: str, *, timeout_seconds: float) -> None:
        """Waits until a deleted service is gone."""
        end = time.monotonic() + timeout_seconds
        while True:
            try:
                self.service(name)
            except Missing:
                return
            if time.monotonic() >= end:
                raise NotReady(f"service '{name}' is not gone after {timeout_seconds:g} s")
            time.sleep(_LOOK_SECONDS)

    def logs(self, name: str, *, tail: int = 200, follow: bool = False) -> Iterator[str]:
        """A service's log lines, each a JSON object."""
        return self._lines(f"/services/{name}/logs", tail=tail, follow=follow)

    def _lines(self, path: str, *, tail: int, follow: bool) -> Iterator[str]:
        parameters = {"tail": str(tail), "follow": str(follow).lower()}
        timeout = httpx.Timeout(60.0, read=None) if follow else httpx.Timeout(60.0)
        try:
            with self._http.stream("GET", f"{_PREFIX}{path}", params=parameters, timeout=timeout) as answer:
                if answer.is_error:
                    answer.read()
                    _raise(answer)
                yield from answer.iter_lines()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def configuration(self, name: str) -> str:
        """The `config.pbtxt` that was generated for a service."""
        return self._call("GET", f"/services/{name}/config.pbtxt").text

    def environments(self) -> list[Environment]:
        """All environments, by name."""
        return self._read(EnvironmentList, self._call("GET", "/environments")).items

    def environment(self, name: str) -> Environment:
        """One environment with its status."""
        return self._read(Environment, self._call("GET", f"/environments/{name}"))

    def create_environment(self, fields: EnvironmentFields) -> Environment:
        """Wants an environment; the same fields again answer what exists."""
        return self._read(Environment, self._call("POST", "/environments", json=fields.model_dump(mode="json")))

    def apply_environment(self, fields: EnvironmentFields) -> Environment:
        """Creates or changes an environment; until the new build is good the one before stays in use."""
        path = f"/environments/{fields.name}"
        return self._read(Environment, self._call("PUT", path, json=fields.model_dump(mode="json")))

    def rebuild_environment(self, name: str) -> Environment:
        """Builds an environment anew from what its index holds now."""
        return self._read(Environment, self._call("POST", f"/environments/{name}/rebuild"))

    def delete_environment(self, name: str) -> Environment:
        """Wants an environment gone; refused while a service names it."""
        return self._read(Environment, self._call("DELETE", f"/environments/{name}"))

    def environment_lock(self, name: str) -> str:
        """The lock file of the build in use."""
        return self._call("GET", f"/environments/{name}/lock").text

    def environment_logs(self, name: str, *, tail: int = 200, follow: bool = False) -> Iterator[str]:
        """Lines of the last build's log; with `follow` also those to come until the build ends."""
        return self._lines(f"/environments/{name}/logs", tail=tail, follow=follow)

    def keys(self) -> list[Key]:
        """All keys; never a secret."""
        return self._read(KeyList, self._call("GET", "/keys")).items

    def create_key(self, fields: KeyFields) -> CreatedKey:
        """Makes a key; the secret is in this answer only."""
        document = fields.model_dump(mode="json", exclude_none=True)
        return self._read(CreatedKey, self._call("POST", "/keys", json=document))

    def revoke_key(self, name: str) -> Key:
        """Makes a key worthless."""
        return self._read(Key, self._call("DELETE", f"/keys/{name}"))

    def upload(self, files: Sequence[tuple[Path, str]], *, sent: Callable[[int], None] | None = None) -> str:
        """Sends files under the given names; answers the id from which a service can be made."""
        identifier = str(self._call("POST", "/uploads").json()["id"])
        try:
            for path, name in files:
                headers = {"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"}
                self._call("PUT", f"/uploads/{identifier}/files/{name}", content=_blocks(path, sent), headers=headers)
        except BaseException:
            self._http.delete(f"{_PREFIX}/uploads/{identifier}")
            raise
        return identifier

    def metadata(self, url: str) -> dict[str, Any]:
        """A model's v2 metadata; `url` is a service's `access.http`."""
        document: dict[str, Any] = self._send("GET", url).json()
        return document

    def infer(self, url: str, body: bytes) -> dict[str, Any]:
        """One v2 inference with a JSON body; `url` is a service's `access.infer`."""
        answer = self._send("POST", url, content=body, headers={"Content-Type": "application/json"})
        document: dict[str, Any] = answer.json()
        return document

    def _call(self, verb: str, path: str, **arguments: Any) -> httpx.Response:
        return self._send(verb, f"{_PREFIX}{path}", **arguments)

    def _send(self, verb: str, url: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(verb, url, **arguments)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            _raise(answer)
        return answer

    def _unreachable(self, error: httpx.HTTPError) -> Unreachable:
        return Unreachable(f"no answer from {self.url}: {error}; start the platform with: naiad up --detach")

    @staticmethod
    def _read(model: type[Model], answer: httpx.Response) -> Model:
        try:
            return model.model_validate_json(answer.content)
        except ValidationError as error:
            raise ApiError(answer.status_code, f"unexpected answer from {answer.url}: {error}") from error


def _raise(answer: httpx.Response) -> None:
    kind = {401: NotAllowed, 403: NotAllowed, 404: Missing}.get(answer.status_code, ApiError)
    try:
        problem = Problem.model_validate_json(answer.content)
    except ValidationError:
        raise kind(answer.status_code, _v2_error(answer)) from None
    fixes = [f"{field.message}; {field.fix}" if field.fix else field.message for field in problem.fields]
    detail = "; ".join(fixes) if len(problem.fields) == 1 and problem.fields[0].fix else problem.detail
    raise kind(answer.status_code, detail, problem)


def _v2_error(answer: httpx.Response) -> str:
    try:
        document = answer.json()
    except ValueError:
        document = None
    message = document.get("error") if isinstance(document, dict) else None
    return str(message or f"{answer.url} answered {answer.status_code}")


def _blocks(path: Path, sent: Callable[[int], None] | None) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block
            if sent is not None:
                sent(len(block))
