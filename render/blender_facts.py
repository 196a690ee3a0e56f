"""What this Blender can do, as a line of JSON on the standard output, whatever else Blender writes there.

    python render/blender_facts.py DRACO.glb
    blender --background --factory-startup --python render/blender_facts.py -- DRACO.glb

Blender runs in a process of its own, always: this is that process.
"""

import json
import re
import sys
from pathlib import Path

import bpy

# How Cycles' kernels are called for the architectures that it has them for (intern/cycles/kernel/CMakeLists.txt); oneAPI's are one
# library, Metal's are compiled on the spot.
KERNELS = {
    "CUDA": r"kernel_(sm_\d+)\.cubin|kernel_(compute_\d+)\.ptx",
    "OPTIX": r"kernel_(optix)\.ptx",
    "HIP": r"kernel_(gfx\w+)\.fatbin",
}


def facts(draco_glb: str) -> dict:
    """Version, Cycles' GPU backends, the devices they find, the architectures there are kernels for, and how many triangles of
    `draco_glb` came through its decoder."""
    cycles = bpy.context.preferences.addons["cycles"].preferences
    backends = [backend for backend, *_ in cycles.get_device_types(bpy.context) if backend != "NONE"]
    devices = [device for backend in backends for device in cycles.get_devices_for_type(backend) or () if device.type == backend]
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.ops.import_scene.gltf(filepath=draco_glb)
    triangles = sum(len(mesh.loop_triangles) for mesh in bpy.data.meshes if mesh.calc_loop_triangles() is None)
    return {
        "version": bpy.app.version_string,
        "backends": backends,
        "gpus": [{"backend": device.type, "name": device.name} for device in devices],
        "kernels": kernels(),
        "draco_triangles": triangles,
    }


def kernels() -> dict[str, list[str]]:
    """By backend, the architectures for which kernels lie beside Cycles' add-on."""
    import cycles

    files = [file.name for file in (Path(cycles.__file__).parent / "lib").glob("kernel_*")]
    found = {backend: [re.match(pattern, file) for file in files] for backend, pattern in KERNELS.items()}
    return {backend: sorted(one[one.lastindex] for one in matches if one) for backend, matches in found.items()}


if __name__ == "__main__":
    print("\n" + json.dumps(facts(sys.argv[-1])), flush=True)
