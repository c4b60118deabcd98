"""Fences a process in before it meets a model that nobody vouches for: no network, bounded memory, time and files.

The fence holds for this process, all its threads and whatever it starts, and cannot be taken down again. It is no
wall against a model that means harm: files are read and written with the user's own rights.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from typing import NamedTuple

_PR_SET_NO_NEW_PRIVS = 38
_FILTER_MODE = 1
_ALL_THREADS = 1
_AF_UNIX = 1
# Kinds of instructions and results of a filter: linux/bpf_common.h, linux/seccomp.h.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
# Where struct seccomp_data holds the call's number, its machine and the low half of its first and third argument.
_NUMBER, _MACHINE, _FIRST, _THIRD = 0, 4, 16, 32
_X32 = 0x40000000
"""Calls of a second table on x86-64, which is not listed here."""
_NAMESPACES = 0x7E020000
"""Flags of clone() that ask for a namespace, where a process may be its own administrator."""

# Calls that are refused with "not permitted", by what they would open: other processes, the kernel, the machine; and
# those by which a process leaves the group in which it is ended, or the limits.
# Numbers from 424 on are the same on every machine.
_COMMON = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
}
_X86_64 = {
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
    "add_key": 248, "request_key": 249, "keyctl": 250,
    "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320,
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308,
    "reboot": 169, "swapon": 167, "swapoff": 168, "acct": 163, "settimeofday": 164, "clock_settime": 227,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "iopl": 172, "ioperm": 173, "setsid": 112, "setpgid": 109,
    "setrlimit": 160,
}  # fmt: skip
_AARCH64 = {
    "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272,
    "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
    "add_key": 217, "request_key": 218, "keyctl": 219,
    "init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104, "kexec_file_load": 294,
    "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268,
    "reboot": 142, "swapon": 224, "swapoff": 225, "acct": 89, "settimeofday": 170, "clock_settime": 112,
    "name_to_handle_at": 264, "open_by_handle_at": 265, "setsid": 157, "setpgid": 154,
    "setrlimit": 164,
}  # fmt: skip


class Machine(NamedTuple):
    """A processor architecture's numbers."""

    audit: int
    seccomp: int
    socket: int
    socketpair: int
    clone: int
    prlimit64: int
    denied: dict[str, int]


_CLONE3 = 435
MACHINES = {
    "x86_64": Machine(0xC000003E, 317, 41, 53, 56, 302, {**_X86_64, **_COMMON}),
    "aarch64": Machine(0xC00000B7, 277, 198, 199, 220, 261, {**_AARCH64, **_COMMON}),
}


UNRESTRICTED = 70
"""Exit status of a program before which the fence cannot be put up; the last line of its errors says why."""


class Limits(NamedTuple):
    """How much of the machine a process gets."""

    memory: int
    """Bytes of addresses beyond those that it has mapped already."""
    cpu_secs: int
    file_bytes: int
    """Size of each file that it writes."""
    tasks: int
    """Processes and threads beyond those that its user has; the kernel does not count them for root."""


class Unrestricted(Exception):
    """A machine on which the fence cannot be put up: says what is missing."""


def restrict(limits: Limits) -> None:
    """Puts up the fence around this process; raises `Unrestricted`, and then nothing may be run in it."""
    machine = _machine()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, limits.cpu_secs)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_NPROC, _tasks_of_user() + limits.tasks)
    _limit(resource.RLIMIT_AS, _mapped() + limits.memory)
    filter_calls(program(machine))  # last, for it forbids to change limits


def program(machine: Machine) -> bytes:
    """The filter of a machine's calls: a list of instructions that the kernel runs at each."""
    refuse = [_instruction(_RETURN, value=_REFUSE | errno.EPERM)]
    absent = [_instruction(_RETURN, value=_REFUSE | errno.ENOSYS)]
    code = [_instruction(_LOAD, value=_MACHINE), *_unless(_EQUAL, machine.audit, refuse)]
    code += [_instruction(_LOAD, value=_NUMBER), *_when(_AT_LEAST, _X32, refuse)]
    for number in machine.denied.values():
        code += _when(_EQUAL, number, refuse)
    # What clone3() asks for lies in memory, where no filter looks; C libraries turn to clone() where it is absent.
    code += _when(_EQUAL, _CLONE3, absent)
    first = _instruction(_LOAD, value=_FIRST)
    allow = [_instruction(_RETURN, value=_ALLOW)]
    for number in (machine.socket, machine.socketpair):
        code += _when(_EQUAL, number, [first, *_unless(_EQUAL, _AF_UNIX, refuse), *allow])
    code += _when(_EQUAL, machine.clone, [first, *_when(_ANY_BIT, _NAMESPACES, refuse), *allow])
    # Limits may be read: the call that does both then names no new one.
    halves = [[_instruction(_LOAD, value=at), *_unless(_EQUAL, 0, refuse)] for at in (_THIRD, _THIRD + 4)]
    code += _when(_EQUAL, machine.prlimit64, [*halves[0], *halves[1], *allow])
    return b"".join([*code, *allow])


def _instruction(kind: int, *, then: int = 0, otherwise: int = 0, value: int) -> bytes:
    return struct.pack("HBBI", kind, then, otherwise, value)


def _when(test: int, value: int, do: list[bytes]) -> list[bytes]:
    """`do` where the test holds, else what follows it."""
    return [_instruction(test, otherwise=len(do), value=value), *do]


def _unless(test: int, value: int, do: list[bytes]) -> list[bytes]:
    """`do` where the test fails, else what follows it."""
    return [_instruction(test, then=len(do), value=value), *do]


def filter_calls(code: bytes) -> None:
    """Hands a filter to the kernel, for all threads; raises `Unrestricted`."""
    machine = _machine()
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(code, len(code))
    size = struct.calcsize("HBBI")
    handed = ctypes.create_string_buffer(struct.pack("HP", len(code) // size, ctypes.addressof(buffer)))
    # Without it a program with more rights could be started under the filter and be misled by it.
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise Unrestricted(f"prctl(PR_SET_NO_NEW_PRIVS): {os.strerror(ctypes.get_errno())}")
    result = libc.syscall(ctypes.c_long(machine.seccomp), _FILTER_MODE, _ALL_THREADS, ctypes.byref(handed))
    if result != 0:
        why = os.strerror(ctypes.get_errno()) if result < 0 else f"thread {result} has a filter of its own"
        raise Unrestricted(f"the kernel takes no filter of system calls (seccomp): {why}")


def _machine() -> Machine:
    name = platform.machine()
    if platform.system() != "Linux" or name not in MACHINES:
        known = " and ".join(MACHINES)
        raise Unrestricted(f"the filter of system calls is known for Linux on {known}, this is {name or 'unknown'}")
    return MACHINES[name]


def _limit(kind: int, value: int) -> None:
    """Lowers a limit for good; one that is lower already stays."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _mapped() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _tasks_of_user() -> int:
    """Processes and threads of this user, whom the limit counts as a whole."""
    own, count = os.getuid(), 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == own:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue  # it has ended
    return count
