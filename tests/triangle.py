"""The smallest asset that is one: a glTF of one triangle."""

import base64
import json

import numpy as np


def triangle(height: float = 1.0) -> str:
    """A .gltf (or .glb: its bytes tell) that needs no other file; another height makes another asset."""
    positions = np.array([[0, 0, 0], [1, 0, 0], [0, height, 0]], "<f4").tobytes()
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": 36, "uri": "data:;base64," + base64.b64encode(positions).decode()}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
    }
    return json.dumps(document)
