"""Runs inside Blender: small scenes, each put out by render/blender_mesh.py, and what Cycles renders of them.

    python tests/blender_scenes.py FOLDER

A scene is a function that builds one material on a square (-1..1 in x and y, seen from above) or a world of objects. For every
scene FOLDER/<name> holds the mesh, in Blender's axes; for the materials also rendered.npy, (SIZE, SIZE, 4) linear, alpha straight.
"""

import math
import sys
from pathlib import Path

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from render import blender_mesh  # noqa: E402

SIZE = 45  # odd, so that no pixel's centre lies on the border of two texels


class Tree:
    """The node tree of a material that shines in the colour wired to it."""

    def __init__(self, material, images):
        self.tree, self.images = material.node_tree, images
        self.tree.nodes.clear()
        self.output = self.node("ShaderNodeOutputMaterial").inputs["Surface"]
        self.emission = self.node("ShaderNodeEmission")
        self.wire(self.emission.outputs[0], self.output)
        self.color = self.emission.inputs["Color"]

    def node(self, kind, **values):
        node = self.tree.nodes.new(kind)
        for name, value in values.items():
            setattr(node, name, value)
        return node

    def wire(self, source, target):
        self.tree.links.new(source, target)

    def texture(self, name="noise", **values):
        return self.node("ShaderNodeTexImage", image=self.images[name], **values)

    def math(self, operation, *operands, kind="ShaderNodeMath"):
        """A node whose operands are sockets or numbers."""
        node = self.node(kind, operation=operation)
        for socket, operand in zip(node.inputs, operands, strict=False):
            self.feed(operand, socket)
        return node.outputs[0]

    def mix(self, blend, factor, a, b, **values):
        node = self.node("ShaderNodeMix", data_type="RGBA", blend_type=blend, **values)
        for identifier, operand in (("Factor_Float", factor), ("A_Color", a), ("B_Color", b)):
            self.feed(operand, next(socket for socket in node.inputs if socket.identifier == identifier))
        return next(socket for socket in node.outputs if socket.identifier == "Result_Color")

    def feed(self, operand, socket):
        if isinstance(operand, bpy.types.NodeSocket):
            self.wire(operand, socket)
        else:
            socket.default_value = operand

    def over_nothing(self, alpha):
        """Shine by `alpha`, be transparent for the rest."""
        mix = self.node("ShaderNodeMixShader")
        self.feed(alpha, mix.inputs[0])
        self.wire(self.node("ShaderNodeBsdfTransparent").outputs[0], mix.inputs[1])
        self.wire(self.emission.outputs[0], mix.inputs[2])
        self.wire(mix.outputs[0], self.output)


def pictures():
    """Made textures: bytes of noise 7 x 5 with and without alpha, and the same noise as float."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (5, 7, 4)).astype(np.float32) / 255
    solid = np.concatenate([noise[..., :3], np.ones((5, 7, 1), np.float32)], axis=2)
    return {
        "noise": picture("noise", solid),
        "alpha": picture("alpha", noise),
        "packed": picture("packed", noise, alpha_mode="CHANNEL_PACKED"),
        "ignored": picture("ignored", noise, alpha_mode="NONE"),
        "data": picture("data", solid, color_space="Non-Color"),
        "float": picture("float", solid, is_float=True),
    }


def picture(name, pixels, *, alpha_mode="STRAIGHT", color_space="sRGB", is_float=False):
    image = bpy.data.images.new(name, pixels.shape[1], pixels.shape[0], alpha=True, float_buffer=is_float)
    image.pixels.foreach_set(pixels.ravel())
    image.file_format = "OPEN_EXR" if is_float else "PNG"
    image.pack()  # a picture as a file brings it
    image.alpha_mode = alpha_mode
    if not is_float:
        image.colorspace_settings.name = color_space
    return image


# ------------------------------------------------------------------------------------------------------------- materials

MATERIALS = {}


def material(function):
    MATERIALS[function.__name__] = function
    return function


for _extension in ("REPEAT", "MIRROR", "EXTEND", "CLIP"):
    for _interpolation in ("Linear", "Closest"):

        def _extended(tree, extension=_extension, interpolation=_interpolation):
            tree.wire(tree.texture(extension=extension, interpolation=interpolation).outputs["Color"], tree.color)

        MATERIALS[f"{_extension.lower()}_{_interpolation.lower()}"] = _extended

for _blend in ("MIX", "MULTIPLY", "ADD", "SUBTRACT", "SCREEN", "DIVIDE", "DIFFERENCE", "DARKEN", "LIGHTEN", "OVERLAY"):

    def _blended(tree, blend=_blend):
        mixed = tree.mix(blend, 0.7, tree.texture().outputs["Color"], (0.3, 0.6, 0.1, 1), clamp_result=True)
        tree.wire(mixed, tree.color)

    MATERIALS[f"blend_{_blend.lower()}"] = _blended


@material
def factor_times_texture(tree):
    tree.wire(tree.mix("MULTIPLY", 1.0, tree.texture().outputs["Color"], (0.5, 0.25, 1.0, 1)), tree.color)


@material
def texture_is_data(tree):
    tree.wire(tree.texture("data").outputs["Color"], tree.color)


@material
def texture_is_float(tree):
    tree.wire(tree.texture("float").outputs["Color"], tree.color)


@material
def alpha_unused(tree):
    tree.wire(tree.texture("alpha").outputs["Color"], tree.color)


@material
def alpha_packed(tree):
    tree.wire(tree.texture("packed").outputs["Color"], tree.color)


@material
def alpha_ignored(tree):
    tree.wire(tree.texture("ignored").outputs["Color"], tree.color)


@material
def alpha_blended(tree):
    texture = tree.texture("packed", interpolation="Closest")
    tree.wire(texture.outputs["Color"], tree.color)
    tree.over_nothing(texture.outputs["Alpha"])


@material
def alpha_masked(tree):
    texture = tree.texture("packed")
    tree.wire(texture.outputs["Color"], tree.color)
    tree.over_nothing(tree.math("SUBTRACT", 1.0, tree.math("LESS_THAN", texture.outputs["Alpha"], 0.5)))


@material
def mapped(tree):
    texture, mapping = tree.texture(), tree.node("ShaderNodeMapping")
    mapping.inputs["Location"].default_value = (0.3, 0.1, 0)
    mapping.inputs["Rotation"].default_value = (0, 0, 0.5)
    mapping.inputs["Scale"].default_value = (1.7, 0.6, 1)
    tree.wire(tree.node("ShaderNodeUVMap", uv_map="second").outputs[0], mapping.inputs["Vector"])
    tree.wire(mapping.outputs[0], texture.inputs["Vector"])
    tree.wire(texture.outputs["Color"], tree.color)


@material
def mapped_as_texture(tree):
    texture, mapping = tree.texture(), tree.node("ShaderNodeMapping", vector_type="TEXTURE")
    mapping.inputs["Rotation"].default_value = (0, 0, -0.8)
    mapping.inputs["Scale"].default_value = (1.3, 0.4, 1)
    tree.wire(tree.node("ShaderNodeTexCoord").outputs["UV"], mapping.inputs["Vector"])
    tree.wire(mapping.outputs[0], texture.inputs["Vector"])
    tree.wire(texture.outputs["Color"], tree.color)


@material
def wrapped_each_way(tree):
    """As the glTF importer builds a sampler that repeats in u and mirrors in v."""
    texture = tree.texture(extension="EXTEND")
    parts, joined = tree.node("ShaderNodeSeparateXYZ"), tree.node("ShaderNodeCombineXYZ")
    tree.wire(tree.node("ShaderNodeUVMap", uv_map="first").outputs[0], parts.inputs[0])
    tree.wire(tree.math("WRAP", parts.outputs[0], 0.0, 1.0), joined.inputs[0])
    tree.wire(tree.math("PINGPONG", parts.outputs[1], 1.0), joined.inputs[1])
    tree.wire(joined.outputs[0], texture.inputs["Vector"])
    tree.wire(texture.outputs["Color"], tree.color)


@material
def vertex_color(tree):
    tree.wire(tree.node("ShaderNodeVertexColor").outputs["Color"], tree.color)


@material
def vertex_color_by_name(tree):
    tree.wire(tree.node("ShaderNodeVertexColor", layer_name="bytes").outputs["Color"], tree.color)


@material
def attribute_times_texture(tree):
    attribute = tree.node("ShaderNodeAttribute", attribute_name="floats").outputs["Color"]
    tree.wire(tree.mix("MULTIPLY", 1.0, tree.texture().outputs["Color"], attribute), tree.color)


@material
def attribute_that_is_absent(tree):
    tree.wire(tree.node("ShaderNodeAttribute", attribute_name="nowhere").outputs["Color"], tree.color)


@material
def channels_swapped(tree):
    parts, joined = tree.node("ShaderNodeSeparateColor"), tree.node("ShaderNodeCombineColor")
    tree.wire(tree.texture().outputs["Color"], parts.inputs[0])
    for source, target in ((0, 2), (1, 0), (2, 1)):
        tree.wire(parts.outputs[source], joined.inputs[target])
    tree.wire(joined.outputs[0], tree.color)


@material
def color_as_a_number(tree):
    tree.wire(tree.math("MULTIPLY_ADD", tree.texture().outputs["Color"], 0.8, 0.1), tree.color)


@material
def vector_as_a_number(tree):
    uv = tree.node("ShaderNodeUVMap", uv_map="second").outputs[0]
    tree.wire(tree.math("FRACT", uv), tree.color)


@material
def gamma_and_invert(tree):
    gamma, invert = tree.node("ShaderNodeGamma"), tree.node("ShaderNodeInvert")
    gamma.inputs["Gamma"].default_value, invert.inputs[0].default_value = 1.8, 0.75
    tree.wire(tree.texture().outputs["Color"], gamma.inputs["Color"])
    tree.wire(gamma.outputs[0], invert.inputs["Color"])
    tree.wire(invert.outputs[0], tree.color)


@material
def vector_math(tree):
    color = tree.texture().outputs["Color"]
    half = tree.math("MULTIPLY", color, (0.5, 0.25, 1.0), kind="ShaderNodeVectorMath")
    tree.wire(tree.math("MINIMUM", half, (0.2, 0.9, 0.4), kind="ShaderNodeVectorMath"), tree.color)


@material
def shaders_mixed(tree):
    tree.color.default_value = (0.2, 0.4, 0.8, 1)
    other, mix = tree.node("ShaderNodeEmission"), tree.node("ShaderNodeMixShader")
    other.inputs["Color"].default_value = (0.9, 0.1, 0.3, 1)
    tree.wire(tree.node("ShaderNodeVertexColor").outputs["Alpha"], mix.inputs[0])
    tree.wire(tree.emission.outputs[0], mix.inputs[1])
    tree.wire(other.outputs[0], mix.inputs[2])
    tree.wire(mix.outputs[0], tree.output)


@material
def through_groups_and_reroutes(tree):
    """A group in a group; the inner one halves, the outer one adds."""
    inner = group("inner", lambda nodes, color: nodes("MULTIPLY", color, (0.5, 0.5, 0.5)))

    def outer(nodes, color):
        held = nodes.tree.nodes.new("ShaderNodeGroup")
        held.node_tree = inner
        nodes.tree.links.new(color, held.inputs[0])
        return nodes("ADD", held.outputs[0], (0.1, 0.0, 0.2))

    node, reroute = tree.node("ShaderNodeGroup", node_tree=group("outer", outer)), tree.node("NodeReroute")
    tree.wire(tree.texture().outputs["Color"], reroute.inputs[0])
    tree.wire(reroute.outputs[0], node.inputs[0])
    tree.wire(node.outputs[0], tree.color)


def group(name, build):
    tree = bpy.data.node_groups.new(name, "ShaderNodeTree")
    tree.interface.new_socket("in", in_out="INPUT", socket_type="NodeSocketColor")
    tree.interface.new_socket("out", in_out="OUTPUT", socket_type="NodeSocketColor")

    def nodes(operation, color, vector):
        node = tree.nodes.new("ShaderNodeVectorMath")
        node.operation, node.inputs[1].default_value = operation, vector
        tree.links.new(color, node.inputs[0])
        return node.outputs[0]

    nodes.tree = tree
    tree.links.new(build(nodes, tree.nodes.new("NodeGroupInput").outputs[0]), tree.nodes.new("NodeGroupOutput").inputs[0])
    return tree


def square():
    """A square with two UV layers that reach beyond 0..1, and float and byte colours."""
    rng = np.random.default_rng(5)
    mesh = bpy.data.meshes.new("square")
    mesh.from_pydata([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], [], [(0, 1, 2, 3)])
    first, second = mesh.uv_layers.new(name="first"), mesh.uv_layers.new(name="second")
    first.uv.foreach_set("vector", np.array([(-0.8, -0.7), (1.9, -0.6), (2.1, 1.7), (-0.6, 1.8)], np.float32).ravel())
    second.uv.foreach_set("vector", np.array([(0.1, 0.2), (0.8, 0.1), (0.9, 1.1), (0.0, 0.9)], np.float32).ravel())
    for name, kind, domain in (("floats", "FLOAT_COLOR", "POINT"), ("bytes", "BYTE_COLOR", "CORNER")):
        layer = mesh.color_attributes.new(name, kind, domain)
        layer.data.foreach_set("color", rng.random(16).astype(np.float32))
    mesh.color_attributes.render_color_index = 0
    return mesh


def rendered(folder):
    """What Cycles renders of the square from above: linear, alpha straight, first row at the top."""
    scene = bpy.context.scene
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.type, camera.data.ortho_scale, camera.location = "ORTHO", 2, (0, 0, 2)
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", 1
    scene.cycles.use_denoising = scene.cycles.use_adaptive_sampling = False
    scene.cycles.filter_width = 0.01  # the middle of each pixel, and nothing else
    scene.render.film_transparent = True
    scene.render.resolution_x = scene.render.resolution_y = SIZE
    scene.render.image_settings.file_format, scene.render.image_settings.color_depth = "OPEN_EXR", "32"
    scene.render.filepath = str(folder / "rendered.exr")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(scene.render.filepath)
    pixels = np.array(image.pixels[:]).reshape(SIZE, SIZE, 4)[::-1].copy()
    pixels[..., :3] /= np.maximum(pixels[..., 3:], 1e-6)
    np.save(folder / "rendered.npy", pixels)


# ---------------------------------------------------------------------------------------------------------------- worlds


def worlds():
    """name -> function that puts objects into an empty scene."""
    return {
        f.__name__: f
        for f in (
            instances,
            mirrored,
            curves,
            text,
            hidden,
            loose,
            no_material,
            two_materials,
            large_texture,
            broken,
        )
    }


def placed(mesh, *, location=(0, 0, 0), scale=(1, 1, 1), materials=()):
    for one in materials:
        mesh.materials.append(one)
    shown = bpy.data.objects.new(mesh.name, mesh)
    shown.location, shown.scale = location, scale
    bpy.context.collection.objects.link(shown)
    return shown


def plain(name, color):
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    made.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = color
    return made


def triangle(name="triangle"):
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
    layer = mesh.uv_layers.new(name="UVMap")
    layer.uv.foreach_set("vector", np.array([(0, 0), (1, 0), (0, 1)], np.float32).ravel())
    return mesh


def instances():
    """A collection with one triangle, placed three times."""
    held = bpy.data.collections.new("held")
    held.objects.link(bpy.data.objects.new("one", triangle()))
    for i in range(3):
        empty = bpy.data.objects.new(f"at {i}", None)
        empty.instance_type, empty.instance_collection, empty.location = "COLLECTION", held, (2 * i, 0, 0)
        bpy.context.collection.objects.link(empty)


def mirrored():
    made = plain("textured", (1, 1, 1, 1))
    texture = made.node_tree.nodes.new("ShaderNodeTexImage")
    texture.image = pictures()["noise"]
    made.node_tree.links.new(texture.outputs["Color"], made.node_tree.nodes["Principled BSDF"].inputs["Base Color"])
    placed(triangle(), scale=(-1, 1, 1), materials=[made])


def curves():
    """A flat disc of radius 1 with a material: a curve that is filled."""
    curve = bpy.data.curves.new("circle", "CURVE")
    curve.dimensions, curve.fill_mode, curve.resolution_u = "2D", "BOTH", 64
    spline = curve.splines.new("POLY")
    spline.points.add(99)
    spline.points.foreach_set(
        "co", np.array([(math.cos(a), math.sin(a), 0, 1) for a in np.arange(100) * 2 * math.pi / 100], np.float32).ravel()
    )
    spline.use_cyclic_u = True
    placed(curve, materials=[plain("red", (1, 0, 0, 1))])


def text():
    """A text, and a curve that is a line and has no surface."""
    placed(bpy.data.curves.new("words", "FONT")).data.body = "tri"
    line = bpy.data.curves.new("line", "CURVE")
    line.splines.new("POLY").points.add(3)
    placed(line)


def hidden():
    placed(triangle("seen"))
    placed(triangle("unseen"), location=(5, 0, 0)).hide_render = True


def loose():
    mesh = bpy.data.meshes.new("loose")
    mesh.from_pydata([(9, 9, 9), (0, 0, 0), (1, 0, 0), (0, 1, 0), (8, 8, 8)], [(0, 4)], [(1, 2, 3)])
    placed(mesh)


def no_material():
    placed(triangle())


def two_materials():
    """Two faces with a material each; the second object shows the first's mesh with other materials."""
    mesh = bpy.data.meshes.new("two")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)], [], [(0, 1, 2), (1, 3, 2)])
    mesh.materials.append(plain("red", (1, 0, 0, 1)))
    mesh.materials.append(plain("green", (0, 1, 0, 1)))
    mesh.polygons.foreach_set("material_index", [1, 0])
    placed(mesh)
    other = placed(mesh, location=(3, 0, 0))
    other.material_slots[0].link = "OBJECT"
    other.material_slots[0].material = plain("blue", (0, 0, 1, 1))


def large_texture():
    """5000 x 3 pixels: the left half red, the right half blue."""
    pixels = np.zeros((3, 5000, 4), np.float32)
    pixels[:, :2500, 0], pixels[:, 2500:, 2], pixels[..., 3] = 1, 1, 1
    made = bpy.data.materials.new("large")
    made.use_nodes = True
    tree = Tree(made, {"large": picture("large", pixels)})
    tree.wire(tree.texture("large").outputs["Color"], tree.color)
    placed(triangle(), materials=[made])


def broken():
    """Materials with textures that cannot be read, one of them a normal map, and a node that no paint stands for."""
    made = plain("broken", (0.1, 0.2, 0.3, 1))
    tree, shader = made.node_tree, made.node_tree.nodes["Principled BSDF"]
    absent = bpy.data.images.new("absent", 4, 4)
    absent.filepath, absent.source = "/nowhere/absent.png", "FILE"
    texture, factor = tree.nodes.new("ShaderNodeTexImage"), tree.nodes.new("ShaderNodeMix")
    texture.image = absent
    factor.data_type, factor.blend_type, factor.inputs["Factor"].default_value = "RGBA", "MULTIPLY", 1.0
    factor.inputs[7].default_value = (0.5, 0.25, 1.0, 1)
    tree.links.new(texture.outputs["Color"], factor.inputs[6])
    tree.links.new(factor.outputs[2], shader.inputs["Base Color"])
    normal, normal_texture = tree.nodes.new("ShaderNodeNormalMap"), tree.nodes.new("ShaderNodeTexImage")
    tree.links.new(normal_texture.outputs["Color"], normal.inputs["Color"])
    tree.links.new(normal.outputs["Normal"], shader.inputs["Normal"])
    placed(triangle("textured"), materials=[made])

    odd = plain("odd", (0.4, 0.5, 0.6, 1))
    checker = odd.node_tree.nodes.new("ShaderNodeTexChecker")
    odd.node_tree.links.new(checker.outputs["Color"], odd.node_tree.nodes["Principled BSDF"].inputs["Base Color"])
    placed(triangle("odd"), location=(3, 0, 0), materials=[odd])


def main(folder):
    for name, wire in MATERIALS.items():
        bpy.ops.wm.read_factory_settings(use_empty=True)
        (folder / name).mkdir()
        made = bpy.data.materials.new(name)
        made.use_nodes = True
        wire(Tree(made, pictures()))
        placed(square(), materials=[made])
        out(folder / name)
        rendered(folder / name)
    for name, build in worlds().items():
        bpy.ops.wm.read_factory_settings(use_empty=True)
        (folder / name).mkdir()
        build()
        (folder / name / "missing").write_text(str(blender_mesh.repair_missing_images()))
        out(folder / name)


def out(folder):
    collected = blender_mesh.collect(bpy.context.evaluated_depsgraph_get())
    blender_mesh.write(collected, np.eye(4), folder, np.eye(4))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
