"""Whether EEVEE can be used on this machine. Without a GPU it may crash, or be computed by the CPU, slowly, and tell nobody."""

import tempfile
from dataclasses import replace
from pathlib import Path

from pipeline.stage import ObjectError
from render.blender import Blender, BlenderSettings
from render.devices import NODES, DeviceError, gpu_nodes, is_software, triangle

PROBE_SECONDS = 300  # within which a GPU has compiled EEVEE's shaders and rendered a triangle
LOG_LINES = 5


def gpu_of_eevee(settings: BlenderSettings) -> str:
    """The GPU that EEVEE renders on, as OpenGL calls it: it renders a triangle in a process of its own, run as the real one will.

    Raises DeviceError: there is no GPU; Blender crashes, hangs or says no; or OpenGL is computed by the CPU.
    """
    if not gpu_nodes():
        raise _refused(f"this machine shows no GPU (none of {', '.join(f'/dev/{node}' for node in NODES)})")
    renderer = opengl_of_eevee(settings)
    if is_software(renderer):
        raise _refused(f"OpenGL is computed by the CPU here ({renderer}), where EEVEE takes far longer than Cycles")
    return renderer


def opengl_of_eevee(settings: BlenderSettings) -> str:
    """What computes OpenGL for EEVEE on this machine, GPU or not. Raises DeviceError when no picture comes of it."""
    probing = replace(settings, device="cpu", timeout_s=PROBE_SECONDS, stall_s=PROBE_SECONDS)
    with tempfile.TemporaryDirectory() as folder, Blender(probing) as blender:
        try:
            answer, _ = blender.do(triangle(Path(folder), engine="eevee"))
        except ObjectError as error:
            log = "\n".join((error.log_tail or "").splitlines()[-LOG_LINES:])
            raise _refused(f"EEVEE does not render a triangle: {error}\n{log}") from None
    return answer.device.removeprefix("EEVEE: ")


def _refused(why: str) -> DeviceError:
    return DeviceError(
        f'[render] engine = "eevee" needs a GPU that renders OpenGL without a display (EGL): {why.strip()}\n'
        'Take engine = "cycles", or give the machine a GPU with its OpenGL driver (in containers: NVIDIA_DRIVER_CAPABILITIES=all)'
    )
