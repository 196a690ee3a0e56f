"""What this Blender can do, as JSON on the last line of standard output: `python -m render.blender_facts DRACO.glb`.

Blender runs in a process of its own, always: this is that process.
"""

import json
import sys

import bpy


def facts(draco_glb: str) -> dict:
    """Version, Cycles' GPU backends and the devices they find, and how many triangles of `draco_glb` came through its decoder."""
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
        "draco_triangles": triangles,
    }


if __name__ == "__main__":
    print("\n" + json.dumps(facts(sys.argv[1])))
