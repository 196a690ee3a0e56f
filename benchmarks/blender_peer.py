"""Runs inside Blender, one process for each object: the recipe of objaverse-rendering, or a reference that has converged.

    python -m benchmarks.blender_peer RECIPE LIGHT < REQUEST

RECIPE   peer: what allenai/objaverse-rendering sets in scripts/blender_script.py (9707314, 2023), on the CPU, and all else as
         Blender has it from the factory: adaptive sampling, light tree, denoising after an accurate prefilter, all cores
         reference: as many samples everywhere as the request says, no denoiser, more bounces than anybody renders with
LIGHT    ours: render.blender_light · own: the lamp of objaverse-rendering, as large and as near for the object as it is there
REQUEST  a render.spec.Request as JSON; asset, format, front, folder and pictures count, pictures with their Cycles.samples

Writes 000.png, 001.png, ... (RGBA, straight alpha) into the request's folder. Import, placement, cameras and view transform are
this project's: what is compared is how pictures are computed, not what they show.
"""

import sys
from pathlib import Path

import bpy
import numpy as np

from render import blender_import, blender_light, blender_mesh, blender_pictures
from render.spec import Pictures, Request

# Each at least what this project renders with and what Blender has from the factory.
REFERENCE_BOUNCES = {
    "max_bounces": 32,
    "diffuse_bounces": 4,
    "glossy_bounces": 4,
    "transmission_bounces": 12,
    "transparent_max_bounces": 32,
}

# objaverse-rendering's lamp, and the world that it leaves as Blender has it.
LAMP_WATTS, LAMP_SIDE, LAMP_HEIGHT = 30000.0, 100.0, 0.5  # above the middle of an object whose longest side is 1
WORLD_GREY = 0.05087608844041824


def main(recipe: str, lights: str, request: Request) -> None:
    """Renders all that the request asks for."""
    blender_import.load(Path(request.asset), request.format)
    blender_mesh.repair_missing_images()
    vertices = blender_mesh.collect(bpy.context.evaluated_depsgraph_get()).vertices
    from_blender = blender_pictures.canonical_from_blender(vertices, request.front)
    canonical = blender_mesh.moved(vertices, from_blender)

    scene = bpy.data.scenes.new("compared")
    blender_pictures.show_asset(scene, bpy.context.scene, blender_import.BLENDER_FROM_Y_UP @ from_blender)
    scene.view_settings.view_transform = "Standard"  # as in render.blender_pictures
    camera = blender_pictures.add_camera(scene)
    if lights == "ours":
        blender_light.light(scene, camera)
    else:
        _light_as_peer(scene, float(np.ptp(canonical, axis=0).max()))
    {"peer": _set_peer, "reference": _set_reference}[recipe](scene, request.pictures)

    for number, view in enumerate(request.pictures.views):
        blender_pictures.aim(camera, scene.render, view)
        if recipe == "reference":
            blender_pictures.set_border(scene.render, view, canonical)
        scene.render.filepath = str(Path(request.folder, f"{number:03d}.png"))
        bpy.ops.render.render(write_still=True, scene=scene.name)


def _set_picture(scene: bpy.types.Scene, pictures: Pictures) -> None:
    render = scene.render
    render.engine = "CYCLES"
    render.resolution_x, render.resolution_y, render.resolution_percentage = pictures.width, pictures.height, 100
    render.film_transparent = True
    render.image_settings.file_format, render.image_settings.color_mode = "PNG", "RGBA"
    scene.cycles.device = "CPU"
    scene.cycles.samples = pictures.cycles.samples


def _set_peer(scene: bpy.types.Scene, pictures: Pictures) -> None:
    _set_picture(scene, pictures)
    cycles = scene.cycles
    cycles.diffuse_bounces = cycles.glossy_bounces = 1
    cycles.transparent_max_bounces = cycles.transmission_bounces = 3
    cycles.filter_width = 0.01
    cycles.use_denoising = True


def _set_reference(scene: bpy.types.Scene, pictures: Pictures) -> None:
    _set_picture(scene, pictures)
    scene.render.use_persistent_data = True
    scene.render.dither_intensity = 0
    scene.cycles.use_adaptive_sampling = scene.cycles.use_denoising = False
    for name, bounces in REFERENCE_BOUNCES.items():
        setattr(scene.cycles, name, bounces)


def _light_as_peer(scene: bpy.types.Scene, longest: float) -> None:
    """`longest`: the longest side of the object's box, here; there it is 1. Watts grow with the area: the lamp stays as bright."""
    scene.world = bpy.data.worlds.new("grey")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (WORLD_GREY, WORLD_GREY, WORLD_GREY, 1)
    lamp = bpy.data.objects.new("lamp", bpy.data.lights.new("lamp", "AREA"))
    lamp.data.energy = LAMP_WATTS * longest**2
    lamp.data.size = LAMP_SIDE * longest
    lamp.location.z = LAMP_HEIGHT * longest
    scene.collection.objects.link(lamp)


if __name__ == "__main__":
    main(*sys.argv[1:], Request.from_json(sys.stdin.read()))
