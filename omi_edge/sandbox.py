"""What an engine process gives up before it loads a model: the network, and life without its parent.

On Linux a seccomp filter (seccomp(2), classic BPF) refuses ``socket`` for every family but AF_UNIX; elsewhere
nothing is installed and ``network_refused`` says so.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 38, 22
_SECCOMP_MODE_FILTER = 2
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_ALLOW, _ERRNO_EACCES = 0x7FFF0000, 0x00050000 | 13
_AF_UNIX = 1
_ARCHITECTURES = {
    # machine: AUDIT_ARCH, __NR_socket, __NR_io_uring_setup (linux/audit.h, asm/unistd.h)
    "x86_64": (0xC000003E, 41, 425),
    "aarch64": (0xC00000B7, 198, 425),
}
_X32_BIT = 0x40000000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse_network() -> bool:
    """Refuse every socket but AF_UNIX for this process and its children; return whether it could be done."""
    known = _ARCHITECTURES.get(platform.machine()) if sys.platform == "linux" else None
    if known is None:
        return False
    program = _filter(*known)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    code = _Program(len(program) // 8, program)
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(code), 0, 0) == 0)


def network_refused() -> str:
    """Say what keeps engines off the network on this machine."""
    if sys.platform == "linux" and platform.machine() in _ARCHITECTURES:
        return "seccomp: engine processes can open no socket but AF_UNIX"
    return "nothing beyond the engines' own settings: this system has no filter that omi-edge can install"


def die_with_parent() -> None:
    """On Linux, be killed when the parent ends, however it ends."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the request was in place
            os._exit(0)


def _filter(architecture: int, socket_number: int, io_uring_number: int) -> bytes:
    # offsets in struct seccomp_data: 0 nr, 4 arch, 16 args[0] (low word; both machines are little-endian)
    return b"".join(
        struct.pack("<HBBI", *instruction)
        for instruction in (
            (_LOAD, 0, 0, 4),
            (_JUMP_EQUAL, 1, 0, architecture),
            (_RETURN, 0, 0, _ERRNO_EACCES),
            (_LOAD, 0, 0, 0),
            (0x35, 4, 0, _X32_BIT),  # BPF_JGE: the x32 table would go round the filter
            (_JUMP_EQUAL, 3, 0, io_uring_number),  # io_uring opens sockets without socket(2)
            (_JUMP_EQUAL, 0, 3, socket_number),
            (_LOAD, 0, 0, 16),
            (_JUMP_EQUAL, 1, 0, _AF_UNIX),
            (_RETURN, 0, 0, _ERRNO_EACCES),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
