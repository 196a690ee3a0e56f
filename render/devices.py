"""What renders: the CPU or one GPU. Each Blender has one, settled before any object and proven by a triangle that it renders.

    BlenderSettings.device ──candidates──► Blender, which sees one GPU (environment) ──► the first that renders ──► VIEWS.device

Standard library only: Blender's side reads this file as well.
"""

import fcntl
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from render.spec import Pictures, Request, View

BACKENDS = ("optix", "cuda", "hip", "oneapi", "metal")  # of Cycles, in lower case; the first that renders is taken
DEVICES = ("auto", "cpu", *BACKENDS)

# What a program is told of the GPUs that it may see, and what stands for the first of them. Ray sets CUDA_VISIBLE_DEVICES,
# HIP_VISIBLE_DEVICES and ZE_AFFINITY_MASK for its workers; with the last, oneAPI counts from 0 what the mask leaves.
VISIBLE = {"CUDA_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "0", "ONEAPI_DEVICE_SELECTOR": "level_zero:0"}

NODES = ("nvidia[0-9]*", "kfd", "dri/renderD*", "dxg")  # NVIDIA's, AMD's, any GPU's, and those of Windows below WSL

# Where drivers keep the kernels that they have compiled: NVIDIA's two caches; AMD's, Intel's and Mesa's go by XDG_CACHE_HOME.
CACHES = ("OPTIX_CACHE_PATH", "CUDA_CACHE_PATH", "XDG_CACHE_HOME")
CACHES_ROOT = Path("/var/tmp")

SOFTWARE = ("llvmpipe", "softpipe", "swrast", "swiftshader", "software")  # how OpenGL without a GPU is called

TRIANGLE = "v -1 -1 0\nv 1 -1 0\nv 0 1 0\nf 1 2 3\n"  # an OBJ, which any Blender reads
FACING = View(fx=32.0, fy=32.0, cx=16.0, cy=16.0, camera_to_world=(1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 3, 0, 0, 0, 1))


class DeviceError(Exception):
    """What was asked for does not render on this machine: a sentence that says which setting, and what to do."""


def gpu_nodes(root: Path = Path("/dev")) -> list[str]:
    """The device files by which GPUs are reached, ascending; none: there is no GPU here, or the container was given none."""
    return sorted(str(path) for pattern in NODES for path in root.glob(pattern))


def candidates(device: str, nodes: list[str]) -> tuple[str, ...]:
    """The devices to try in turn for a setting `device` (one of DEVICES), where there are these device files of GPUs."""
    if device != "auto":
        return (device,)
    return (*BACKENDS, "cpu") if nodes else ("cpu",)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What to tell a Blender that may use a GPU, so that it sees the first of those that this process may see, and no other.

    Cycles reads it once, when the process starts: too late from inside (https://github.com/DLR-RM/BlenderProc/issues/585).
    """
    return {name: environ.get(name, first).split(",")[0] for name, first in VISIBLE.items()}


def use_one(devices: Iterable[Any], backend: str) -> Any | None:
    """Turns on the first of Cycles' devices (`type`, `use`) that is of a backend, and all others off, also the CPU: it would do
    a part of each picture. The device that is on; None: there is none of that backend, and all are off."""
    chosen = None
    for device in devices:
        device.use = chosen is None and device.type == backend.upper()
        if device.use:
            chosen = device
    return chosen


def triangle(folder: Path, **pictures: Any) -> Request:
    """The smallest request that needs all that renders. `folder`: where its asset goes; `pictures`: further fields of Pictures."""
    asset = folder / "triangle.obj"
    asset.write_text(TRIANGLE)
    pictures = Pictures(views=(FACING,), width=32, height=32, **pictures)
    return Request(asset=str(asset), format="obj", companions=(), pictures=pictures)


def kernel_cache() -> Path:
    """The folder with the kernels that drivers compiled for the GPUs of this machine; all Blenders of a user share it.

    Compiling Cycles' takes minutes. The folder is on a local disk, as OptiX's own is by default: on a network's "behavior is
    undefined" (OptiX 7 Programming Guide, 2.2 "Compilation caching"). It is our own instead of the user's, for Blender may write
    there: one that an asset took over could leave a kernel to later ones, which are confined as it was, and to nothing else.
    Raises DeviceError when somebody else has made it.
    """
    folder = CACHES_ROOT / f"tricorpus-kernels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise DeviceError(f"{folder} is to hold the GPU's kernels, but is another user's or a link: remove it")
    return folder


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Has the processes of a machine do something one after another: of those that find no kernels, one compiles them."""
    with open(folder / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def no_device(device: str, failed: Mapping[str, str]) -> DeviceError:
    """The error for a setting `device` when none that may do has rendered: `failed` says why, by device."""
    why = "; ".join(f"{name}: {message}" for name, message in failed.items())
    return DeviceError(
        f'[blender] device = "{device}" does not render here ({why}). `python -m jobs doctor` says what this machine has; '
        'device = "cpu" needs no GPU, and "auto" takes one where one renders'
    )


def is_software(renderer: str) -> bool:
    """Whether what OpenGL calls itself means that the CPU computes it."""
    return any(name in renderer.lower() for name in SOFTWARE)
