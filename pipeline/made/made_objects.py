"""Everyday objects made on the spot, as a collection in Objaverse 1.0's own layout: for demonstrations, tests and the tiny teacher.

    recipe (pipeline.made.recipes) + looks -> MadeObject: a scene, and words a person would publish it with, true of what is seen

The same seed gives the same bytes.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from pipeline.made.recipes import KINDS, Build, Kind, Rng
from pipeline.made.solids import Surface
from pipeline.points import linear_from_srgb

CATEGORIES = tuple(KINDS)

COLORS = {  # sRGB
    "red": (200, 35, 35), "orange": (235, 125, 25), "yellow": (240, 205, 45), "green": (50, 140, 60), "blue": (40, 80, 185),
    "purple": (120, 60, 160), "pink": (240, 130, 175), "white": (238, 238, 235), "black": (32, 32, 34), "grey": (130, 132, 136),
    "brown": (135, 85, 45), "turquoise": (45, 180, 175), "light blue": (150, 200, 230), "dark brown": (80, 48, 28),
    "dark red": (120, 25, 30), "beige": (222, 190, 145), "silver": (185, 188, 195), "waffle": (214, 160, 92),
}  # fmt: skip
MAIN_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "grey", "brown", "turquoise")
SHINE = {"metal": {"metallic": 0.3, "roughness": 0.35}, "ceramic": {"roughness": 0.3}, "glass": {"roughness": 0.3}}
WOODS = {"light": (205, 160, 105), "": (160, 105, 60), "dark": (95, 58, 34)}

# Objaverse's own licence codes and about their shares, the rarer ones more often than there.
LICENSES = {"by": 0.7, "by-nc": 0.08, "by-nc-sa": 0.08, "by-sa": 0.07, "cc0": 0.07}
MAKERS = ("Ada Voss", "lowpoly_lena", "Kiln & Oak", "jmarten", "Studio Nine", "polyfox", "Oskar B.", "tinythings")


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a surface looks: a plain colour, a picture, or both multiplied; `per_vertex`: the colour is stored at the vertices."""

    rgb: tuple[int, int, int] = (255, 255, 255)
    picture: Image.Image | None = None
    repeats: int = 1
    per_vertex: bool = False
    metallic: float = 0.0
    roughness: float = 0.8


@dataclass(frozen=True, kw_only=True)
class MadeObject:
    """A made object: its scene (+y up, +z front) and what a person would publish it with.

    `category` is its kind, `lvis` the LVIS category (None: LVIS has none). `looks` says what its main look is in words ("red and
    white striped"), `subject` the same as a phrase ("red and white striped mug"), `details` what else is true of it.
    """

    scene: trimesh.Scene
    name: str
    tags: tuple[str, ...]
    categories: tuple[str, ...]
    description: str
    category: str
    lvis: str | None
    looks: str
    material: str | None
    subject: str
    details: tuple[str, ...]


def make_object(category: str, rng: Rng) -> MadeObject:
    """One object of a category of `CATEGORIES`."""
    kind = KINDS[category]
    looks, material, main, color = _main_look(kind, rng)
    trim = str(rng.choice([name for name in kind.trims if name != color] or kind.trims))
    build = Build()
    details = kind.recipe(build, rng)
    named = {"main": main, "trim": _plain(COLORS[trim], rng)}
    scene = _assemble(build, named, rng)
    if kind.main_part:
        details = (f"with {article(looks)} {looks} {kind.main_part}", *details)
        subject, material = kind.name, None  # the part's, not the object's
    else:
        subject = f"{looks} {kind.name}"
    made_of = f" made of {material}" if material and "wooden" not in looks else ""
    name = str(rng.choice(_names(kind, looks, subject, rng)))
    return MadeObject(
        scene=scene,
        name=name,
        tags=_tags(kind, looks, material, rng),
        categories=(kind.sketchfab,),
        description=_description(f"{article(subject).capitalize()} {subject}{made_of}", details, rng),
        category=kind.name,
        lvis=kind.lvis,
        looks=looks,
        material=material,
        subject=subject,
        details=details,
    )


def article(phrase: str) -> str:
    """ "a" or "an", as the phrase wants it."""
    return "an" if phrase[0] in "aeio" or phrase.startswith("umb") else "a"


def _names(kind: Kind, looks: str, subject: str, rng: Rng) -> list[str]:
    full = f"{kind.name} with {looks} {kind.main_part}" if kind.main_part else subject
    number = int(rng.integers(1, 9))
    return [full.capitalize(), full.title(), full, f"{kind.name.capitalize()} - {looks}", f"{kind.name.title()} {number:02d}",
            f"Low Poly {kind.name.title()}", f"{kind.name.replace(' ', '_')}_v{number}"]  # fmt: skip


def _tags(kind: Kind, looks: str, material: str | None, rng: Rng) -> tuple[str, ...]:
    words = [word for word in looks.split() if word not in ("and", "light", "dark")]
    others = [*words, *kind.also, "lowpoly", "3d", "asset", *([material] if material else [])]
    count = int(rng.integers(2, 7))
    picked = [others[i] for i in sorted(rng.permutation(len(others))[:count])]
    return tuple(dict.fromkeys([kind.name.replace(" ", ""), *picked]))


def _description(opening: str, details: tuple[str, ...], rng: Rng) -> str:
    tails = ("", "", " Low poly and game ready.", " My first model, feedback is welcome!", "<br>Free to use, please credit me.",
             " Modelled and textured in one evening.")  # fmt: skip
    ending = str(rng.choice(tails))
    if rng.random() < 0.12:
        return ""
    return f"{joined(opening, details)}.{ending}"


def joined(subject: str, details: Sequence[str]) -> str:
    """ "a mug", ("full of coffee", "with a lid", "with a handle") -> "a mug full of coffee with a lid and a handle"."""
    having = [detail.removeprefix("with ") for detail in details if detail.startswith("with ")]
    listed = f"with {', '.join(having[:-1])} and {having[-1]}" if len(having) > 1 else "".join(f"with {part}" for part in having)
    return " ".join([subject, *(detail for detail in details if not detail.startswith("with ")), *([listed] if listed else [])])


# Looks


def _main_look(kind: Kind, rng: Rng) -> tuple[str, str | None, Look, str | None]:
    """The main look: in words, its material (or None), how it is drawn, and its colour's name (None: wood)."""
    finish = str(rng.choice(kind.finishes))
    if finish == "wooden":
        tone = str(rng.choice(tuple(WOODS)))
        picture = _wood(_varied(WOODS[tone], rng), rng)
        return f"{tone} wooden".strip(), "wood", Look(picture=picture, repeats=1), None
    material = str(rng.choice(kind.materials)) if kind.materials else None
    shine = SHINE.get(material, {})
    color = str(rng.choice(kind.colors or MAIN_COLORS))
    rgb = _varied(COLORS[color], rng)
    if finish == "plain":
        way = rng.choice(("factor", "factor", "vertex", "picture"))
        if way == "picture":
            return color, material, Look(picture=_mottled(rgb, rng), **shine), color
        return color, material, Look(rgb=rgb, per_vertex=bool(way == "vertex"), **shine), color
    repeats = int(rng.integers(2, 5))
    if rng.random() < 0.3:  # two tones of one colour: a grey picture, multiplied by the colour
        picture = _pattern(finish, (255, 255, 255), (95, 95, 95), rng)
        return f"{color} {finish}", material, Look(rgb=rgb, picture=picture, repeats=repeats, **shine), color
    second = str(rng.choice([c for c in ("white", "white", "yellow", "black", "blue") if c != color]))
    picture = _pattern(finish, rgb, COLORS[second], rng)
    return f"{color} and {second} {finish}", material, Look(picture=picture, repeats=repeats, **shine), color


def _plain(rgb: tuple[int, int, int], rng: Rng) -> Look:
    return Look(rgb=_varied(rgb, rng), per_vertex=bool(rng.random() < 0.15))


def _varied(rgb: tuple[int, int, int], rng: Rng) -> tuple[int, int, int]:
    """The colour, a little off."""
    red, green, blue = np.clip(np.array(rgb) * rng.uniform(0.9, 1.1) + rng.uniform(-5, 5, 3), 0, 255).astype(int).tolist()
    return red, green, blue


def _pattern(finish: str, first: tuple, second: tuple, rng: Rng, size: int = 64) -> Image.Image:
    """A tile that repeats without a seam: striped, checkered or dotted, `first` the main colour."""
    y, x = np.mgrid[:size, :size] / size
    if finish == "striped":
        marked = (x if rng.random() < 0.35 else y) % 1.0 < rng.uniform(0.35, 0.5)
    elif finish == "checkered":
        marked = (x < 0.5) ^ (y < 0.5)
    elif finish == "dotted":
        radius = rng.uniform(0.2, 0.28)
        marked = (np.hypot(x - 0.25, y - 0.25) < radius * 0.8) | (np.hypot(x - 0.75, y - 0.75) < radius * 0.8)
    else:
        raise ValueError(f"no pattern is called {finish!r}")
    return Image.fromarray(np.where(marked[..., None], np.uint8(second), np.uint8(first)))


def _waves(rng: Rng, size: int, across: int, along: int) -> np.ndarray:
    """A smooth random field in about -1..1 that repeats without a seam."""
    y, x = np.mgrid[:size, :size] * (2 * np.pi / size)
    total = np.zeros((size, size))
    for _ in range(6):
        u, v = int(rng.integers(-across, across + 1)), int(rng.integers(-along, along + 1))
        total += np.cos(u * x + v * y + rng.uniform(0, 2 * np.pi))
    return total / 3


def _mottled(rgb: tuple[int, int, int], rng: Rng, size: int = 64) -> Image.Image:
    shade = np.round(_waves(rng, size, 5, 5) * 3) / 3 * 0.06
    return Image.fromarray(np.clip(np.array(rgb) * (1 + shade[..., None]), 0, 255).astype(np.uint8))


def _wood(rgb: tuple[int, int, int], rng: Rng, size: int = 96) -> Image.Image:
    """Grain along y: rings, bent by slow waves, in eight shades so that the picture stays small."""
    x = np.mgrid[:size, :size][1] / size
    grain = np.sin(2 * np.pi * (int(rng.integers(4, 7)) * x) + 2.2 * _waves(rng, size, 1, 2)) + 0.4 * _waves(rng, size, 12, 1)
    shade = np.round(grain * 4) / 4 * 0.17
    return Image.fromarray(np.clip(np.array(rgb) * (1 + shade[..., None]), 0, 255).astype(np.uint8))


# Scenes


def _assemble(build: Build, named: dict[str, Look], rng: Rng) -> trimesh.Scene:
    """The parts as nodes under one root whose own transform (unit, up axis) the parts undo, as exporters leave it."""
    unit = float(rng.choice((1.0, 0.01, 100.0)))
    root = np.eye(4)
    if rng.random() < 0.5:
        root = trimesh.transformations.rotation_matrix(-np.pi / 2, (1, 0, 0)).round(12)
    root[:3, :3] *= unit
    inverse = np.linalg.inv(root)
    scene = trimesh.Scene(base_frame="world")
    scene.graph.update(frame_from="world", frame_to="Sketchfab_model", matrix=root)
    materials: dict[str, PBRMaterial] = {}
    for number, (name, surface, color, places) in enumerate(build.parts):
        if color not in named:
            named[color] = Look(rgb=COLORS[color])
        mesh = _mesh(surface, color, named[color], materials)
        key = f"{number:02d} {name}"
        scene.geometry[key] = mesh
        for copy, place in enumerate(places):
            node = key if copy == 0 else f"{key}.{copy:03d}"
            scene.graph.update(frame_from="Sketchfab_model", frame_to=node, matrix=inverse @ place, geometry=key)
    return scene


def _mesh(surface: Surface, name: str, look: Look, materials: dict[str, PBRMaterial]) -> trimesh.Trimesh:
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, vertex_normals=surface.normals, process=False)
    linear = _linear(look.rgb)
    if look.per_vertex:
        mesh.visual = ColorVisuals(mesh, vertex_colors=np.tile(linear, (len(surface.vertices), 1)))
        return mesh
    if name not in materials:
        materials[name] = PBRMaterial(
            name=name,
            baseColorFactor=linear,
            baseColorTexture=look.picture,
            metallicFactor=look.metallic,
            roughnessFactor=look.roughness,
        )
    uv = surface.uv * look.repeats if look.picture else None
    mesh.visual = TextureVisuals(uv=uv, material=materials[name])
    return mesh


def _linear(rgb: tuple[int, int, int]) -> np.ndarray:
    """sRGB 0..255 to the linear RGBA 0..255 that glTF wants in factors and vertex colours."""
    linear = linear_from_srgb(np.array(rgb) / 255)
    return np.append(np.round(linear * 255), 255).astype(np.uint8)


# The collection


def write_objaverse(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Makes `count` objects and writes them in Objaverse 1.0's layout; the categories take turns. Returns their uids in order.

    glbs/000-000/UID.glb  metadata/000-000.json.gz  object-paths.json.gz  lvis-annotations.json.gz
    """
    shard = folder / "glbs" / "000-000"
    shard.mkdir(parents=True, exist_ok=True)
    annotations, lvis = {}, {}
    for uid, made in made_objects(count, seed):
        glb = made.scene.export(file_type="glb", include_normals=True)
        (shard / f"{uid}.glb").write_bytes(glb)
        annotations[uid] = _annotation(uid, made, glb)
        if made.lvis:
            lvis.setdefault(made.lvis, []).append(uid)
    _write_index(folder, annotations, lvis)
    return list(annotations)


def made_objects(count: int, seed: int) -> Iterator[tuple[str, MadeObject]]:
    """The uid and object of each of `count` objects, one after the other."""
    order = np.random.default_rng([seed, 0]).permutation(len(CATEGORIES))
    for number in range(count):
        category = CATEGORIES[order[number % len(CATEGORIES)]]
        uid = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=16).hexdigest()
        yield uid, make_object(category, np.random.default_rng([seed, 1, number]))


def write_broken(folder: Path, seed: int = 0) -> list[str]:
    """Adds two assets that no importer can use, listed like the others: a GLB cut in half, and one without any face."""
    annotations = json.loads(gzip.decompress((folder / "metadata" / "000-000.json.gz").read_bytes()))
    lvis = json.loads(gzip.decompress((folder / "lvis-annotations.json.gz").read_bytes()))
    made = make_object("chair", np.random.default_rng([seed, 2]))
    whole = made.scene.export(file_type="glb", include_normals=True)
    for word, glb in (("truncated", whole[: len(whole) // 2]), ("faceless", _without_faces())):
        uid = hashlib.blake2b(f"{seed} {word}".encode(), digest_size=16).hexdigest()
        (folder / "glbs" / "000-000" / f"{uid}.glb").write_bytes(glb)
        annotations[uid] = _annotation(uid, made, glb)
    _write_index(folder, annotations, lvis)
    return list(annotations)[-2:]


def _without_faces() -> bytes:
    """A GLB that is sound and holds one empty node."""
    content = json.dumps({"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"name": "empty"}]})
    content += " " * (-len(content) % 4)
    header = b"glTF" + np.array([2, 20 + len(content), len(content)], "<u4").tobytes() + b"JSON"
    return header + content.encode()


def _write_index(folder: Path, annotations: dict[str, Any], lvis: dict[str, list[str]]) -> None:
    (folder / "metadata").mkdir(exist_ok=True)
    for path, content in (
        ("metadata/000-000.json.gz", annotations),
        ("object-paths.json.gz", {uid: f"glbs/000-000/{uid}.glb" for uid in annotations}),
        ("lvis-annotations.json.gz", dict(sorted(lvis.items()))),
    ):
        (folder / path).write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))


def _annotation(uid: str, made: MadeObject, glb: bytes) -> dict[str, Any]:
    """The object's entry in Objaverse's metadata, with the fields of the real ones."""
    rng = np.random.default_rng(int(uid, 16))
    faces = sum(len(made.scene.geometry[made.scene.graph[node][1]].faces) for node in made.scene.graph.nodes_geometry)
    vertices = sum(len(made.scene.geometry[made.scene.graph[node][1]].vertices) for node in made.scene.graph.nodes_geometry)
    pictures = {id(g.visual.material) for g in made.scene.geometry.values() if getattr(g.visual, "uv", None) is not None}
    maker = str(rng.choice(MAKERS))
    username = "".join(c for c in maker.lower() if c.isalnum())
    date = f"20{rng.integers(17, 23)}-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}T{rng.integers(24):02d}:20:30.000000"
    archive = {"textureCount": len(pictures), "size": len(glb), "type": "glb", "textureMaxResolution": 96 if pictures else 0,
               "faceCount": faces, "vertexCount": vertices}  # fmt: skip
    return {
        "uri": f"https://api.sketchfab.com/v3/models/{uid}",
        "uid": uid,
        "name": made.name,
        "staffpickedAt": None,
        "viewCount": int(rng.integers(3, 5000)),
        "likeCount": int(rng.integers(0, 60)),
        "animationCount": 0,
        "viewerUrl": f"https://sketchfab.com/3d-models/{uid}",
        "embedUrl": f"https://sketchfab.com/models/{uid}/embed",
        "commentCount": int(rng.integers(0, 5)),
        "isDownloadable": True,
        "publishedAt": date,
        "tags": [{"name": tag, "slug": tag, "uri": f"https://api.sketchfab.com/v3/tags/{tag}"} for tag in made.tags],
        "categories": [{"name": name} for name in made.categories],
        "thumbnails": {"images": []},
        "user": {
            "uid": hashlib.blake2b(username.encode(), digest_size=16).hexdigest(),
            "username": username,
            "displayName": maker,
            "profileUrl": f"https://sketchfab.com/{username}",
            "account": "basic",
            "uri": f"https://api.sketchfab.com/v3/users/{username}",
        },
        "description": made.description,
        "faceCount": faces,
        "createdAt": date,
        "vertexCount": vertices,
        "isAgeRestricted": False,
        "archives": {"glb": archive},
        "license": str(rng.choice(tuple(LICENSES), p=tuple(LICENSES.values()))),
    }
