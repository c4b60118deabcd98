"""How services and keys look as text; shared by the commands that show them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from naiad.control.keys.schema import Key
    from naiad.control.services.schema import Access, Service

SERVICE_HEADS = ("NAME", "STATE", "VERSION", "ACCESS", "URL")
KEY_HEADS = ("NAME", "PREFIX", "STATUS", "SCOPES", "SERVICES", "EXPIRES")


def service_row(service: Service) -> list[str]:
    """One line of `naiad ls`."""
    status = service.status
    state = f"{status.state} ({status.diagnosis.code})" if status.diagnosis else status.state
    url = status.access.http if status.access else "-"
    return [service.name, state, status.version, service.auth.mode, url]


def service_lines(service: Service) -> list[str]:
    """All that is known of a service."""
    status = service.status
    lines = [
        f"name      {service.name}",
        f"state     {status.state}",
        f"version   {status.version}",
        f"model     {service.model.path}" + (f" (upload {service.model.upload})" if service.model.upload else ""),
        *([f"runs in   {service.environment}"] if service.environment else []),
        f"access    {service.auth.mode}",
        *_access(status.access),
    ]
    for kind, tensors in (("input", service.inputs), ("output", service.outputs)):
        lines += [f"{kind:<9} {tensor.name} {tensor.dtype} {tensor.dims}" for tensor in tensors]
    if status.diagnosis:
        lines += diagnosis_lines(service)
    lines += ["timeline", *_timeline(service)]
    return lines


def _access(access: Access | None) -> list[str]:
    if access is None:
        return ["url       -"]
    lines = [f"url       {access.http}"]
    lines += [f"gRPC      {access.grpc}"] if access.grpc else []
    return lines + ([f"metrics   {access.metrics}"] if access.metrics else [])


def diagnosis_lines(service: Service) -> list[str]:
    """Why a service does not serve, and what to do."""
    diagnosis = service.status.diagnosis
    if diagnosis is None:
        return []
    lines = [f"why       {diagnosis.code}: {diagnosis.title}", *(f"          {line}" for line in diagnosis.evidence)]
    for fix in diagnosis.fixes:
        more = f": {fix.command}" if fix.command and fix.command not in fix.text else ""
        lines.append(f"fix       {fix.text}{more}")
    return lines


def _timeline(service: Service) -> Iterable[str]:
    for step in service.status.timeline:
        took = "" if step.took is None else f"   {step.took:.0f} s"
        yield f"  {step.started:%Y-%m-%d %H:%M:%S}  {step.step}{took}"


def key_row(key: Key) -> list[str]:
    """One line of `naiad key ls`."""
    expires = f"{key.expires:%Y-%m-%d %H:%M}" if key.expires else "never"
    return [key.name, f"{key.prefix}…", key.status, ",".join(key.scopes), ",".join(key.services) or "-", expires]
