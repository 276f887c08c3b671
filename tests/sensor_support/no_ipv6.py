"""Runs a command as on a kernel without IPv6: `python -m sensor_support.no_ipv6 COMMAND…`.

A seccomp filter answers socket(AF_INET6, …) with EAFNOSUPPORT, as a kernel without IPv6 does. It
needs no privilege, and children of the command inherit it (seccomp(2)).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
#: Number of the system call socket(2).
_SOCKET = {"x86_64": 41, "aarch64": 198}
#: BPF: load a word, jump if equal, return.
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
#: struct seccomp_data: the call's number, and the low half of its first argument.
_NUMBER_AT, _ARGUMENT_AT = 0, 16


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _instruction(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_so, if_not, value)


def refuse_ipv6() -> None:
    """Refuse IPv6 sockets to this process from now on."""
    lines = [
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_JUMP_IF_EQUAL, _SOCKET[platform.machine()], 0, 3),
        _instruction(_LOAD, _ARGUMENT_AT),
        _instruction(_JUMP_IF_EQUAL, socket.AF_INET6, 0, 1),
        _instruction(_RETURN, _ERRNO | errno.EAFNOSUPPORT),
        _instruction(_RETURN, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(lines))
    program = _Program(len(lines), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse_ipv6()
    os.execvp(sys.argv[1], sys.argv[1:])
