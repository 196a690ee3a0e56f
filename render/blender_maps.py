"""Runs inside Blender: depth and normals at the centre of each pixel, by Cycles: one ray each, nothing left to chance."""

from collections.abc import Callable
from pathlib import Path

import bpy
import numpy as np

from render.blender_engine import set_threads
from render.blender_import import BLENDER_FROM_Y_UP
from render.blender_mesh import moved
from render.blender_pictures import add_camera, feed_alike, put_in_place, render_view, show_asset
from render.spec import Maps

NARROWEST = 0.01  # width of the pixel filter, pixels; Cycles takes no smaller one
SEE_THROUGH = 256  # so many transparent surfaces are passed by in a row
NOTHING = 1e9  # Cycles' depth is beyond this where a ray hits nothing

# Shaders that are kept, as they say what is transparent or lead to others; all the rest becomes a diffuse surface.
KEPT = {"BSDF_TRANSPARENT", "MIX_SHADER", "ADD_SHADER", "GROUP", "GROUP_INPUT", "REROUTE"}


def render(
    maps: Maps,
    vertices: np.ndarray,
    from_blender: np.ndarray,
    folder: Path,
    *,
    threads: int,
    reached: Callable[[str], None] = lambda step: None,
) -> None:
    """Writes 000.npy, 001.npy, ... into `folder`: (height, width, 4) float32, the depth along the camera's z axis and the shading
    normal of the side that the camera sees, both in the canonical frame; NaN where nothing is seen. What is less than half opaque
    is passed by; glass is surface.

    `vertices`, `from_blender`, `reached`: as in render.blender_pictures.render. Changes the asset's materials: nothing can be
    rendered of them afterwards. Raises AssetError("render_failed").
    """
    scene = bpy.data.scenes.new("maps")
    show_asset(scene, bpy.context.scene, BLENDER_FROM_Y_UP @ from_blender)
    _set_output(scene, maps)
    _set_cycles(scene, threads)
    _show_surface_only()
    add_camera(scene)
    canonical = moved(vertices, from_blender)
    for number, view in enumerate(maps.views):
        reached("maps")
        file = folder / f"{number:03d}.exr"
        render_view(scene, view, canonical, file, f"the maps of view {number}")
        depth, normal = _read(file, maps)
        normal = normal @ BLENDER_FROM_Y_UP[:3, :3]
        hit = (0 < depth) & (depth < NOTHING) & normal.any(axis=-1)
        np.save(file.with_suffix(".npy"), np.where(hit[..., None], np.dstack([depth, normal]), np.nan).astype(np.float32))
        file.unlink()


def _set_output(scene: bpy.types.Scene, maps: Maps) -> None:
    render, layer = scene.render, scene.view_layers[0]
    render.resolution_x, render.resolution_y, render.resolution_percentage = maps.width, maps.height, 100
    render.use_persistent_data = True
    render.use_compositing = render.use_sequencer = False
    layer.use_pass_z = layer.use_pass_normal = True
    render.image_settings.file_format = "OPEN_EXR_MULTILAYER"
    render.image_settings.color_depth, render.image_settings.exr_codec = "32", "NONE"


def _set_cycles(scene: bpy.types.Scene, threads: int) -> None:
    set_threads(scene, threads)
    scene.render.engine = "CYCLES"
    cycles = scene.cycles
    cycles.device = "CPU"  # there is next to nothing to compute, and every machine gives the same
    cycles.samples, cycles.use_adaptive_sampling, cycles.use_denoising = 1, False, False
    # The first ray of a pixel is drawn from the middle of the filter (kernel/integrator/init_from_camera.h), of which Cycles has a
    # table that is not quite even: with the default width depths are off by 2e-5, with this one by 1e-6.
    cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", NARROWEST
    cycles.max_bounces, cycles.transparent_max_bounces = 0, SEE_THROUGH
    scene.view_layers[0].pass_alpha_threshold = 0.5


def _show_surface_only() -> None:
    """Makes every material either there or not at each of its points: alpha and the share of every mixed shader are rounded, and
    what is there is diffuse. So no ray is left to chance, and the normals are the material's own; glossy shaders bend theirs."""
    trees = [material.node_tree for material in bpy.data.materials if material.node_tree] + list(bpy.data.node_groups)
    for tree in trees:
        if tree.type == "SHADER":
            for node in list(tree.nodes):
                if node.type == "MIX_SHADER":
                    _round(tree, node.inputs[0], node.inputs[0])
                elif node.type not in KEPT and node.outputs and node.outputs[0].type == "SHADER":
                    _make_diffuse(tree, node)


def _make_diffuse(tree: bpy.types.NodeTree, shader: bpy.types.Node) -> None:
    diffuse = tree.nodes.new("ShaderNodeBsdfDiffuse")
    if "Normal" in shader.inputs and shader.inputs["Normal"].is_linked:
        feed_alike(tree, shader.inputs["Normal"], diffuse.inputs["Normal"])
    put_in_place(tree, shader, diffuse, _round)


def _round(tree: bpy.types.NodeTree, like: bpy.types.NodeSocket, socket: bpy.types.NodeSocket) -> None:
    """Gives `socket` the value of `like`, or what is linked to it, as 0 or 1; a half is 1."""
    rounded = tree.nodes.new("ShaderNodeMath")
    rounded.operation = "ROUND"
    feed_alike(tree, like, rounded.inputs[0])
    tree.links.new(rounded.outputs[0], socket)


def _read(file: Path, maps: Maps) -> tuple[np.ndarray, np.ndarray]:
    """Depth (height, width) and normals (height, width, 3) in Blender's axes, out of the file of a render with these two passes.

    An uncompressed OpenEXR file ends with its lines, top to bottom: number, size, and the channels one after the other in the order
    of their names, which begin with Combined (it is always there), Depth and Normal.
    https://openexr.com/en/latest/OpenEXRFileLayout.html
    """
    width = maps.width
    line = np.dtype([("head", "<i4", 2), ("rgba", "<f4", (4, width)), ("z", "<f4", width), ("normal", "<f4", (3, width))])
    data = file.read_bytes()
    lines = np.frombuffer(data, line, count=maps.height, offset=len(data) - maps.height * line.itemsize)
    return lines["z"], lines["normal"].transpose(0, 2, 1)
