"""A gallery: small assets that each show one thing which renderers get wrong, and what must be true of their pictures.

Most show the same still life, a box with a ball on it, so that their pictures can be compared.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.made.solids import Surface, ball, box, tube
from pipeline.points import linear_from_srgb

BOX = (1.2, 0.8, 1.0)  # extents of the still life's box, which stands on y = 0 with its centre on the y axis
BALL = 0.45  # radius of the ball on it

# sRGB, 0..1. In exhibits where something must not be seen, it is blue and the rest is yellow.
WHITE, GREY, BLACK = (1.0, 1.0, 1.0), (0.5, 0.5, 0.5), (0.0, 0.0, 0.0)
RED, BLUE, YELLOW, GOLD = (0.8, 0.1, 0.1), (0.1, 0.1, 0.8), (0.8, 0.7, 0.1), (1.0, 0.85, 0.55)

COMPONENT = {"<f4": 5126, "<u4": 5125, "u1": 5121}
SHAPE = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
NEAREST = 9728  # texels stay squares


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """An asset of the gallery: what must be true of its views, and what makes its files, by name, the asset first."""

    name: str
    truth: str
    files: Callable[[], dict[str, bytes]]

    def write(self, folder: Path) -> Path:
        """Puts its files into a folder of its own in `folder`; the one to be opened."""
        here = folder / self.name
        here.mkdir(parents=True)
        made = self.files()
        for name, content in made.items():
            (here / name).write_bytes(content)
        return here / next(iter(made))


class Gltf:
    """A glTF file in the making. What a method adds, it returns the number of."""

    def __init__(self):
        self.document: dict[str, Any] = {"asset": {"version": "2.0"}, "scene": 0}
        self._binary = bytearray()

    def add(self, kind: str, **entry) -> int:
        """An entry of one of the document's lists."""
        entries = self.document.setdefault(kind, [])
        entries.append(entry)
        if used := entry.get("extensions"):
            self.document["extensionsUsed"] = sorted({*self.document.get("extensionsUsed", []), *used})
        return len(entries) - 1

    def numbers(self, values, type: str = "<f4") -> int:
        """An accessor."""
        array = np.asarray(values, dtype=type)
        array = array.reshape(len(array), -1)
        return self.add(
            "accessors",
            bufferView=self._view(array.tobytes()),
            componentType=COMPONENT[type],
            count=len(array),
            type=SHAPE[array.shape[1]],
            min=array.min(axis=0).tolist(),
            max=array.max(axis=0).tolist(),
        )

    def texture(self, picture: Image.Image) -> int:
        """A texture."""
        file = io.BytesIO()
        picture.save(file, "PNG")
        image = self.add("images", bufferView=self._view(file.getvalue()), mimeType="image/png")
        return self.add("textures", source=image, sampler=self.add("samplers", magFilter=NEAREST, minFilter=NEAREST))

    def material(self, color=WHITE, *, alpha=1.0, metallic=0.0, roughness=0.8, texture: int | None = None, **more) -> int:
        """A material; `color` in sRGB, `more` as in glTF."""
        factor = [*linear_from_srgb(np.array(color)).tolist(), alpha]
        pbr = {"baseColorFactor": factor, "metallicFactor": metallic, "roughnessFactor": roughness}
        if texture is not None:
            pbr["baseColorTexture"] = {"index": texture}
        return self.add("materials", pbrMetallicRoughness=pbr, **more)

    def part(self, surface: Surface, material: int | None = None, *, normals: bool = True, **attributes: int) -> dict[str, Any]:
        """A primitive, with further attributes if given."""
        attributes |= {"POSITION": self.numbers(surface.vertices), "TEXCOORD_0": self.numbers(surface.uv * (1, -1))}
        if normals:
            attributes["NORMAL"] = self.numbers(surface.normals)
        made = {"attributes": attributes, "indices": self.numbers(surface.faces.reshape(-1, 1), "<u4")}
        return made if material is None else made | {"material": material}

    def show(self, part: dict[str, Any], **node) -> int:
        """A node with a mesh of one primitive."""
        return self.add("nodes", mesh=self.add("meshes", primitives=[part]), **node)

    def glb(self) -> bytes:
        """The file. Unless it has scenes already, it has one, of all nodes that are nobody's children."""
        if "scenes" not in self.document:
            children = {child for node in self.document["nodes"] for child in node.get("children", [])}
            self.add("scenes", nodes=[number for number in range(len(self.document["nodes"])) if number not in children])
        document = self.document | {"buffers": [{"byteLength": len(self._binary)}]}
        text = json.dumps(document).encode()
        chunks = _chunk(b"JSON", text + b" " * (-len(text) % 4))
        chunks += _chunk(b"BIN\0", bytes(self._binary) + b"\0" * (-len(self._binary) % 4))
        return b"glTF" + np.array([2, 12 + len(chunks)], "<u4").tobytes() + chunks

    def _view(self, content: bytes) -> int:
        self._binary += b"\0" * (-len(self._binary) % 4) + content
        return self.add("bufferViews", buffer=0, byteOffset=len(self._binary) - len(content), byteLength=len(content))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return np.array([len(content)], "<u4").tobytes() + kind + content


# ------------------------------------------------------------------------------------------------------------ shapes


def still_life() -> Surface:
    """A box with a ball on it."""
    return joined(moved(box(*BOX), (0, BOX[1] / 2, 0)), moved(ball(BALL, 32, 16), (0, BOX[1] + BALL, 0)))


def sheet() -> Surface:
    """A rectangle without thickness in the plane z = 0, facing +z."""
    corners = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], dtype=np.float64)
    faces, normals = np.array([(0, 1, 2), (0, 2, 3)]), np.tile((0.0, 0.0, 1.0), (4, 1))
    return Surface(corners * (0.8, 0.6, 1), faces, normals, corners[:, :2] / 2 + 0.5)


def spring() -> Surface:
    """A thin wire, wound."""
    turns = np.linspace(0, 6 * np.pi, 120)
    return tube([(0.5 * np.cos(turn), turn / 12, 0.5 * np.sin(turn)) for turn in turns], 0.012, 6)


def joined(*surfaces: Surface) -> Surface:
    """Surfaces as one."""
    starts = np.cumsum([0, *(len(surface.vertices) for surface in surfaces[:-1])])
    faces = np.concatenate([surface.faces + start for surface, start in zip(surfaces, starts, strict=True)])
    vertices, normals, uv = (np.concatenate([getattr(s, name) for s in surfaces]) for name in ("vertices", "normals", "uv"))
    return Surface(vertices, faces, normals, uv)


def moved(surface: Surface, by: tuple[float, float, float]) -> Surface:
    """A surface at another place."""
    return replace(surface, vertices=surface.vertices + by)


def scaled(surface: Surface, by: tuple[float, float, float] | float) -> Surface:
    """A surface of another size; its normals stay."""
    return replace(surface, vertices=surface.vertices * by)


def inside_out(surface: Surface) -> Surface:
    """A surface whose faces and normals point inwards."""
    return replace(surface, faces=surface.faces[:, ::-1], normals=-surface.normals)


def checkers(first: tuple[int, ...], second: tuple[int, ...]) -> Image.Image:
    """Four by four squares of two colours (sRGB and perhaps alpha, 0..255)."""
    odd = np.indices((4, 4)).sum(axis=0) % 2
    return Image.fromarray(np.where(odd[..., None] == 1, np.uint8(second), np.uint8(first)))


# ------------------------------------------------------------------------------------------------------------ GLB


def _glb(name: str, truth: str, compose: Callable[[Gltf], object]) -> Exhibit:
    def files() -> dict[str, bytes]:
        gltf = Gltf()
        compose(gltf)
        return {f"{name}.glb": gltf.glb()}

    return Exhibit(name=name, truth=truth, files=files)


def _material(name: str, truth: str, **material) -> Exhibit:
    """The still life in one material."""
    return _glb(name, truth, lambda gltf: gltf.show(gltf.part(still_life(), gltf.material(**material))))


def _shape(name: str, truth: str, surface: Callable[[], Surface], *, normals: bool = True, **node) -> Exhibit:
    """A surface in yellow; `node`: what else its node has."""
    return _glb(name, truth, lambda gltf: gltf.show(gltf.part(surface(), gltf.material(YELLOW), normals=normals), **node))


def _scene(name: str, truth: str, add: Callable[[Gltf], object]) -> Exhibit:
    """The yellow still life, and what `add` puts into its file."""

    def compose(gltf: Gltf) -> None:
        gltf.show(gltf.part(still_life(), gltf.material(YELLOW)))
        add(gltf)

    return _glb(name, truth, compose)


def _pictured(surface: Surface, picture: Image.Image, **material) -> Callable[[Gltf], object]:
    return lambda gltf: gltf.show(gltf.part(surface, gltf.material(texture=gltf.texture(picture), **material)))


def _vertex_colored(**material) -> Callable[[Gltf], object]:
    """A still life with a red box and a blue ball."""

    def compose(gltf: Gltf) -> None:
        surface = still_life()
        on_ball = surface.vertices[:, 1:2] > BOX[1] + 1e-6
        colors = np.where(on_ball, linear_from_srgb(np.array(BLUE)), linear_from_srgb(np.array(RED)))
        gltf.show(gltf.part(surface, gltf.material(**material) if material else None, COLOR_0=gltf.numbers(colors)))

    return compose


def _blue(gltf: Gltf, radius: float = 1.0) -> dict[str, Any]:
    """A ball that is not to be seen."""
    return gltf.part(ball(radius), gltf.material(BLUE))


def _lights_and_cameras(gltf: Gltf) -> None:
    lights = [{"type": "directional", "intensity": 1000}, {"type": "point", "intensity": 1e6, "color": [1, 0, 0]}]
    gltf.document["extensions"] = {"KHR_lights_punctual": {"lights": lights}}
    for number in range(2):
        gltf.add("nodes", extensions={"KHR_lights_punctual": {"light": number}}, translation=[0, 5, 5])
    gltf.add("nodes", camera=gltf.add("cameras", type="perspective", perspective={"yfov": 1, "znear": 0.1}), translation=[0, 0, 9])


def _helpers(gltf: Gltf) -> None:
    """Empty nodes far away, one of which has a mesh and the size zero."""
    gltf.add("nodes", translation=[100, 0, 0])
    gltf.add("nodes", scale=[0, 0, 0], children=[gltf.show(_blue(gltf), translation=[9, 0, 0])])


def _scenes(gltf: Gltf) -> None:
    """The default scene is the second; a ball is in the first, another in none."""
    gltf.document |= {"scene": 1, "scenes": [{"nodes": [gltf.show(_blue(gltf), translation=[5, 0, 0])]}, {"nodes": [0]}]}
    gltf.show(_blue(gltf), translation=[-5, 0, 0])


def _invisible(gltf: Gltf) -> None:
    child = gltf.show(_blue(gltf))
    gltf.add("nodes", translation=[5, 0, 0], children=[child], extensions={"KHR_node_visibility": {"visible": False}})


def _animated(gltf: Gltf) -> None:
    """A second still life of its own: where the animation starts it stands beside the first, else below."""
    node = gltf.show(gltf.part(still_life(), 0), translation=[0, -9, 0])
    times, places = gltf.numbers([0, 0.5]), gltf.numbers([(2, 0, 0), (9, 0, 0)])
    channel = {"sampler": 0, "target": {"node": node, "path": "translation"}}
    gltf.add("animations", samplers=[{"input": times, "output": places}], channels=[channel])


def _morphed(gltf: Gltf) -> None:
    """Flat, but for a morph target at full weight."""
    surface = still_life()
    flat = scaled(surface, (1, 0.01, 1))
    part = gltf.part(flat, gltf.material(YELLOW)) | {"targets": [{"POSITION": gltf.numbers(surface.vertices - flat.vertices)}]}
    gltf.add("nodes", mesh=gltf.add("meshes", primitives=[part], weights=[1.0]))


def _skinned(gltf: Gltf) -> None:
    """Two joints hold box and ball. The mesh's own node would put it elsewhere, which must not count (glTF 2.0, 3.7.3.3)."""
    surface = still_life()
    joints = np.zeros((len(surface.vertices), 4))
    joints[:, 0] = surface.vertices[:, 1] > BOX[1] + 1e-6
    weights = np.tile((1.0, 0, 0, 0), (len(joints), 1))
    part = gltf.part(surface, gltf.material(YELLOW), JOINTS_0=gltf.numbers(joints, "u1"), WEIGHTS_0=gltf.numbers(weights))
    gltf.show(part, skin=0, translation=[7, 7, 7])
    tip = gltf.add("nodes", translation=[0, BOX[1], 0])
    root = gltf.add("nodes", children=[tip])
    to_joint = np.tile(np.eye(4), (2, 1, 1))
    to_joint[1, 3, 1] = -BOX[1]  # matrices of glTF run down the columns
    gltf.add("skins", joints=[root, tip], inverseBindMatrices=gltf.numbers(to_joint))


def _coincident(gltf: Gltf) -> None:
    for _ in range(2):
        gltf.show(gltf.part(still_life(), gltf.material(YELLOW)))


def _two_faced(gltf: Gltf) -> None:
    gltf.show(gltf.part(sheet(), gltf.material(RED)))
    gltf.show(gltf.part(inside_out(sheet()), gltf.material(BLUE)))


def _thread(gltf: Gltf) -> None:
    """A line and a point beside the object."""
    far = gltf.numbers([(5, 0, 0), (6, 0, 0)])
    for mode in (0, 1):
        gltf.show({"attributes": {"POSITION": far}, "mode": mode})


def _specular_glossiness(gltf: Gltf) -> None:
    color = [*linear_from_srgb(np.array(RED)).tolist(), 1.0]
    old = {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": color, "specularFactor": [0.04] * 3, "glossinessFactor": 0.2}}
    gltf.show(gltf.part(still_life(), gltf.material(extensions=old)))


# ------------------------------------------------------------------------------------------------------------ OBJ


def _obj(name: str, truth: str, mtl: str | None, used: str = "paint", surface: Callable[[], Surface] = still_life) -> Exhibit:
    """A surface in OBJ with the material `used` of this MTL (None: there is no such file)."""

    def files() -> dict[str, bytes]:
        shown = surface()
        lines = [f"mtllib {name}.mtl", *(f"v {x} {y} {z}" for x, y, z in shown.vertices), f"usemtl {used}"]
        lines += [f"f {a} {b} {c}" for a, b, c in shown.faces + 1]
        made = {f"{name}.obj": "\n".join(lines).encode()}
        return made if mtl is None else made | {f"{name}.mtl": f"newmtl paint\n{mtl}\n".encode()}

    return Exhibit(name=name, truth=truth, files=files)


SHOWN = "the yellow still life, and nothing else"
EXHIBITS = (
    # Materials
    _material("white", "its sides differ, none is burnt out", color=WHITE),
    _material("grey", "its sides differ", color=GREY),
    _material("black", "black, and still its sides differ", color=BLACK),
    _material("red", "red on all sides", color=RED),
    _material("metal-rough", "lighter and darker places, none black", color=GREY, metallic=1.0, roughness=0.5),
    _material("metal-mirror", "a mirror that shows something, nowhere black", color=WHITE, metallic=1.0, roughness=0.0),
    _material("metal-gold", "golden, nowhere black", color=GOLD, metallic=1.0, roughness=0.3),
    _material("metal-dark", "a dark mirror with its edges", color=(0.2, 0.2, 0.2), metallic=1.0, roughness=0.2),
    _material(
        "glass", "clear, with visible edges", roughness=0.0, extensions={"KHR_materials_transmission": {"transmissionFactor": 1}}
    ),
    _material(
        "glass-tinted",
        "red and clear",
        color=RED,
        roughness=0.1,
        extensions={
            "KHR_materials_transmission": {"transmissionFactor": 1},
            "KHR_materials_volume": {"thicknessFactor": 1, "attenuationDistance": 1, "attenuationColor": [1, 0.5, 0.5]},
        },
    ),
    _material("clearcoat", "red lacquer", color=RED, roughness=0.5, extensions={"KHR_materials_clearcoat": {"clearcoatFactor": 1}}),
    _material("emissive", "at least as bright as what it emits", color=BLACK, emissiveFactor=[0.0, 0.5, 0.0]),
    _material("unlit", "exactly its colour", color=(0.8, 0.4, 0.2), extensions={"KHR_materials_unlit": {}}),
    _glb("specular-glossiness", "red, although the materials of today say white", _specular_glossiness),
    _glb("no-material", "white, and its sides differ", lambda gltf: gltf.show(gltf.part(still_life()))),
    _glb("vertex-colors", "a red box and a blue ball", _vertex_colored()),
    _glb("vertex-colors-tinted", "the same at half the light", _vertex_colored(color=(0.735, 0.735, 0.735))),
    _glb("texture", "red and yellow squares", _pictured(still_life(), checkers((204, 25, 25), (204, 178, 25)))),
    _glb(
        "leaves",
        "squares, and holes between them",
        _pictured(sheet(), checkers((30, 120, 30, 255), (30, 120, 30, 60)), alphaMode="MASK", doubleSided=True),
    ),
    _glb(
        "blended",
        "squares, and others half clear",
        _pictured(sheet(), checkers((200, 30, 30, 255), (200, 30, 30, 128)), alphaMode="BLEND", doubleSided=True),
    ),
    _glb("opaque", "no holes: its alpha does not count", _pictured(sheet(), checkers((200, 30, 30, 255), (200, 30, 30, 60)))),
    _obj("obj-plain", SHOWN, "Kd 0.604 0.448 0.01\nKs 0.5 0.5 0.5\nNs 40\nillum 2"),
    _obj("obj-lacks-material", "grey", "Kd 0.604 0.448 0.01", used="gone"),
    _obj("obj-lacks-mtl", "grey", None),
    _obj("obj-black", "black, and still its sides differ", "Kd 0 0 0\nKs 0.5 0.5 0.5\nNs 50\nillum 2"),
    _obj("obj-mirror", "nowhere black", "Kd 0.5 0.5 0.5\nKs 1 1 1\nNs 900\nillum 3"),
    # Shapes
    _shape("plain", SHOWN, still_life),
    _shape("single-sided", "a yellow sheet, from behind as well", sheet),
    _shape("inside-out", SHOWN, lambda: inside_out(still_life())),
    _shape("mirrored", SHOWN, still_life, scale=[-1, 1, 1]),
    _shape("no-normals", SHOWN + ", in flat facets", still_life, normals=False),
    _shape("huge", SHOWN, lambda: scaled(still_life(), 1e6)),
    _shape("tiny", SHOWN, lambda: scaled(still_life(), 1e-6)),
    _shape("huge-node", SHOWN, still_life, scale=[1e6] * 3),
    _shape("tiny-node", SHOWN, still_life, scale=[1e-6] * 3),
    _shape("far-off", SHOWN, lambda: moved(still_life(), (2000, 0, -500))),
    _shape("far-off-node", SHOWN, still_life, translation=[2000, 0, -500]),
    _shape("wire", "an unbroken line", spring),
    _shape("thin-sheet", "a yellow sheet without specks", lambda: box(1.6, 1.2, 1e-4)),
    _glb("coincident", SHOWN + ", without specks", _coincident),
    _glb("two-faced", "a sheet: red from the front, blue from behind", _two_faced),
    # Scenes
    _scene("lights-and-cameras", SHOWN, _lights_and_cameras),
    _scene("helpers", SHOWN, _helpers),
    _scene("scenes", SHOWN, _scenes),
    _scene("invisible", SHOWN, _invisible),
    _scene("lines-and-points", SHOWN, _thread),
    _scene("animated", "two still lifes side by side", _animated),
    _glb("morphed", SHOWN, _morphed),
    _glb("skinned", SHOWN, _skinned),
)
