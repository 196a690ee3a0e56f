"""Runs inside Blender: pictures of the imported asset in the canonical frame, by Cycles.

The asset's own scene stays as it is. A second scene shows an instance of all its visible objects, moved and scaled into the unit
sphere, under a light of ours. That scene keeps Blender's axes: z up, the object's front towards -y.
"""

import math
from collections.abc import Callable
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

from render.blender_engine import set_engine
from render.blender_import import BLENDER_FROM_Y_UP
from render.blender_light import light
from render.blender_mesh import moved
from render.blender_paints import SHADER_COLOR
from render.spec import AssetError, Pictures, View

BLENDER_FROM_OPENCV = np.diag([1.0, -1, -1, 1])  # camera axes: Blender's are x right, y up, z backward
SENSOR = 36.0  # millimetres; any value does

# Beyond these sizes Blender's single-precision geometry (products of three lengths) overflows or vanishes.
SMALLEST, LARGEST = 1e-10, 1e10


def canonical_from_blender(vertices: np.ndarray, front: str | None = None) -> np.ndarray:
    """(4, 4) Blender's world to the canonical frame of schemas.tables, for vertices (V, 3) of all visible surfaces. `front`: where
    the object faces in the asset's coordinates; -z is turned to the frame's +z, everything else is taken as it is.

    Raises AssetError ("no_faces", "non_finite_geometry", "no_extent", "extreme_scale").
    """
    if not len(vertices):
        raise AssetError("no_faces", "the asset shows no surface: no visible mesh with a face")
    if not np.isfinite(vertices).all():
        raise AssetError("non_finite_geometry", "vertex positions are NaN or infinite once placed in the scene")
    center = vertices.min(axis=0) / 2 + vertices.max(axis=0) / 2
    radius = math.sqrt(((vertices - center) ** 2).sum(axis=1).max())
    if radius == 0:
        raise AssetError("no_extent", "all vertices lie in one point")
    if not SMALLEST < radius < LARGEST:
        raise AssetError(
            "extreme_scale", f"the asset is {2 * radius:.3g} units across, too {'large' if radius > 1 else 'small'} to render"
        )
    centered = np.eye(4)
    centered[:3, 3] = -center
    turn = np.diag([-1.0, 1, -1, 1]) if front == "-z" else np.eye(4)
    return np.diag([1 / radius] * 3 + [1]) @ turn @ np.linalg.inv(BLENDER_FROM_Y_UP) @ centered


def render(
    pictures: Pictures,
    vertices: np.ndarray,
    from_blender: np.ndarray,
    folder: Path,
    *,
    device: str,
    threads: int,
    reached: Callable[[str], None] = lambda step: None,
) -> str:
    """Writes 000.png, 001.png, ... (RGBA, straight alpha) into `folder`; returns the device that rendered them.
    Raises AssetError("render_failed").

    `vertices` (V, 3) and `from_blender` (4, 4) as in canonical_from_blender: what has to be in the pictures, and where it goes.
    `reached` is told of every view before it is rendered.
    """
    scene = bpy.data.scenes.new("canonical")
    show_asset(scene, bpy.context.scene, BLENDER_FROM_Y_UP @ from_blender)
    _set_output(scene, pictures)
    used = set_engine(scene, pictures, device, threads)
    camera = add_camera(scene)
    if pictures.shading == "lit":
        light(scene, camera)
    else:
        _show_albedo(scene)
    canonical = moved(vertices, from_blender)
    for number, view in enumerate(pictures.views):
        reached("first view" if number == 0 else "views")
        file = folder / f"{number:03d}.png"
        render_view(scene, view, canonical, file, f"view {number}")
        if not file.is_file():
            raise AssetError("render_failed", f"Cycles wrote no picture of view {number}")
    return used


def add_camera(scene: bpy.types.Scene) -> bpy.types.Object:
    """Gives a scene its camera."""
    scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(scene.camera)
    return scene.camera


def render_view(scene: bpy.types.Scene, view: View, canonical: np.ndarray, file: Path, what: str) -> None:
    """Writes what one view shows of a scene, in which the asset has these vertices (V, 3) in the canonical frame.
    Raises AssetError("render_failed"), which calls it `what`."""
    aim(scene.camera, scene.render, view)
    set_border(scene.render, view, canonical)
    scene.render.filepath = str(file)
    try:
        bpy.ops.render.render(write_still=True, scene=scene.name)
    except RuntimeError as error:
        raise AssetError("render_failed", f"Cycles cannot render {what}: {error}") from None


def show_asset(scene: bpy.types.Scene, asset: bpy.types.Scene, placed: np.ndarray) -> None:
    """Puts an instance of all visible objects of the asset's scene into `scene`, moved by the matrix `placed`, at the same frame.

    An instance rather than a parent: nothing in the asset (constraints, armatures, caches) can notice it.
    """
    collection = bpy.data.collections.new("asset")
    for item in asset.objects:
        if not item.hide_render:
            collection.objects.link(item)
    instance = bpy.data.objects.new("asset", None)
    instance.instance_type = "COLLECTION"
    instance.instance_collection = collection
    instance.matrix_world = Matrix(placed)
    scene.collection.objects.link(instance)
    scene.frame_set(asset.frame_current)


def _set_output(scene: bpy.types.Scene, pictures: Pictures) -> None:
    render = scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = pictures.width, pictures.height, 100
    render.film_transparent = True
    render.use_persistent_data = True  # views after the first take over its BVH and textures
    render.use_compositing = render.use_sequencer = False
    render.dither_intensity = 0
    render.image_settings.file_format = "PNG"
    render.image_settings.color_mode, render.image_settings.color_depth = "RGBA", "8"
    render.image_settings.compression = 0
    scene.display_settings.display_device = "sRGB"
    scene.view_settings.view_transform = "Standard"  # Blender's default, AgX, washes colours out
    scene.view_settings.look = "None"


def _show_albedo(scene: bpy.types.Scene) -> None:
    """Every material sends out its base colour, whatever the light, and lets through what its alpha says."""
    scene.cycles.use_denoising = False
    scene.cycles.max_bounces = 0
    for mesh in bpy.data.meshes:
        if not any(mesh.materials):
            mesh.materials.clear()
            mesh.materials.append(bpy.data.materials.new("neutral"))
    for material in bpy.data.materials:
        material.use_nodes = True
    for tree in [material.node_tree for material in bpy.data.materials] + list(bpy.data.node_groups):
        if tree.type == "SHADER":
            for node in [node for node in tree.nodes if node.type in SHADER_COLOR]:
                _replace_by_emission(tree, node)


def _replace_by_emission(tree: bpy.types.NodeTree, shader: bpy.types.Node) -> None:
    emission = tree.nodes.new("ShaderNodeEmission")
    feed_alike(tree, shader.inputs[SHADER_COLOR[shader.type]], emission.inputs["Color"])
    put_in_place(tree, shader, emission, feed_alike)


def put_in_place(tree: bpy.types.NodeTree, shader: bpy.types.Node, other: bpy.types.Node, feed: Callable) -> None:
    """Has `other` shade what `shader` did; where that has an alpha, `feed` (like feed_alike) takes it over."""
    output = other.outputs[0]
    if "Alpha" in shader.inputs:
        mix = tree.nodes.new("ShaderNodeMixShader")
        feed(tree, shader.inputs["Alpha"], mix.inputs[0])
        tree.links.new(tree.nodes.new("ShaderNodeBsdfTransparent").outputs[0], mix.inputs[1])
        tree.links.new(output, mix.inputs[2])
        output = mix.outputs[0]
    for link in list(shader.outputs[0].links):
        tree.links.new(output, link.to_socket)


def feed_alike(tree: bpy.types.NodeTree, like: bpy.types.NodeSocket, socket: bpy.types.NodeSocket) -> None:
    """Gives `socket` the value of `like`, or what is linked to it."""
    if like.is_linked:
        tree.links.new(like.links[0].from_socket, socket)
    else:
        socket.default_value = like.default_value


def aim(camera: bpy.types.Object, render: bpy.types.RenderSettings, view: View) -> None:
    """Makes Blender's camera the pinhole camera of a view."""
    to_world = np.array(view.camera_to_world).reshape(4, 4)
    camera.matrix_world = Matrix(BLENDER_FROM_Y_UP @ to_world @ BLENDER_FROM_OPENCV)
    width, height, tallness = render.resolution_x, render.resolution_y, view.fx / view.fy  # of a pixel
    render.pixel_aspect_x, render.pixel_aspect_y = max(1, 1 / tallness), max(1, tallness)
    lens = camera.data
    lens.sensor_fit, lens.sensor_width = "HORIZONTAL", SENSOR
    lens.lens = view.fx / width * SENSOR
    lens.shift_x = (width / 2 - view.cx) / width
    lens.shift_y = (view.cy - height / 2) / width * tallness
    distance = float(np.linalg.norm(to_world[:3, 3]))
    lens.clip_start, lens.clip_end = max(distance - 1.01, 1e-3), distance + 1.01


def set_border(render: bpy.types.RenderSettings, view: View, canonical: np.ndarray) -> None:
    """Has only the rectangle around the object rendered; the rest of the picture is transparent."""
    to_world = np.array(view.camera_to_world).reshape(4, 4)
    seen = (canonical - to_world[:3, 3]) @ to_world[:3, :3]
    size = np.array([render.resolution_x, render.resolution_y])
    pixels = seen[:, :2] / seen[:, 2:] * (view.fx, view.fy) + (view.cx, view.cy)
    low = np.clip(np.floor(pixels.min(axis=0)) - 2, 0, size - 1) / size  # the pixel filter reaches 1.5 pixels
    high = np.clip(np.ceil(pixels.max(axis=0)) + 2, 1, size) / size
    render.use_border, render.use_crop_to_border = True, False
    render.border_min_x, render.border_max_x = low[0], high[0]
    render.border_min_y, render.border_max_y = 1 - high[1], 1 - low[1]
