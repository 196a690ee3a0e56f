"""Build a corpus: all stages in order, and in each only what is missing. Kill it at any time; the same command goes on.

python -m jobs build /data/corpus --source objaverse=/data/hf-objaverse-v1 --workers 16
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from captions.metadata import CaptionMetadata
from jobs.arguments import Sources
from jobs.carry_out import Running, Step, carry_out, finish, say
from jobs.refusal import Refusal
from jobs.status import source_lines
from pipeline.assets.preflight import Limits
from pipeline.classes import ClassNames, EmbedClasses
from pipeline.embed import EmbedImages, EmbedTexts
from pipeline.ingest import Ingest
from pipeline.model import need_text_files
from pipeline.sources.source import source_from
from pipeline.stage import Row, Single
from pipeline.status import completeness
from pipeline.weights import DEFAULT_TEACHER, TeacherError, WeightsMissing, absolute_name, refuse_other_weights
from render.blender import BlenderSettings
from render.blender_pass import AssetStage, BlenderPass, RenderViews, SamplePoints
from render.gates import Gates
from render.photos import CloudPoints, PhotoPass, PhotoViews


@dataclass(frozen=True, kw_only=True)
class Job(Running):
    # A collection and where it is, as NAME=PATH; may be given several times. Left out: the objects that were ingested before.
    source: Sources = ()
    # Take only the first N objects of each source.
    limit: int | None = None
    # Frozen CLIP model, ARCH:PRETRAINED as open_clip spells them; tricorpus-tiny:shapes-v1 needs no download.
    teacher: str = DEFAULT_TEACHER


def main(job: Job) -> int:
    """Run all stages."""
    began = time.monotonic()
    steps = [*ingest_steps(job, job.source, job.limit), blender_step(job), photo_step(job)]
    steps += [caption_step(job), *embed_steps(job, job.teacher)]
    say(job, f"corpus       {job.corpus.root}\nworkers      {job.workers or 'in this process'}\nteacher      {job.teacher}")
    summaries = carry_out(job, steps)
    whole = completeness(job.corpus)
    if len(whole.sources) > 1:
        say(job, "\n".join(["", *source_lines(whole), ""]))
    return finish(job, summaries, began, complete=f"{whole.complete:,} of {whole.objects:,} objects")


def ingest_steps(job: Running, sources: tuple[str, ...], limit: int | None) -> list[Step]:
    """The step that lists and hashes the objects of some sources; none without sources."""
    if limit is not None and limit < 1:
        raise Refusal(f"--limit {limit}: must be 1 or more")
    if not sources:
        job.corpus.need("objects")
        return []
    try:
        made = tuple(source_from(text, job.settings_table("sources")) for text in sources)
    except (ValueError, FileNotFoundError) as error:
        raise Refusal(str(error)) from error
    except ImportError as error:  # fsspec names the package that a kind of place needs
        raise Refusal(f"a place of this kind cannot be read here: {error}", exit_code=1) from error
    stage = job.setting("ingest", Ingest, sources=made, limits=job.setting("limits", Limits))
    return [Step(Single(stage), records=_read(stage, limit))]


def _read(stage: Ingest, limit: int | None) -> Iterator[Row]:
    try:
        yield from stage.records(limit)
    except ValueError as error:  # an index file of the collection itself cannot be read
        raise Refusal(str(error), exit_code=1) from error


def blender_step(job: Running, *, render: bool = True, points: bool = True) -> Step:
    """The step that opens each asset in Blender once and makes its views, its points or both."""
    stages: list[AssetStage] = []
    if render:
        stages.append(job.setting("render", RenderViews, gates=job.setting("gates", Gates)))
    if points:
        stages.append(job.setting("points", SamplePoints))
    return Step(BlenderPass(stages=tuple(stages), blender=job.setting("blender", BlenderSettings)))


def photo_step(job: Running, *, render: bool = True, points: bool = True) -> Step:
    """The step for what was photographed or measured: photos to views, point clouds to points, or one of the two."""
    return Step(
        PhotoPass(
            photos=job.setting("photos", PhotoViews) if render else None,
            clouds=job.setting("clouds", CloudPoints) if points else None,
        ),
        where_wanted=True,
    )


def caption_step(job: Running) -> Step:
    """The step that writes captions from metadata."""
    return Step(Single(job.setting("caption", CaptionMetadata)))


def embed_steps(job: Running, teacher: str) -> list[Step]:
    """The steps that embed views, texts and class names with one teacher. Raises Refusal when there is no such teacher, or no
    weights of it."""
    try:
        teacher = absolute_name(teacher)  # workers run in other folders
        kinds = {"embed_images": EmbedImages, "embed_texts": EmbedTexts, "embed_classes": EmbedClasses}
        stages = [job.setting(section, kind, teacher=teacher) for section, kind in kinds.items()]
        for stage in stages:
            stage.settings()  # looks for the weights now, not after hours of rendering
        need_text_files(teacher)
        refuse_other_weights(job.corpus, teacher)
    except TeacherError as error:
        raise Refusal(str(error), exit_code=1 if isinstance(error, WeightsMissing) else 2) from error
    images, texts, classes = (Single(stage) for stage in stages)
    return [
        Step(images, embeds=True),
        Step(texts, embeds=True),
        Step(classes, records=ClassNames(job.corpus), whole=True, embeds=True, where_wanted=True),
    ]
