"""Runs inside Blender: brings an asset into an empty file, as it is meant to be seen, at its first frame."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import bpy
import io_scene_gltf2
import numpy as np

from render.blender_coincident import part_coincident_faces
from render.spec import AXES, AssetError

# What the glTF importer says of a file that cannot do without an extension which the importer does not have.
NOT_AVAILABLE = "is not available on this addon version"

NO_SURFACE = {"LIGHT", "CAMERA", "LIGHT_PROBE", "SPEAKER", "CURVES", "POINTCLOUD", "VOLUME", "GREASEPENCIL"}

BLENDER_FROM_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def load(path: Path, format: str) -> None:
    """Empties Blender and imports the asset; what is not to be seen is hidden in viewport and render alike.

    Blender takes what is no number for zero and drops faces it cannot follow: the asset has passed `pipeline.assets.preflight`.
    Raises AssetError ("unsupported_format", "unsupported_extension", "unreadable", "draco_corrupt", "out_of_memory").
    """
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    if format not in AXES:
        raise AssetError("unsupported_format", f"format {format} is not supported; these are: {', '.join(AXES)}")
    IMPORTERS[format](path)
    _forget_files_outside(path.parent)
    _hide_what_is_not_shown()
    _show_both_sides()
    _show_vertex_colors()
    part_coincident_faces()


def blender_from_asset(format: str) -> np.ndarray:
    """(4, 4) coordinates of the asset's file to Blender's axes, as the importer of this format takes them."""
    return np.eye(4) if AXES[format] == "as-is" else BLENDER_FROM_Y_UP


def _import(operator, path: Path, **settings) -> None:
    """Runs one of Blender's importers. They are foreign code that may raise anything; all of it means an unreadable asset."""
    try:
        result = operator(filepath=str(path), **settings)
    except Exception as error:
        # An add-on's error comes as a traceback, with its place as the last line.
        lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Location:")]
        message = (lines or [type(error).__name__])[-1]
        reason = (
            "out_of_memory" if "MemoryError" in message else "unsupported_extension" if NOT_AVAILABLE in message else "unreadable"
        )
        raise AssetError(reason, f"Blender cannot import the asset: {message}") from None
    if result != {"FINISHED"}:
        raise AssetError("unreadable", "Blender cannot import the asset; its log tells why")


class _DracoErrors(logging.Handler):
    """Collects what the glTF importer says about Draco: it logs that a mesh cannot be decoded, and imports zeros instead."""

    def __init__(self):
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING and "Draco" in record.getMessage():
            self.messages.append(record.getMessage())


def _gltf(path: Path) -> None:
    errors = _DracoErrors()
    _Visibility.hidden.clear()
    loggers = [logging.getLogger(name) for name in ("glTFImporter", "glTFImporter_errors")]
    for logger in loggers:
        logger.addHandler(errors)
    try:
        # Without disable_bone_shape, every skinned file gets an icosphere.
        _import(bpy.ops.import_scene.gltf, path, disable_bone_shape=True, import_webp_texture=True)
    finally:
        for logger in loggers:
            logger.removeHandler(errors)
    if errors.messages:
        raise AssetError("draco_corrupt", errors.messages[0])
    _keep_default_scene()
    for node in _Visibility.hidden:
        for item in [node, *node.children_recursive]:
            _hide(item)
    bpy.context.scene.frame_set(0)  # where the importer puts the animation's second 0


class _Visibility:
    """What glTF's KHR_node_visibility hides: its nodes, while the importer makes them. The importer itself passes it over."""

    hidden: ClassVar[list] = []
    extensions: ClassVar = [SimpleNamespace(name="KHR_node_visibility", required=True)]

    def gather_import_node_after_hook(self, _, node, item, gltf) -> None:
        """Called by the importer for every node (None: one that it made up)."""
        if node and (node.extensions or {}).get("KHR_node_visibility", {}).get("visible") is False:
            self.hidden.append(item)


io_scene_gltf2.glTF2ImportUserExtension = _Visibility  # where the importer looks for such


def _keep_default_scene() -> None:
    """Hides what belongs to no scene. The file has one scene, its default one: the importer puts that into the root collection, and
    nodes of no scene into a child collection."""
    shown = bpy.context.scene.collection.objects
    for item in bpy.context.scene.objects:
        if item.name not in shown:
            _hide(item)


def _obj(path: Path) -> None:
    _import(bpy.ops.wm.obj_import, path)
    for material in bpy.data.materials:
        for node in material.node_tree.nodes if material.node_tree else ():
            if node.type == "BSDF_PRINCIPLED":
                _correct_mtl(node.inputs)


def _correct_mtl(inputs) -> None:
    """Takes back two habits of exporters that would make furniture glow and shine through."""
    if inputs["Emission Color"].default_value[:] == inputs["Base Color"].default_value[:]:
        inputs["Emission Strength"].default_value = 0  # Ke is a copy of Kd
    inputs["Transmission Weight"].default_value = 0  # Tf is 1 1 1 in solid materials too; how clear one is, `d` says


def _through_trimesh(path: Path) -> None:
    """Formats that Blender does not read: their geometry by way of trimesh."""
    import trimesh

    try:
        mesh = trimesh.load_mesh(path, process=False)
    except Exception as error:  # foreign code on foreign data, as in _import
        raise AssetError("unreadable", f"trimesh cannot read the asset: {error}") from None
    data = bpy.data.meshes.new(path.stem)
    data.from_pydata(mesh.vertices.tolist(), [], mesh.faces.tolist())
    bpy.context.scene.collection.objects.link(bpy.data.objects.new(path.stem, data))


def _usd(path: Path) -> None:
    _import(bpy.ops.wm.usd_import, path, create_world_material=False)
    _go_to_first_frame()


def _abc(path: Path) -> None:
    _import(bpy.ops.wm.alembic_import, path)
    _go_to_first_frame()


def _go_to_first_frame() -> None:
    bpy.context.scene.frame_set(bpy.context.scene.frame_start)


IMPORTERS = {
    "glb": _gltf,
    "gltf": _gltf,
    "obj": _obj,
    "fbx": lambda path: _import(bpy.ops.wm.fbx_import, path, use_anim=False),
    "dae": lambda path: _import(bpy.ops.wm.collada_import, path),
    "usd": _usd,
    "usda": _usd,
    "usdc": _usd,
    "usdz": _usd,
    "abc": _abc,
    "ply": lambda path: _import(bpy.ops.wm.ply_import, path),
    "stl": lambda path: _import(bpy.ops.wm.stl_import, path),
    "off": _through_trimesh,
    "3mf": _through_trimesh,
}


def _forget_files_outside(folder: Path) -> None:
    """What lies outside the asset's folder is missing, before anything reads it. (render/confine.py keeps it from being read at
    all; this is for kernels that cannot.)"""
    for image in bpy.data.images:
        if not image.packed_file and image.filepath and _is_outside(image, folder):
            image.filepath = ""  # Blender lets go of its pixels with that
    bpy.data.batch_remove([*bpy.data.libraries, *(volume for volume in bpy.data.volumes if _is_outside(volume, folder))])


def _is_outside(data: bpy.types.Image | bpy.types.Volume, folder: Path) -> bool:
    return not Path(bpy.path.abspath(data.filepath)).resolve().is_relative_to(folder.resolve())


def _hide(item) -> None:
    item.hide_viewport = item.hide_render = True


def _hide_what_is_not_shown() -> None:
    """The asset's lights and cameras go, what has no surface (hair, points, smoke), and what only one of viewport and render would
    show. Hidden, not removed: it may be a parent of something shown."""
    bpy.context.view_layer.update()
    for item in bpy.context.scene.objects:
        if item.type in NO_SURFACE or item.hide_render or not item.visible_get():
            _hide(item)


def _show_both_sides() -> None:
    """Of all faces: which way they are wound says little, in assets that were only ever looked at from outside."""
    for material in bpy.data.materials:
        material.use_backface_culling = False


def _show_vertex_colors() -> None:
    """A mesh with vertex colours and no material gets a material that shows them."""
    for mesh in bpy.data.meshes:
        if mesh.color_attributes and not any(mesh.materials):
            material = bpy.data.materials.new(mesh.color_attributes[0].name)
            material.use_nodes = True
            nodes = material.node_tree.nodes
            color = nodes.new("ShaderNodeVertexColor")
            color.layer_name = mesh.color_attributes[0].name
            material.node_tree.links.new(color.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
            mesh.materials.clear()
            mesh.materials.append(material)
