"""What an asset may cost, and the errors of those that cost more."""

from dataclasses import dataclass

from pipeline.stage import ObjectError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an asset may cost; beyond, it is refused, each with a reason of its own (in brackets).

    The defaults are meant to let in whatever a person made, and to stop what was made or broken so that a worker would be busy for
    hours or run out of memory; Blender's own memory is watched besides (render.blender).
    """

    asset_mb: int = 2048  # the asset with all its companions [asset_too_large]
    json_mb: int = 256  # the JSON of a glTF, data URIs included; more takes gigabytes of memory once read [json_too_large]
    texture_mpx: int = 270  # one picture; 16,384 x 16,384 is the largest texture of Direct3D 11 [texture_too_large]
    vertices: int = 20_000_000  # placed in the scene [too_many_vertices]
    faces: int = 20_000_000  # triangles placed in the scene [too_many_faces]
    nodes: int = 20_000  # of the scene; Blender makes each an object [too_many_nodes]
    meshes: int = 10_000  # placed in the scene, a mesh placed twice counted twice [too_many_meshes]
    depth: int = 500  # nodes above a node; Blender's importer calls itself for each: 900 work, 3,000 do not [deep_scene]
    unpacked_mb: int = 4096  # what a 3MF or USDZ holds once unpacked [unpacked_too_large]

    def check_geometry(self, name: str, vertices: int, faces: int) -> None:
        """Raises ObjectError: too_many_vertices, too_many_faces. `name`: of the file, for the message."""
        for what, count, most in (("vertices", vertices, self.vertices), ("faces", faces, self.faces)):
            if count > most:
                raise ObjectError(f"too_many_{what}", f"{name} states {count} {what}; {most} are let in (limits.{what})")


# Reasons that mean "it costs too much": one family, each name the limit that was passed.
RESOURCE_REASONS = (
    "asset_too_large",
    "json_too_large",
    "texture_too_large",
    "too_many_vertices",
    "too_many_faces",
    "too_many_nodes",
    "too_many_meshes",
    "deep_scene",
    "unpacked_too_large",
)
