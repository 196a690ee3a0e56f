"""Runs inside Blender: how a material's colour and alpha come about, read from its node tree as the paints of pipeline.mesh."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import bpy
from mathutils import Matrix, Vector

# Name of the white picture that stands for textures which cannot be read.
MISSING = "missing texture"

WHITE = {"kind": "constant", "value": [1.0, 1.0, 1.0, 1.0]}
BLACK = {"kind": "constant", "value": [0.0, 0.0, 0.0, 1.0]}

# The input of each shader that holds its colour.
SHADER_COLOR = {
    "BSDF_PRINCIPLED": "Base Color",
    "EEVEE_SPECULAR": "Base Color",
    "PRINCIPLED_HAIR": "Color",
    **dict.fromkeys(
        "BSDF_DIFFUSE BSDF_GLOSSY BSDF_METALLIC BSDF_GLASS BSDF_REFRACTION BSDF_TRANSLUCENT BSDF_SHEEN BSDF_TOON BSDF_HAIR "
        "SUBSURFACE_SCATTERING EMISSION BACKGROUND".split(),
        "Color",
    ),
}
_MATH = {
    operation: operation.lower()
    for operation in "ADD SUBTRACT MULTIPLY DIVIDE MULTIPLY_ADD POWER SQRT MINIMUM MAXIMUM LESS_THAN GREATER_THAN ABSOLUTE ROUND "
    "FLOOR CEIL FRACT MODULO WRAP PINGPONG".split()
}
_VECTOR_MATH = {
    operation: operation.lower()
    for operation in "ADD SUBTRACT MULTIPLY DIVIDE MULTIPLY_ADD MINIMUM MAXIMUM ABSOLUTE FLOOR CEIL FRACTION MODULO WRAP".split()
} | {"FRACTION": "fract"}
_BLENDS = set("MIX MULTIPLY ADD SUBTRACT SCREEN DIVIDE DIFFERENCE DARKEN LIGHTEN OVERLAY".split())
_LUMINANCE = (0.2126, 0.7152, 0.0722)
_AVERAGE = (1 / 3, 1 / 3, 1 / 3)


@dataclass(frozen=True)
class Picture:
    """A picture as a material uses it: `alpha` is "straight", "ignored", or "multiplied" into the colour."""

    image: bpy.types.Image
    alpha: str


class Materials:
    """The materials met so far, in the order of their index; of each, the paints and the layers they read."""

    def __init__(self):
        self.found: list[dict] = []
        self.not_understood: set[str] = set()
        self.layers: list[dict[str, set[str]]] = []
        self.images: list[Picture] = []
        self._indices: dict[str, int] = {}

    def index(self, material: bpy.types.Material | None) -> int:
        """Its index into `found`; -1 for none."""
        if material is None:
            return -1
        name = material.name_full
        if name not in self._indices:
            tree = _Tree(self.images)
            color, alpha = tree.surface(material.original)
            self._indices[name] = len(self.found)
            self.found.append({"name": name, "color": color, "alpha": alpha, "guessed": tree.guessed})
            if tree.not_understood:
                self.not_understood.add(name)
            paints = list(_all_paints([color, alpha]))
            self.layers.append({kind: {p["name"] for p in paints if p["kind"] == kind} for kind in ("uv", "attribute")})
        return self._indices[name]


def _all_paints(paints: Iterable[dict]) -> Iterable[dict]:
    for paint in paints:
        yield paint
        for value in paint.values():
            if isinstance(value, dict):
                yield from _all_paints([value])
            elif isinstance(value, list) and value and isinstance(value[0], dict):
                yield from _all_paints(value)


class _CannotFollow(Exception):
    """Names a node that has no counterpart among the paints."""


@dataclass
class _Tree:
    """Reads a material's node tree backwards, from the output to what its colour comes from."""

    images: list[Picture]
    guessed: list[str] = field(default_factory=list)
    not_understood: bool = False  # the material, or a part of it

    def surface(self, material: bpy.types.Material) -> tuple[dict, dict]:
        """The paints of colour and alpha."""
        if not material.use_nodes:
            self._give_up("no nodes: viewport colour")  # a shader of USD that Blender does not know
            return _constant(material.diffuse_color), WHITE
        output = material.node_tree.get_output_node("CYCLES")
        if output is None or not output.inputs["Surface"].is_linked:
            self._give_up("no surface: viewport colour")
            return _constant(material.diffuse_color), WHITE
        return self._shader(output.inputs["Surface"], ())

    def _shader(self, socket: bpy.types.NodeSocket, groups: tuple) -> tuple[dict, dict]:
        """Colour and alpha of the shader that arrives at a socket."""
        source, _, groups = _source(socket, groups)
        if source is None:
            return BLACK, WHITE  # what Blender renders
        node = source.node
        if node.type in SHADER_COLOR:
            color = self.value(node.inputs[SHADER_COLOR[node.type]], groups)
            return color, self.value(node.inputs["Alpha"], groups) if "Alpha" in node.inputs else WHITE
        if node.type in {"BSDF_TRANSPARENT", "HOLDOUT"}:
            return WHITE, BLACK
        if node.type == "MIX_SHADER":
            factor = self.value(node.inputs[0], groups)
            (color_a, alpha_a), (color_b, alpha_b) = (self._shader(node.inputs[i], groups) for i in (1, 2))
            alpha = _mix(factor, alpha_a, alpha_b)
            if alpha_a == BLACK or alpha_b == BLACK:
                return (color_b if alpha_a == BLACK else color_a), alpha
            return _mix(factor, color_a, color_b), alpha
        if node.type == "ADD_SHADER":
            (color_a, alpha_a), (color_b, alpha_b) = (self._shader(node.inputs[i], groups) for i in (0, 1))
            if alpha_a == BLACK or alpha_b == BLACK:
                return (color_b, alpha_b) if alpha_a == BLACK else (color_a, alpha_a)
            return _math("add", color_a, color_b), _math("maximum", alpha_a, alpha_b)
        self._give_up(f"{node.bl_label} node: white")
        return WHITE, WHITE

    def _give_up(self, guessed: str) -> None:
        self.not_understood = True
        self.guessed.append(guessed)

    def value(self, socket: bpy.types.NodeSocket, groups: tuple) -> dict:
        """The paint that arrives at an input socket, as a value of the socket's type."""
        source, end, groups = _source(socket, groups)
        if source is not None:
            try:
                return _converted(self._output(source, groups), source.type, socket.type)
            except _CannotFollow as node:
                self._give_up(f"{node} at {end.name}")
        return _converted(_constant(end.default_value), end.type, socket.type)

    def _output(self, source: bpy.types.NodeSocket, groups: tuple) -> dict:
        """The paint that leaves an output socket."""
        node = source.node

        def value(key):
            return self.value(node.inputs[key], groups)

        match node.type:
            case "RGB" | "VALUE":
                return _constant(source.default_value)
            case "TEX_IMAGE":
                paint = self._texture(node, groups)
                return _channel(paint, 3) if source.name == "Alpha" else paint
            case "VERTEX_COLOR" | "ATTRIBUTE":
                if node.type == "ATTRIBUTE" and node.attribute_type != "GEOMETRY":
                    raise _CannotFollow(f"attribute of {node.attribute_type.lower()}")
                name = node.layer_name if node.type == "VERTEX_COLOR" else node.attribute_name
                paint = {"kind": "attribute", "name": name}
                return {"Alpha": _channel(paint, 3), "Fac": _grey(paint, _AVERAGE)}.get(source.name, paint)
            case "UVMAP":
                return {"kind": "uv", "name": node.uv_map}
            case "TEX_COORD" if source.name == "UV":
                return {"kind": "uv", "name": ""}
            case "MAPPING":
                return {"kind": "affine", "of": value("Vector"), "matrix": _mapping(node)}
            case "LIGHT_PATH":
                return WHITE if source.name == "Is Camera Ray" else BLACK
            case "NEW_GEOMETRY" if source.name == "Backfacing":
                return BLACK
            case "MIX":
                return self._mix_node(node, groups)
            case "MIX_RGB":
                if node.blend_type not in _BLENDS:
                    raise _CannotFollow(f"blend {node.blend_type.lower()}")
                return _mix(value("Fac"), value("Color1"), value("Color2"), node.blend_type, clamp=node.use_clamp)
            case "MATH" if node.operation in _MATH:
                operands = [self.value(socket, groups) for socket in node.inputs if socket.enabled]
                return _math(_MATH[node.operation], *operands, clamp=node.use_clamp)
            case "VECT_MATH" if node.operation in _VECTOR_MATH:
                operands = [self.value(socket, groups) for socket in node.inputs if socket.enabled]
                return _math(_VECTOR_MATH[node.operation], *operands)
            case "VECT_MATH" if node.operation == "SCALE":
                return _math("multiply", value("Vector"), value("Scale"))
            case "CLAMP" if node.clamp_type == "MINMAX":
                return _math("minimum", _math("maximum", value("Value"), value("Min")), value("Max"))
            case "GAMMA":
                return _math("power", value("Color"), value("Gamma"))
            case "INVERT":
                return _mix(value("Fac"), value("Color"), _math("subtract", WHITE, value("Color")))
            case "RGBTOBW":
                return _grey(value("Color"), _LUMINANCE)
            case "SEPRGB" | "SEPXYZ" | "SEPARATE_COLOR" if getattr(node, "mode", "RGB") == "RGB":
                return _channel(value(0), list(node.outputs).index(source))
            case "COMBRGB" | "COMBXYZ" | "COMBINE_COLOR" if getattr(node, "mode", "RGB") == "RGB":
                return {"kind": "combine", "channels": [value(0), value(1), value(2)]}
        raise _CannotFollow(f"{node.bl_label} node")

    def _mix_node(self, node: bpy.types.Node, groups: tuple) -> dict:
        kind = {"RGBA": "Color", "FLOAT": "Float", "VECTOR": "Vector"}.get(node.data_type)
        if kind is None or (kind == "Color" and node.blend_type not in _BLENDS):
            raise _CannotFollow(f"blend {node.blend_type.lower()}")
        sockets = {socket.identifier: socket for socket in node.inputs}
        per_channel = kind == "Vector" and node.factor_mode == "NON_UNIFORM"
        factor = self.value(sockets["Factor_Vector" if per_channel else "Factor_Float"], groups)
        if node.clamp_factor:
            factor = _math("minimum", _math("maximum", factor, BLACK), WHITE)
        a, b = (self.value(sockets[f"{end}_{kind}"], groups) for end in "AB")
        blend = node.blend_type if kind == "Color" else "MIX"
        return _mix(factor, a, b, blend, clamp=kind == "Color" and node.clamp_result)

    def _texture(self, node: bpy.types.Node, groups: tuple) -> dict:
        if node.image is None or not readable(node.image) or node.image.name == MISSING:
            self.guessed.append("a texture that cannot be read: white")
            return WHITE
        if node.projection != "FLAT":
            raise _CannotFollow(f"texture by {node.projection.lower()} projection")
        vector = self.value(node.inputs["Vector"], groups) if node.inputs["Vector"].is_linked else {"kind": "uv", "name": ""}
        mode = node.image.alpha_mode
        # Cycles hands out colour times alpha, unless the node's alpha is used as well or the file holds data in all channels.
        multiplied = mode in {"STRAIGHT", "PREMUL"} and not node.outputs["Alpha"].is_linked
        image = Picture(node.image, "ignored" if mode == "NONE" else "multiplied" if multiplied else "straight")
        if image not in self.images:
            self.images.append(image)
        space = node.image.colorspace_settings
        # Blender keeps pictures of more than 8 bits linear.
        srgb = not (space.is_data or node.image.is_float or space.name in {"Non-Color", "Raw", "Linear Rec.709"})
        if srgb and space.name != "sRGB":
            self.guessed.append(f"colour space {space.name}: sRGB")
        return {
            "kind": "texture",
            "image": self.images.index(image),
            "vector": vector,
            "srgb": srgb,
            "extend": {"REPEAT": "repeat", "EXTEND": "clamp", "CLIP": "clip", "MIRROR": "mirror"}[node.extension],
            "interpolation": "nearest" if node.interpolation == "Closest" else "linear",
        }


def _source(socket: bpy.types.NodeSocket, groups: tuple):
    """What feeds an input socket, through reroutes and in and out of node groups.

    The output socket (None: nothing does), the input socket at the end of the way, and the groups that they lie in.
    """
    while socket.is_linked:
        source = socket.links[0].from_socket
        node = source.node
        if node.type == "REROUTE":
            socket = node.inputs[0]
        elif node.type == "GROUP" and node.node_tree is not None:
            output = next((n for n in node.node_tree.nodes if n.type == "GROUP_OUTPUT" and n.is_active_output), None)
            if output is None:
                return None, socket, groups
            socket, groups = _same(output.inputs, source), (*groups, node)
        elif node.type == "GROUP_INPUT":
            socket, groups = _same(groups[-1].inputs, source), groups[:-1]
        else:
            return source, socket, groups
    return None, socket, groups


def _same(sockets, socket: bpy.types.NodeSocket) -> bpy.types.NodeSocket:
    """The other face of a group's socket."""
    return next(other for other in sockets if other.identifier == socket.identifier)


def _constant(value) -> dict:
    numbers = [float(value)] * 3 if isinstance(value, (int, float)) else [float(v) for v in value]
    return {"kind": "constant", "value": [*numbers, 1.0][:4]}


def _channel(paint: dict, channel: int) -> dict:
    return {"kind": "channel", "of": paint, "channel": channel}


def _grey(paint: dict, weights: tuple[float, ...]) -> dict:
    return {"kind": "grey", "of": paint, "weights": list(weights)}


def _math(operation: str, *operands: dict, clamp: bool = False) -> dict:
    return {"kind": "math", "operation": operation, "operands": list(operands), "clamp": clamp}


def _mix(factor: dict, a: dict, b: dict, blend: str = "MIX", *, clamp: bool = False) -> dict:
    return {"kind": "mix", "blend": blend.lower(), "factor": factor, "a": a, "b": b, "clamp": clamp}


def _converted(paint: dict, source: str, target: str) -> dict:
    """What Blender does where a link joins sockets of two types."""
    if target == "VALUE" and source in {"RGBA", "VECTOR"}:
        return _grey(paint, _LUMINANCE if source == "RGBA" else _AVERAGE)
    return paint


def _mapping(node: bpy.types.Node) -> list[list[float]]:
    """The 3x4 matrix of a Mapping node."""
    if any(node.inputs[name].is_linked for name in ("Location", "Rotation", "Scale") if name in node.inputs):
        raise _CannotFollow("Mapping node with linked values")
    location = Vector(node.inputs["Location"].default_value) if "Location" in node.inputs else Vector((0, 0, 0))
    matrix = Matrix.LocRotScale(location, node.inputs["Rotation"].default_value, node.inputs["Scale"].default_value)
    if node.vector_type == "TEXTURE":
        matrix = matrix.inverted_safe()
    elif node.vector_type == "NORMAL":
        raise _CannotFollow("Mapping node of normals")
    return [list(row) for row in matrix[:3]]


def readable(image: bpy.types.Image) -> bool:
    """Whether Blender has pixels for an image (it loads them for the answer)."""
    return min(image.size) > 0
