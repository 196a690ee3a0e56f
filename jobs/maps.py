"""Make depth, normals and visible points of the views of each object that lacks them (they are no part of `build`).

The cameras and points are those that the corpus was made with; [maps] in the settings file may give another width and height.
"""

from typing import Any

from jobs.carry_out import Running, Step, carry_out_alone
from jobs.carry_out import Running as Job
from jobs.refusal import Refusal
from pipeline.store import Corpus
from render.blender import BlenderSettings
from render.blender_pass import AssetStage, BlenderPass, RenderViews, SamplePoints
from render.maps import RenderMaps


def main(job: Job) -> int:
    """Run the stage."""
    return carry_out_alone(job, ("objects",), lambda job: [maps_step(job)])


def maps_step(job: Running) -> Step:
    """The step that makes the maps of the views and points that are there. Raises Refusal when there are none, or when the points
    are an older version's: `seen` would count others."""
    views, points = made_with(job.corpus, RenderViews), made_with(job.corpus, SamplePoints)
    if points["version"] != SamplePoints.version:
        raise Refusal(
            f"{job.corpus.root}: its points are version {points['version']}, this makes version {SamplePoints.version}: "
            "run the job `points` first",
            exit_code=1,
        )
    settable = {"width", "height"}
    if unknown := job.settings_table("maps").keys() - settable:
        raise Refusal(
            f"{job.settings}: [maps] has no setting {', '.join(map(repr, sorted(unknown)))}; it has: width, height. Cameras and "
            "points are those that the corpus was made with"
        )
    given = {name: views["settings"][name] for name in {"rig", "seed", *settable} - job.settings_table("maps").keys()}
    stage = job.setting("maps", RenderMaps, points=SamplePoints(**points["settings"]), **given)
    return Step(BlenderPass(stages=(stage,), blender=job.setting("blender", BlenderSettings)))


def made_with(corpus: Corpus, stage: type[AssetStage]) -> dict[str, Any]:
    """Version and settings with which a stage made its table (see pipeline.run.made_by). Raises Refusal when it never did."""
    corpus.need(stage.writes.name)
    try:
        return corpus.made_by(stage.writes.name)[stage.name]
    except KeyError:
        raise Refusal(f"{corpus.root}: none of its {stage.writes.name} come from the job {stage.name!r}", exit_code=1) from None
