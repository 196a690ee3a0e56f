"""Starts a program that may touch little of the machine: what it reads and writes is listed, and it makes no TCP connection.

    confine.command(["blender", "--background"], writable=[folder], readable=["/opt/blender"])   what to run instead
    python -IS render/confine.py RULES PROGRAM ARGUMENT ...                                      what that is

Importers of foreign files are large and old, and files name other files: this holds whatever one of them is talked into. It is
Landlock, which needs no rights of its own (https://docs.kernel.org/userspace-api/landlock.html; Linux 5.13, connections from 6.7,
signals from 6.12 on); a kernel without it starts the program unconfined. What Landlock does not know stays open: UDP, and sockets
that have a file's name. Standard library only.
"""

import ctypes
import json
import os
import resource
import stat
import struct
import sys
from collections.abc import Iterable, Sequence

# Where programs, shared libraries and what these want to know are; nothing of any user's.
SYSTEM = (
    "/usr",
    "/bin",
    "/lib",
    "/lib64",
    "/proc",
    "/sys",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/OpenCL",
    "/etc/glvnd",
    "/etc/nvidia",
    "/etc/ssl/openssl.cnf",
    "/etc/vulkan",
    # The drivers of AMD and Intel, where they do not come with the distribution.
    "/opt/rocm",
    "/opt/amdgpu",
    "/opt/intel",
)
# With GPUs: AMD's kfd, everybody's dri, and dxg below WSL. As their makers document them; no GPU was there to try it on. None needs
# /dev/shm, where the results of other Blenders lie. Nobody who is confined can become root, so that NVIDIA's library cannot make
# its device files or load its module (nvidia-modprobe): they must be there before.
# https://docs.nvidia.com/datacenter/tesla/mig-user-guide/device-nodes-and-capabilities.html, https://rocm.docs.amd.com ("Docker")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/dri", "/dev/kfd", "/dev/dxg")
NVIDIA = "nvidia"  # how its devices' names begin: nvidia0, nvidiactl, nvidia-uvm, nvidia-modeset, and the folder nvidia-caps (MIG)

# <linux/landlock.h>, and the numbers of its system calls, which are the same on every architecture
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_REG, TRUNCATE, IOCTL_DEV = 1 << 7, 1 << 8, 1 << 14, 1 << 15
FILESYSTEM_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # by version: how many there are; later ones add none
NETWORK_RIGHTS = 0b11  # to listen and to connect by TCP; since version 4
SCOPES = 0b11  # abstract sockets and signals; since version 6
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38  # <linux/prctl.h>
# With either, root reads other processes' memory and environment past Landlock. <linux/capability.h>
CAP_SYS_ADMIN, CAP_PERFMON = 21, 38

READ = READ_FILE | READ_DIR
# No links: whoever reads the folder afterwards would follow them.
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | TRUNCATE
USE = READ | WRITE_FILE | IOCTL_DEV
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # rights that a file, not a folder, can be given

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The version of this kernel's Landlock; 0: it has none, or it is turned off."""
    return max(0, _libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(CREATE_RULESET_VERSION)))


def command(
    program: Sequence[str],
    *,
    readable: Iterable[str] = (),
    listable: Iterable[str] = (),
    writable: Iterable[str] = (),
    file_bytes: int | None = None,
    confine: bool = True,
) -> list[str]:
    """The command that runs `program` with its files limited to `file_bytes` each, without core dumps, and, if `confine`, confined:
    it reads and executes what is in SYSTEM and beneath `readable`, sees names beneath `listable`, and writes beneath `writable`."""
    rules = [*((EXECUTE | READ, path) for path in (*SYSTEM, *readable)), *((READ_DIR, path) for path in listable)]
    rules += [*((WRITE, path) for path in writable), *((USE, path) for path in _devices())]
    limits = json.dumps({"rules": rules if confine else None, "file_bytes": file_bytes})
    return [sys.executable, "-I", "-S", __file__, limits, *program]


def _devices() -> list[str]:
    return [*DEVICES, *(f"/dev/{name}" for name in sorted(os.listdir("/dev")) if name.startswith(NVIDIA))]


def confine(rules: Iterable[tuple[int, str]]) -> None:
    """Confines the program that this process becomes next, and all that it starts, to these rights beneath these paths; those that
    do not exist are passed over. Without Landlock nothing happens. Raises OSError.
    """
    known = version()
    if not known:
        return
    handled = (1 << FILESYSTEM_RIGHTS[min(known, max(FILESYSTEM_RIGHTS))]) - 1
    attributes = struct.pack("=Q", handled)
    if known >= 4:
        attributes += struct.pack("=Q", NETWORK_RIGHTS)
    if known >= 6:
        attributes += struct.pack("=Q", SCOPES)
    ruleset = _call(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    for rights, path in rules:
        try:
            beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            rights &= OF_A_FILE
        rule = struct.pack("=Qi", rights & handled, beneath)
        _call(ADD_RULE, ruleset, ctypes.c_int(RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
        os.close(beneath)
    for capability in (CAP_SYS_ADMIN, CAP_PERFMON):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # only root can, and only root needs to
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot give up new privileges")
    _call(RESTRICT_SELF, ruleset, ctypes.c_uint32(0))
    os.close(ruleset)


def _call(number: int, *arguments) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock refuses (system call {number}): {os.strerror(ctypes.get_errno())}")
    return result


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, most) if hard == resource.RLIM_INFINITY else (min(most, hard), min(most, hard)))


if __name__ == "__main__":
    limits, *program = sys.argv[1:]
    limits = json.loads(limits)
    _limit(resource.RLIMIT_CORE, 0)
    if limits["file_bytes"] is not None:
        _limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    if limits["rules"] is not None:
        confine(limits["rules"])
    os.execvp(program[0], program)
