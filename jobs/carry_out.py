"""Carrying out passes over a corpus: where the work is done, what a person sees meanwhile, and the line at the end."""

import dataclasses
import json
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.arguments import Json, Root
from jobs.progress import duration, progress
from jobs.refusal import Refusal
from pipeline.on_ray import OnRay, cluster, gpus
from pipeline.run import Summary, Where, here, run
from pipeline.stage import NoRoom, Pass, Row, Single, Stage
from pipeline.store import Corpus, CorpusError
from pipeline.teacher_error import TeacherError
from render.blender import BlenderSettings
from render.blender_pass import BlenderPass
from render.devices import DeviceError


@dataclass(frozen=True, kw_only=True)
class Running:
    """Where the corpus is and who does the work; every job that runs stages takes these."""

    # Folder or URI of the corpus.
    root: Root
    # Ray workers for everything but embedding, each with its own Blender, and with its share of a GPU where the cluster has any.
    # 0: in this process, without Ray, with all cores and the first GPU.
    workers: int = 0
    # Ray workers for embedding, each with its own model. Default: one per GPU of the cluster, or one.
    embed_workers: int | None = None
    # An existing Ray cluster (ray://HOST:10001, or auto). Default: a cluster on this machine, for this run.
    address: str | None = None
    # TOML file with a table per stage: [ingest] [render] [points] …, and [sources.NAME] for the options of a source.
    settings: Path | None = None
    # Print one JSON object instead of text.
    json: Json = False

    @property
    def corpus(self) -> Corpus:
        return Corpus.at(self.root)

    def setting(self, section: str, of: type, **given: Any) -> Any:
        """A settings dataclass, its fields taken from a table of the settings file where the command line gives nothing.

        Raises Refusal for a name that is no setting, and for a value of the wrong kind.
        """
        stored = self.settings_table(section)
        known = {field.name: field for field in dataclasses.fields(of)}
        if unknown := stored.keys() - known.keys():
            raise Refusal(
                f"{self.settings}: [{section}] has no setting {', '.join(map(repr, sorted(unknown)))}; it has: {', '.join(known)}"
            )
        try:
            return of(**stored | {name: value for name, value in given.items() if value is not None})
        except (TypeError, ValueError) as error:
            raise Refusal(f"{self.settings or 'settings'}: [{section}]: {error}") from error

    def settings_table(self, section: str) -> dict[str, Any]:
        """A table of the settings file as it is; empty where there is none."""
        return self._read_settings().get(section, {})

    def _read_settings(self) -> dict[str, dict[str, Any]]:
        if self.settings is None:
            return {}
        try:
            stored = tomllib.loads(self.settings.read_text())
        except FileNotFoundError:
            raise Refusal(f"there is no settings file {self.settings}") from None
        except tomllib.TOMLDecodeError as error:
            raise Refusal(f"{self.settings} is no TOML: {error}") from error
        if unknown := stored.keys() - set(SECTIONS):
            raise Refusal(f"{self.settings} has a table [{sorted(unknown)[0]}]; the tables are: {', '.join(SECTIONS)}")
        return stored


SECTIONS = (
    "sources",
    "ingest",
    "limits",
    "render",
    "gates",
    "points",
    "maps",
    "blender",
    "photos",
    "clouds",
    "caption",
    "embed_images",
    "embed_texts",
    "embed_classes",
    "openshape",
)

# What the tasks of a stage are, by the column it goes by.
UNITS = {"object_id": "objects", "text_sha256": "texts", "name": "class names"}


@dataclass(frozen=True)
class Step:
    """One pass of a job. `records`: its input, when that is no table; `whole`: they are all there are, so rows of other ids go.
    `embeds`: it is done by the embedding workers. `where_wanted`: it is passed over, without a word, in a corpus that has and had
    nothing for it."""

    work: Pass
    records: Iterable[Row] | None = None
    whole: bool = False
    embeds: bool = False
    where_wanted: bool = False


def carry_out(running: Running, steps: Iterable[Step]) -> list[Summary]:
    """Bring the corpus up to date, step by step, and say so; the caller prints the end of its own job."""
    summaries: list[Summary] = []
    with running.corpus.lock(), _cluster(running):
        for step in steps:
            stages = step.work.stages
            if step.where_wanted and not any(_wanted(running.corpus, stage, step.records) for stage in stages):
                continue
            for stage in stages:
                say(running, f"{stage.name}  {_settings_line(stage.settings())}".rstrip())
            work, workers, where = _where(running, step)
            title = " + ".join(stage.name for stage in stages)
            with progress(title, None, UNITS[stages[0].per], quiet=running.json) as bar:

                def watch(total: int, counts: dict[str, int], bar=bar) -> None:
                    bar.update(done=counts["done"], failed=counts["failed"], total=total)

                try:
                    made = run(
                        running.corpus, work, where=where, workers=workers, records=step.records, whole=step.whole, watch=watch
                    )
                except (CorpusError, DeviceError, NoRoom, TeacherError) as error:
                    raise Refusal(str(getattr(error, "cause", error)), exit_code=1) from error  # Ray's carry the whole story
            summaries += made
            for summary in made:
                say(running, summary_line(summary))
    return summaries


def carry_out_alone(running: Running, needs: tuple[str, ...], steps: Callable[[Running], list[Step]]) -> int:
    """A job that is just these steps over tables that are there; returns the exit code."""
    began = time.monotonic()
    for table in needs:
        running.corpus.need(table)
    return finish(running, carry_out(running, steps(running)), began)


def say(running: Running, text: str) -> None:
    """Print for a person; nothing with --json."""
    if not running.json:
        print(text, flush=True)


def finish(running: Running, summaries: list[Summary], began: float, **more: Any) -> int:
    """The last line of a job: what was done, skipped and failed; one JSON object with --json. Returns the exit code."""
    seconds = time.monotonic() - began
    done, failed, skipped = (sum(getattr(summary, kind) for summary in summaries) for kind in ("done", "failed", "skipped"))
    if running.json:
        stages = [dataclasses.asdict(summary) for summary in summaries]
        print(json.dumps({"root": running.corpus.root, "stages": stages, "seconds": round(seconds, 2)} | more))
        return 0
    reasons = sum((Counter(summary.reasons) for summary in summaries), Counter())
    why = f" ({counted(reasons)})" if failed else ""
    run = f"this run: {done:,} done, {skipped:,} skipped, {failed:,} failed{why}, in {duration(seconds)}"
    print("; ".join([f"{running.root}: {run}", *(f"{name}: {value}" for name, value in more.items())]))
    if failed:
        print(f"what failed and why: python -m jobs status {running.root}")
    sys.stdout.flush()
    return 0


def counted(reasons: dict[str, int]) -> str:
    """Reasons with their counts, the most frequent first."""
    return ", ".join(f"{reason} {count:,}" for reason, count in Counter(reasons).most_common())


def summary_line(summary: Summary) -> str:
    """One stage of this run, on one line."""
    rate = f", {60 * (summary.done + summary.failed) / summary.seconds:,.0f}/min" if summary.done + summary.failed else ""
    why = f" ({counted(summary.reasons)})" if summary.failed else ""
    numbers = f"{summary.done:>7,} done  {summary.skipped:>7,} skipped  {summary.failed:>5,} failed{why}"
    return f"  {summary.stage:<44}{numbers}  [{duration(summary.seconds)}{rate}]"


def _wanted(corpus: Corpus, stage: Stage, records: Iterable[Row] | None) -> bool:
    """Whether the stage has something to do, or ever had: then its leftovers may have to go."""
    if stage.name in corpus.made_by(stage.writes.name):
        return True
    return corpus.need(stage.reads).count_rows(stage.where) > 0 if records is None else any(True for _ in records)


def _settings_line(settings: dict[str, Any]) -> str:
    return "  ".join(f"{name}={value}" for name, value in settings.items() if not isinstance(value, dict | list))


@contextmanager
def _cluster(running: Running) -> Iterator[None]:
    if not running.workers and not running.embed_workers and not running.address:
        yield
        return
    with ExitStack() as stack:
        try:
            cpus = running.workers * running.setting("blender", BlenderSettings).cpus
            stack.enter_context(cluster(running.address, max(cpus, running.embed_workers or 0)))
        except ConnectionError as error:
            raise Refusal(f"no Ray cluster answers at {running.address}: {error}", exit_code=1) from error
        yield


def _where(running: Running, step: Step) -> tuple[Pass, int, Where]:
    """The pass as it is to be done, how many workers do it, and where."""
    if not running.workers and not running.embed_workers and not running.address:
        return step.work, 1, here
    if not step.embeds:
        workers = running.workers or 1
        if not isinstance(step.work, BlenderPass):
            return step.work, workers, OnRay(workers=workers)
        try:
            blender = step.work.blender.on_cluster(gpus())
        except DeviceError as error:
            raise Refusal(str(error), exit_code=1) from error
        where = OnRay(workers=workers, cpus=blender.cpus, gpus=blender.gpus)
        return dataclasses.replace(step.work, blender=blender), workers, where
    cards = int(gpus())
    workers = running.embed_workers or max(1, cards)
    # Ray shows a worker only the GPU it was given, and gives one only when that is asked for.
    on_cards = cards and all(stage.device == "auto" for stage in step.work.stages)
    work = Single(dataclasses.replace(step.work.stages[0], device="cuda")) if on_cards else step.work
    return work, workers, OnRay(workers=workers)
