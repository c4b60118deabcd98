"""The fence around a dry run, in processes of their own: it cannot be taken down again."""

from __future__ import annotations

import errno
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from naiad_worker import restrict

from naiad.server.allowed import worker_environment

HEAD = """
import ctypes, os, resource, socket, subprocess, sys, threading
from naiad_worker import restrict
libc = ctypes.CDLL(None, use_errno=True)
limits = restrict.Limits(memory=1 << 28, cpu_secs=77, file_bytes=1 << 16, tasks=64)
def refused(call, *arguments):
    try:
        return call(*arguments) and "done"
    except OSError as error:
        return error.errno
"""
FENCE = "restrict.restrict(limits)\n"


def run(code: str, *arguments: object, fence: bool = True) -> str:
    """What a process prints that runs `code` behind the fence."""
    line = [sys.executable, "-c", HEAD + (FENCE if fence else "") + code, *map(str, arguments)]
    environment = worker_environment({"PATH": "/usr/bin:/bin"}, {})
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK"])
def test_no_socket_of_another_family_than_unix(family):
    assert run(f"print(refused(socket.socket, socket.{family}, socket.SOCK_DGRAM))") == str(errno.EPERM)


def test_unix_sockets_work():
    code = "a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1), socket.socket(socket.AF_UNIX).family.name)"
    assert run(code) == "b'x' AF_UNIX"


CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5); print('there')"
CHILD = f"""
line = ["/bin/sh", "-c", '"$0" -c "$1" "$2"', sys.executable, {CONNECT!r}, sys.argv[1]]
ended = subprocess.run(line, capture_output=True, text=True)
print((ended.stdout + ended.stderr).splitlines()[-1])
"""


def test_what_it_starts_has_no_network_either(listener):
    port = listener.getsockname()[1]
    assert run(CHILD, port, fence=False) == "there"
    listener.accept()[0].close()
    assert run(CHILD, port) == "PermissionError: [Errno 1] Operation not permitted"
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_threads_that_run_already_are_fenced_in_too():
    code = """
go, got = threading.Event(), []
def wait():
    go.wait()
    got.append(refused(socket.socket, socket.AF_INET))
thread = threading.Thread(target=wait)
thread.start()
restrict.restrict(limits)
go.set()
thread.join()
print(got)
"""
    assert run(code, fence=False) == f"[{errno.EPERM}]"


def test_each_listed_call_is_refused():
    code = """
for name, number in restrict.MACHINES[os.uname().machine].denied.items():
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(number), -1, 0, 0, 0, 0, 0)
    if ctypes.get_errno() != 1:
        print(name, ctypes.get_errno())
"""
    assert run(code) == ""


def test_no_namespace_but_threads_and_processes():
    code = """
machine = restrict.MACHINES[os.uname().machine]
print(libc.syscall(ctypes.c_long(machine.clone), 0x10000000 | 17, 0, 0, 0, 0), ctypes.get_errno())
print(libc.syscall(ctypes.c_long(435), 0, 0), ctypes.get_errno())
thread = threading.Thread(target=print, args=("thread",))
thread.start()
thread.join()
print(subprocess.run(["/bin/echo", "process"], capture_output=True, text=True).stdout.strip())
"""
    assert run(code).splitlines() == [f"-1 {errno.EPERM}", f"-1 {errno.ENOSYS}", "thread", "process"]


def test_memory_files_and_time_are_bounded_for_good(tmp_path):
    code = """
block = bytearray(1 << 27)
try:
    bytearray(1 << 28)
except MemoryError:
    print("memory")
del block
with open(sys.argv[1], "wb", buffering=0) as file:
    file.write(bytes(1 << 16))
    print(refused(file.write, b"x"))
print(resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_CORE))
for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
    try:
        resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError) as error:
        print(type(error).__name__)
tasks, _ = resource.getrlimit(resource.RLIMIT_NPROC)
print(64 < tasks < 1 << 22)
status = open("/proc/self/status").read().split("\\n")
print([line for line in status if line.startswith(("NoNewPrivs", "Seccomp:"))])
"""
    lines = run(code, tmp_path / "file").splitlines()
    assert lines[:3] == ["memory", str(errno.EFBIG), "(77, 77) (0, 0)"]
    assert set(lines[3:5]) <= {"PermissionError", "ValueError"}
    assert lines[5:] == ["True", "['NoNewPrivs:\\t1', 'Seccomp:\\t2']"]


def test_a_kernel_that_takes_no_filter_is_an_error():
    code = """
machine = restrict.MACHINES[os.uname().machine]
restrict.filter_calls(restrict.program(machine._replace(denied={"seccomp": machine.seccomp}, prlimit64=9_999)))
try:
    restrict.restrict(limits)
except restrict.Unrestricted as error:
    print(error)
"""
    expected = "the kernel takes no filter of system calls (seccomp): Operation not permitted"
    assert run(code, fence=False) == expected


def test_a_machine_without_a_list_is_an_error(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(restrict.Unrestricted, match="for Linux on x86_64 and aarch64, this is riscv64"):
        restrict.restrict(restrict.Limits(memory=1 << 40, cpu_secs=1 << 20, file_bytes=1 << 40, tasks=1 << 20))


def test_no_number_stands_twice_on_a_machine():
    for machine in restrict.MACHINES.values():
        numbers = [*machine.denied.values(), machine.seccomp, machine.socket, machine.socketpair, machine.clone, 435]
        assert len(numbers) == len(set(numbers))
    assert restrict.MACHINES["x86_64"].denied.keys() - restrict.MACHINES["aarch64"].denied.keys() == {"iopl", "ioperm"}
