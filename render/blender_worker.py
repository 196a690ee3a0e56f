"""The program that runs in Blender's process: reads requests, one JSON line each, from standard input, and answers in kind.

Started once, it serves many requests. Run by Python (with `bpy` installed) or by a Blender executable
(`blender --background --factory-startup --python render/blender_worker.py`); it needs numpy and the standard library besides.
Whatever Blender and its importers print goes to standard error.
"""

import ctypes
import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TextIO

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def open_answers() -> TextIO:
    """Where answers go: the standard output as it was, kept apart from now on from what Blender prints."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def serve_all(answers: TextIO) -> None:
    """Answers request after request until the input ends. Before an answer come lines that tell of progress."""
    from render.spec import DISK_FULL, Answer, AssetError, Request

    for line in sys.stdin:
        try:
            answer = serve(Request.from_json(line), lambda step: answers.write(json.dumps({"step": step}) + "\n"))
        except AssetError as error:
            answer = Answer(reason=error.reason, message=error.message)
        except MemoryError:
            answer = Answer(reason="out_of_memory", message="Blender ran out of memory while it read or rendered the asset")
        except Exception:
            answer = Answer(bug=traceback.format_exc())
        if is_full():  # that explains whatever went wrong, and may be all that is seen of it
            answer = Answer(reason=DISK_FULL)
        answers.write(answer.to_json() + "\n")


def serve(request, tell):
    """Makes what a render.spec.Request asks for; its Answer. `tell` is called with the name of each step that begins.
    Raises AssetError for an asset that cannot be used.
    """
    import bpy
    import numpy as np

    from render import blender_import, blender_maps, blender_mesh, blender_pictures
    from render.spec import Answer

    clock = Clock(tell)
    folder = Path(request.folder)
    clock.reached("import")
    blender_import.load(Path(request.asset), request.format)
    clock.reached("mesh")
    missing = blender_mesh.repair_missing_images()
    collected = blender_mesh.collect(bpy.context.evaluated_depsgraph_get())
    from_blender = blender_pictures.canonical_from_blender(collected.vertices, request.front)
    thickest = blender_mesh.thickest(collected, from_blender)
    from_asset = from_blender @ blender_import.blender_from_asset(request.format)
    if request.mesh:
        (folder / "mesh").mkdir()
        blender_mesh.write(collected, from_blender, folder / "mesh", from_asset)
    device = None
    if request.pictures:
        device = blender_pictures.render(
            request.pictures,
            collected.vertices,
            from_blender,
            folder,
            device=request.device,
            threads=request.threads,
            reached=clock.reached,
        )
    if request.maps:  # last, as it changes the materials
        (folder / "maps").mkdir()
        blender_maps.render(
            request.maps,
            collected.vertices,
            from_blender,
            folder / "maps",
            threads=request.threads,
            reached=clock.reached,
        )
    clock.reached("")
    return Answer(
        canonical_from_asset=tuple(np.ravel(from_asset).tolist()),
        missing_textures=missing,
        substituted_materials=blender_mesh.substituted_materials(collected, Path(request.asset)),
        thickest=thickest,
        device=device,
        seconds=clock.seconds,
    )


class Clock:
    """How long each step took (`seconds`), and who is told that one begins."""

    def __init__(self, tell):
        self.seconds, self._tell, self._step, self._since = {}, tell, "", time.monotonic()

    def reached(self, step: str) -> None:
        """The step before is done, this one begins ("": none does). Raises AssetError when it may have met with a full disk."""
        from render.spec import DISK_FULL, AssetError

        if is_full():
            raise AssetError(DISK_FULL, "no room is left for what Blender makes")
        now = time.monotonic()
        if self._step:
            self.seconds[self._step] = self.seconds.get(self._step, 0.0) + now - self._since
        self._step, self._since = step, now
        if step:
            self._tell(step)


def is_full() -> bool:
    """Whether the disk with the results is so full that the last of them may be cut short, of which Blender says nothing."""
    from render.spec import SPARE_BYTES

    return shutil.disk_usage(os.environ["TMPDIR"]).free < SPARE_BYTES


if __name__ == "__main__":
    # First of all, before Blender starts: when the parent is killed, this dies with it, even from an endless loop.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = open_answers()
    # The repository instead of this folder: `render` is a package, and its files hide no module of the same name.
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parent), *(path for path in sys.path if Path(path).resolve() != here)]

    import bpy  # noqa: F401  (starts Blender)

    answers.write("{}\n")  # ready
    serve_all(answers)
