"""Runs inside Blender: the light in which every asset is seen. It goes with the camera: every view is lit alike.

A sun over the camera's right shoulder throws the shadows. From everywhere else comes a light that grows upwards, and a little
towards what the camera looks at: sides that the sun does not reach differ too, and metal and glass have something to mirror.

A white matte wall sends out SKY * (1 + 2/3 GRADIENT a) + SUN / pi * b, with a and b the cosines between its normal and the two
directions (Ramamoorthi and Hanrahan 2001, "An Efficient Representation for Irradiance Environment Maps"): 0.98 (sRGB 0.99) at the
most, so that white does not burn out, 0.78 (0.90) where it faces the camera, 0.29 (0.58) at least. Of lights that keep to about
that, this is one under which the two sides of a cube that differ least differ most, over the twelve views and the cube's turns.
"""

import math

import bpy
from mathutils import Euler, Vector

SUN = 1.5  # W/m2
SUN_FROM_CAMERA = Euler((math.radians(-30), math.radians(25), 0)).to_matrix().to_4x4()  # 30° above the camera, 25° aside
SKY = 0.44  # radiance, mean over all directions
GRADIENT = 0.5  # how much it grows, as a share, towards its brightest place, and falls towards the opposite
BRIGHTEST = Vector((0, 1, -0.25)).normalized()  # in the camera's axes: x right, y up, z backward


def light(scene: bpy.types.Scene, camera: bpy.types.Object) -> None:
    """Lights a scene for its camera."""
    scene.world = bpy.data.worlds.new("canonical")
    # Found by the rays that bounce, not aimed at: for so smooth a sky aiming takes four times as long and shows no less noise.
    scene.world.cycles.sampling_method = "NONE"
    scene.world.use_nodes = True
    nodes, links = scene.world.node_tree.nodes, scene.world.node_tree.links
    background = nodes["Background"]
    background.inputs["Color"].default_value = (1, 1, 1, 1)
    direction = nodes.new("ShaderNodeTexCoord").outputs["Camera"]  # x right, y up, z forward
    growing, strength = nodes.new("ShaderNodeVectorMath"), nodes.new("ShaderNodeMath")
    growing.operation, growing.inputs[1].default_value = "DOT_PRODUCT", SKY * GRADIENT * BRIGHTEST * Vector((1, 1, -1))
    strength.operation, strength.inputs[1].default_value = "ADD", SKY
    links.new(direction, growing.inputs[0])
    links.new(growing.outputs["Value"], strength.inputs[0])
    links.new(strength.outputs[0], background.inputs["Strength"])

    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy = SUN
    sun.parent = camera
    sun.matrix_local = SUN_FROM_CAMERA
    scene.collection.objects.link(sun)
