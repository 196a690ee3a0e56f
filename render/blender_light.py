"""Runs inside Blender: the light in which every asset is seen."""

import math

import bpy
from mathutils import Euler

SUN_FROM_CAMERA = Euler((math.radians(-40), math.radians(30), 0)).to_matrix().to_4x4()  # 40° above the camera, 30° aside


def light(scene: bpy.types.Scene, camera: bpy.types.Object) -> None:
    """A soft light from everywhere, and a sun that goes with the camera: every view is lit alike."""
    scene.world = bpy.data.worlds.new("canonical")
    scene.world.use_nodes = True
    background = scene.world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (1, 1, 1, 1)
    background.inputs["Strength"].default_value = 0.35
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy = 2.0
    sun.parent = camera
    sun.matrix_local = SUN_FROM_CAMERA
    scene.collection.objects.link(sun)
