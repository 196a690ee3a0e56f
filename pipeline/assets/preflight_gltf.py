"""A glTF looked into before Blender opens it: what it is made of, and what Blender would drop, move or choke on without a word."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.assets.gltf import Gltf, data_of, roots
from pipeline.assets.gltf_numbers import Find, Numbers
from pipeline.assets.limits import Limits
from pipeline.assets.picture import KTX2, picture_warnings
from pipeline.stage import ObjectError

# Extensions without which a file may say it cannot be read and which Blender 4.5 has: `extensions_managed` in
# io_scene_gltf2/io/imp/gltf2_io_gltf.py of Blender's own glTF importer.
IMPORTED = frozenset(
    {
        "EXT_mesh_gpu_instancing",
        "EXT_texture_webp",
        "KHR_animation_pointer",
        "KHR_draco_mesh_compression",
        "KHR_lights_punctual",
        "KHR_materials_anisotropy",
        "KHR_materials_clearcoat",
        "KHR_materials_emissive_strength",
        "KHR_materials_ior",
        "KHR_materials_pbrSpecularGlossiness",
        "KHR_materials_sheen",
        "KHR_materials_specular",
        "KHR_materials_transmission",
        "KHR_materials_unlit",
        "KHR_materials_variants",
        "KHR_materials_volume",
        "KHR_mesh_quantization",
        "KHR_texture_transform",
    }
)

# Extensions whose use is a trait, wherever in the shown part of the document it stands.
_TRAITS = {
    "KHR_draco_mesh_compression": "draco",
    "EXT_meshopt_compression": "meshopt",
    "KHR_texture_basisu": "ktx2",
    "KHR_materials_pbrSpecularGlossiness": "specular_glossiness",
    "KHR_materials_unlit": "unlit",
    "KHR_mesh_quantization": "quantized",
    "EXT_texture_webp": "webp",
    "EXT_mesh_gpu_instancing": "gpu_instancing",
}

_BAD_NORMALS = 0.01  # share of normals that are no unit vectors, from which on they are called bad


def examine_gltf(gltf: Gltf, limits: Limits, find: Find) -> tuple[set[str], set[str]]:
    """Traits and warnings of a .glb or .gltf; only what its default scene shows counts.

    Raises ObjectError: unsupported_extension, cyclic_scene, empty_scene, no_faces,
    non_finite_geometry, index_out_of_range, missing_buffer, truncated, parse_error, and the limits' reasons.
    Compressed meshes (Draco) are not looked into: Blender's side says draco_corrupt.
    """
    path, document = gltf.path, gltf.document
    if unknown := sorted(set(document.get("extensionsRequired", ())) - IMPORTED):
        said = f"{path.name} cannot be read without {', '.join(unknown)}, which Blender lacks: export it without"
        raise ObjectError("unsupported_extension", said)
    shown = _shown_nodes(document, limits, path.name)
    placed = _placed_meshes(document, shown)
    if not placed:
        raise ObjectError("empty_scene", f"the scene of {path.name} shows no mesh")
    meshes = [document["meshes"][index] for index in placed]
    primitives = [primitive for mesh in meshes for primitive in mesh["primitives"] if "POSITION" in primitive["attributes"]]
    _check_counts(document, placed, limits, path.name)
    data = Numbers(gltf, find)
    warnings = set().union(*(_primitive_warnings(data, primitive) for primitive in primitives))
    materials = [document["materials"][index] for index in {one["material"] for one in primitives if "material" in one}]
    textures = [
        document["textures"][index] for index in sorted(set(_textures(materials))) if index < len(_of(document, "textures"))
    ]
    pictures = [_of(document, "images")[index] for index in sorted(set(_sources(textures)))]
    traits = _traits(document, shown, primitives, materials, textures) | data.traits
    for index, picture in enumerate(pictures):
        where, content = _picture(gltf, data, picture)
        traits.add(f"{where}_pictures")
        if content is None:
            continue  # missing, which is told with the asset's companions
        if isinstance(content, memoryview | bytes) and bytes(content[:8]) == KTX2:
            traits.add("ktx2")
        warnings |= picture_warnings(picture.get("name") or picture.get("uri", f"{index} of {path.name}")[:80], content, limits)
    return traits, warnings


def _of(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return document.get(kind, [])


def _shown_nodes(document: dict[str, Any], limits: Limits, name: str) -> list[int]:
    """The nodes of the default scene. Nodes must be a strict tree (section 3.5.2): Blender hangs or stops where they are not."""
    nodes = _of(document, "nodes")
    parents = Counter(child for node in nodes for child in node.get("children", ()))
    tops = [index for index in range(len(nodes)) if index not in parents]
    if sum(1 for _ in _descend(nodes, tops, parents)) < len(nodes):
        raise ObjectError("cyclic_scene", f"the nodes of {name} form a loop: export it again")
    twice = next((index for index, count in parents.items() if count > 1), None)
    if twice is not None:
        raise ObjectError("parse_error", f"{name} is no valid glTF: node {twice} has {parents[twice]} parents")
    shown = list(_descend(nodes, roots(document), parents))
    if len(shown) > limits.nodes:
        raise ObjectError("too_many_nodes", f"the scene of {name} has {len(shown)} nodes; {limits.nodes} are let in (limits.nodes)")
    deepest = max((depth for _, depth in shown), default=0)
    if deepest > limits.depth:
        raise ObjectError("deep_scene", f"{name} has {deepest} nodes above a node; {limits.depth} are let in (limits.depth)")
    return [index for index, _ in shown]


def _descend(nodes: list[dict[str, Any]], tops: list[int], parents: Counter[int]) -> Iterator[tuple[int, int]]:
    """Node and depth of all nodes from `tops` down, each once all its parents are done: of a loop, no node ever is."""
    left = Counter(parents)
    waiting = [(index, 0) for index in dict.fromkeys(tops)]
    while waiting:
        index, depth = waiting.pop()
        yield index, depth
        for child in nodes[index].get("children", ()):
            left[child] -= 1
            if not left[child]:
                waiting.append((child, depth + 1))


def _placed_meshes(document: dict[str, Any], shown: list[int]) -> Counter[int]:
    """How often the scene shows each mesh."""
    placed = Counter()
    for node in (document["nodes"][index] for index in shown):
        if "mesh" in node:
            instancing = node.get("extensions", {}).get("EXT_mesh_gpu_instancing", {}).get("attributes", {})
            counts = [document["accessors"][accessor]["count"] for accessor in instancing.values()]
            placed[node["mesh"]] += max(counts, default=1)
    return placed


def _check_counts(document: dict[str, Any], placed: Counter[int], limits: Limits, name: str) -> None:
    """Compares what the accessors claim with the limits, before anything is read."""
    if placed.total() > limits.meshes:
        many = f"the scene of {name} shows {placed.total()} meshes; {limits.meshes} are let in (limits.meshes)"
        raise ObjectError("too_many_meshes", many)
    vertices = faces = 0
    for index, times in placed.items():
        for primitive in document["meshes"][index]["primitives"]:
            corners = _corners(document, primitive)
            mode = primitive.get("mode", 4)
            faces += times * (corners // 3 if mode == 4 else max(corners - 2, 0) if mode in (5, 6) else 0)
            # Blender makes a vertex of each index used; primitives often share all their vertices.
            vertices += times * min(corners, _count(document, primitive, "POSITION"))
            limits.check_geometry(name, _count(document, primitive, "POSITION"), 0)
            if mode == 4 and corners % 3:
                whole = f"a mesh has {corners} corners, which are no whole triangles: Blender would drop it"
                raise ObjectError("parse_error", f"{name} is no valid glTF: {whole}")
    limits.check_geometry(name, vertices, faces)
    if not faces:
        raise ObjectError("no_faces", f"{name} shows points or lines, no triangles")


def _count(document: dict[str, Any], primitive: dict[str, Any], name: str) -> int:
    accessor = primitive["attributes"].get(name)
    return 0 if accessor is None else document["accessors"][accessor]["count"]


def _corners(document: dict[str, Any], primitive: dict[str, Any]) -> int:
    """How many corners a primitive has; none without positions: such a primitive is not shown."""
    positions = _count(document, primitive, "POSITION")
    return document["accessors"][primitive["indices"]]["count"] if positions and "indices" in primitive else positions


def _primitive_warnings(data: Numbers, primitive: dict[str, Any]) -> set[str]:
    """Checks every number of a primitive that Blender builds on; what is odd about the others is the warning."""
    if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
        data.view(primitive["extensions"]["KHR_draco_mesh_compression"]["bufferView"])
        return set()
    accessors, attributes = data.document["accessors"], primitive["attributes"]
    for target in [attributes, *primitive.get("targets", ())]:
        if "POSITION" in target:
            wrong = sum(int((~np.isfinite(block)).any(axis=1).sum()) for _, block in data.blocks(target["POSITION"]))
            if wrong:
                raise data.wrong(f"has {wrong} vertex positions that are NaN or infinite", "non_finite_geometry")
    last = accessors[attributes["POSITION"]]["count"] - 1
    if "indices" in primitive:
        last = max((int(block.max()) for _, block in data.blocks(primitive["indices"])), default=0)
    warnings = set()
    for name, index in attributes.items():
        if last >= accessors[index]["count"]:
            there = f"has a corner at vertex {last}, and there are {accessors[index]['count']} of {name}"
            raise data.wrong(there, "index_out_of_range")
        if name == "NORMAL" and _bad_normals(data, index):
            warnings.add("bad_normals")
        elif name.startswith("COLOR_") and not all(np.isfinite(block).all() for _, block in data.blocks(index)):
            warnings.add("non_finite_color")
        elif name != "POSITION" and "bufferView" in accessors[index]:
            data.array(accessors[index], accessors[index]["count"], accessors[index]["type"], accessors[index]["componentType"])
    return warnings


def _bad_normals(data: Numbers, index: int) -> bool:
    wrong = count = 0
    for _, block in data.blocks(index):
        if block.dtype.kind == "f":
            with np.errstate(invalid="ignore", over="ignore"):
                lengths = np.linalg.norm(block, axis=1)
            wrong += int((~(np.abs(lengths - 1) < 0.1)).sum())
            count += len(block)
    return wrong > count * _BAD_NORMALS


def _textures(materials: list[dict[str, Any]]) -> Iterator[int]:
    """Indices of all textures that materials name, those in extensions included."""
    waiting = list(materials)
    while waiting:
        value = waiting.pop()
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, item in items:
            waiting.append(item)
            if str(name).endswith("Texture") and isinstance(item, dict) and isinstance(item.get("index"), int):
                yield item["index"]


def _sources(textures: list[dict[str, Any]]) -> Iterator[int]:
    for texture in textures:
        yield from (one["source"] for one in (texture, *texture.get("extensions", {}).values()) if "source" in one)


def _picture(gltf: Gltf, data: Numbers, picture: dict[str, Any]) -> tuple[str, bytes | memoryview | Path | None]:
    """Whether a picture is "embedded" or "external", and its content; None: it is not there."""
    uri = picture.get("uri")
    if uri is None:
        return "embedded", data.view(picture["bufferView"]) if "bufferView" in picture else None
    if uri.startswith("data:"):
        return "embedded", data_of(uri, gltf.path.name)
    file = data.find(uri)
    return "external", file if file and file.is_file() else None


def _traits(document, shown: list[int], primitives: list, materials: list, textures: list) -> set[str]:
    """What the shown part of a document makes use of."""
    nodes = [document["nodes"][index] for index in shown]
    used = {name for one in (*nodes, *primitives, *materials, *textures) for name in one.get("extensions", {})}
    used |= {"KHR_mesh_quantization"} & set(document.get("extensionsUsed", ()))
    targets = {channel["target"].get("node") for animation in _of(document, "animations") for channel in animation["channels"]}
    others = {
        "animated": not targets.isdisjoint(shown),
        "skinned": any("skin" in node for node in nodes),
        "morph_targets": any(primitive.get("targets") for primitive in primitives),
        "multi_scene": len(_of(document, "scenes")) > 1,
    }
    return {trait for name, trait in _TRAITS.items() if name in used} | {trait for trait, is_so in others.items() if is_so}
