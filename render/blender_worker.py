"""The program that runs in Blender's process: reads requests, one JSON line each, from standard input, and answers in kind.

Started once, it serves many requests. Run by Python (with `bpy` installed) or by a Blender executable
(`blender --background --factory-startup --python render/blender_worker.py`); needs numpy and the standard library besides.
Whatever Blender and its importers print goes to standard error.
"""

import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main() -> None:
    # First of all: who is left alone by a killed parent dies too, even within an endless loop in Blender.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # The repository instead of this folder: `render` is a package, and nothing in it may hide a module of the same name.
    sys.path[:] = [
        str(Path(__file__).resolve().parent.parent),
        *(p for p in sys.path if Path(p).resolve() != Path(__file__).parent),
    ]

    import bpy  # noqa: F401  (starts Blender)

    from render.spec import Answer, AssetError, Request

    answers.write(Answer().to_json() + "\n")  # ready
    for line in sys.stdin:
        try:
            answer = serve(Request.from_json(line))
        except AssetError as error:
            answer = Answer(reason=error.reason, message=error.message)
        except MemoryError:
            answer = Answer(reason="out_of_memory", message="Blender ran out of memory while it read or rendered the asset")
        except Exception:
            answer = Answer(bug=traceback.format_exc())
        answers.write(answer.to_json() + "\n")


def serve(request):
    """Makes what is asked for; the answer. Raises AssetError for what the asset cannot do."""
    import bpy
    import numpy as np

    from render import blender_import, blender_mesh, blender_pictures
    from render.spec import Answer

    folder = Path(request.folder)
    blender_import.load(Path(request.asset), request.format)
    missing = blender_mesh.repair_missing_images()
    collected = blender_mesh.collect(bpy.context.evaluated_depsgraph_get())
    from_blender = blender_pictures.canonical_from_blender(collected.vertices)
    from_asset = from_blender @ blender_import.blender_from_asset(request.format)
    if request.mesh:
        (folder / "mesh").mkdir()
        blender_mesh.write(collected, from_blender, folder / "mesh", from_asset)
    device = None
    if request.pictures:
        device = blender_pictures.render(request.pictures, collected.vertices, from_blender, folder, request.threads)
    return Answer(canonical_from_asset=tuple(np.ravel(from_asset).tolist()), missing_textures=missing, device=device)


if __name__ == "__main__":
    main()
