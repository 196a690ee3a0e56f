"""Which objects of a benchmark were trained on, or would be. By id, by the hash of the file, and by shape.

python -m jobs evaluate leaks runs/mine/checkpoints/step-00010000 --against modelnet40=/data/modelnet40
python -m jobs evaluate leaks /data/corpus --against objaverse-lvis=/data/corpus --write-split leaked-objaverse-lvis
python -m jobs train /data/corpus --held-out leaked-objaverse-lvis …
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from evaluate.leaks import HASH, ID, NEAR, Leaks, TrainedOn, leaks, listed, not_known, trained_on
from evaluate.sets.named import open_benchmark
from jobs.arguments import Json
from jobs.carry_out import Running, Step, carry_out
from jobs.progress import progress
from jobs.refusal import Refusal
from pipeline.imports.splits import ImportSplit
from pipeline.stage import ObjectError, Single
from schemas.corpus import Reader
from schemas.tables import OBJECTS
from trainer.card import Card
from trainer.checkpoints import CONFIG, OFFICIAL, read_card

NAMED = 8  # leaked objects that are named
WORDS = {ID: "by id", HASH: "by the hash of the file", NEAR: "as near-duplicates"}


@dataclass(frozen=True, kw_only=True)
class Job:
    # What is trained on: a checkpoint's folder, a corpus (ROOT), one of its splits (ROOT#SPLIT), or a list (.json, .csv, .txt).
    trained_on: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TRAINED_ON")]
    # Benchmarks, each NAME=PLACE: modelnet40, scanobjectnn, mvpnet, objaverse-lvis, or a labelled split of a corpus.
    against: Annotated[tuple[str, ...], tyro.conf.arg(metavar="BENCHMARK=PLACE …")]
    # Whether objects are also compared by shape, which takes minutes for large sets.
    near: bool = True
    # Write what leaked as a split of the corpus that is trained on, for `train --held-out NAME`.
    write_split: str | None = None
    # Write what did NOT leak as a list, in the form of OpenShape's train_no_lvis.json.
    write_list: Path | None = None
    # Print one JSON object instead of text.
    json: Json = False


def main(job: Job) -> int:
    """Compare with each benchmark, print, and write what was asked for."""
    try:
        trained = _trained(job.trained_on)
        benchmarks = [open_benchmark(one) for one in job.against]
    except (ValueError, ObjectError) as error:
        raise Refusal(str(error), exit_code=2 if isinstance(error, ValueError) else 1) from error
    if not benchmarks:
        raise Refusal("say what to compare with: --against modelnet40=/data/modelnet40")
    if job.write_split and not (trained.root and Reader.at(trained.root).open(OBJECTS.name)):
        raise Refusal(f"--write-split {job.write_split}: {job.trained_on} is no corpus that could have a split; --write-list FILE")
    if job.write_list and (job.write_list.suffix != ".json" or not job.write_list.absolute().parent.is_dir()):
        raise Refusal(f"--write-list {job.write_list}: must end in .json, in a folder that is there")
    found = []
    for benchmark in benchmarks:
        with progress(f"compare with {benchmark.name}", None, "clouds and pairs", quiet=job.json) as bar:
            one = leaks(trained, benchmark, near=job.near, progress=lambda done, total, bar=bar: bar.update(done=done, total=total))
        found.append(one)
        if not job.json:
            print("\n".join(lines(one)), flush=True)
    leaked = set().union(*(one.trained_ids() for one in found))
    written = list(_written(job, trained, leaked))
    if job.json:
        print(json.dumps({"trained_on": trained.told, "benchmarks": [_told(one) for one in found], "leaked": sorted(leaked)}))
    else:
        print("\n".join([f"{len(leaked):,} of {len(trained.ids):,} objects trained on are in the benchmarks", *written]))
    return 0


def lines(found: Leaks | None, card: Card | None = None) -> list[str]:
    """What is printed before any figure. `found` None: nobody knows what the encoder was trained on; its `card` may say why."""
    if found is None:
        why = (card and not_known(card)) or "nothing says what was trained on"
        return [f"leak check: not known whether the benchmark was trained on: {why}; give --trained-on LIST"]
    ways = {way: ids for way, ids in found.by_way().items() if ids}
    leaked = [id for ids in ways.values() for id in ids]
    asked = [WORDS[way] for way, why_not in found.asked.items() if why_not is None]
    of = f"{found.objects:,} objects of {found.benchmark}"
    if not leaked:
        told = [f"leak check: none of {of} found among what was trained on ({found.trained}), compared {', '.join(asked)}"]
    else:
        how = ", ".join(f"{len(ids):,} {WORDS[way]}" for way, ids in ways.items())
        named = ", ".join(leaked[:NAMED]) + (" …" if len(leaked) > NAMED else "")
        told = [f"leak check: {len(leaked):,} of {of} were trained on ({found.trained}; {how}): {named}"]
    told += [f"leak check: not compared {WORDS[way]}: {why_not}" for way, why_not in found.asked.items() if why_not is not None]
    return told


def _trained(place: str) -> TrainedOn:
    if place in OFFICIAL:
        raise Refusal(f"{place} does not say what it was trained on: give a list of that, such as OpenShape's train_all.json")
    if not (Path(place) / CONFIG).is_file():
        return listed(place)
    card = read_card(place)
    found = trained_on(card)
    if found is None:
        raise Refusal(f"{place}: {not_known(card)}: give a list of that instead", exit_code=1)
    return found


def _written(job: Job, trained: TrainedOn, leaked: set[str]) -> list[str]:
    """Write the split and the list; what was written, in words."""
    told = []
    if job.write_split and not leaked:
        told.append(f"no split {job.write_split} was written: nothing leaked, and nothing need be held out")
    elif job.write_split:
        there = sorted(leaked)
        step = Step(Single(ImportSplit(split=job.write_split)), [{"object_id": id, "label": None} for id in there], whole=True)
        carry_out(Running(root=trained.root, json=job.json), [step])
        told.append(
            f"split {job.write_split}: {len(there):,} objects; python -m jobs train {trained.root} --held-out {job.write_split}"
        )
    if job.write_list:
        kept = [id.partition("/") for id in sorted(trained.ids - leaked)]
        part = job.write_list.with_name(f".{job.write_list.name}.part")
        part.write_text(json.dumps([{"dataset": source, "group": "", "id": own} for source, _, own in kept]))
        os.replace(part, job.write_list)
        told.append(f"{job.write_list}: {len(kept):,} objects that did not leak")
    return told


def _told(found: Leaks) -> dict:
    pairs = {"by_id": found.by_id, "by_hash": found.by_hash, "near": found.near}
    return {"benchmark": found.benchmark, "objects": found.objects, "counts": found.counts(), "asked": found.asked} | pairs
