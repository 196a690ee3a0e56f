"""Objaverse-LVIS: 46,205 objects of 1,156 classes, and the clouds that OpenShape made of them (`OpenShape_code`, "Training Data").

meta_data/split/lvis.json    OpenShape's list: [{"uid", "category", "group", "data_path"}]
lvis_testset.txt             Uni3D's: index,category,uid,path
lvis.csv                     DuoduoCLIP's: index,category,uid
Objaverse/000-000/UID.npy    the clouds: pickled dictionaries; 10,000 points, y up, colours 0..1. They lie beside the list, or above
"""

import os
from collections.abc import Container
from pathlib import Path

from evaluate.benchmark import Benchmark, Cloud
from evaluate.sets.clouds import Half, checked, numbered
from pipeline.imports.pickled import load_pickled
from pipeline.imports.splits import read_split
from pipeline.stage import ObjectError

LISTS = ("meta_data/split/lvis.json", "lvis.json", "lvis_testset.txt", "lvis.csv")
_ABOVE = 4  # folders in which the clouds are looked for: the list's own, and those above


def objaverse_lvis(place: str, part: Half) -> Benchmark:
    """From one of the lists, or a folder with one (the first of LISTS counts). Classes: the sorted names of the whole list; listed
    objects without a cloud here are `missing`. Raises ValueError."""
    if part == "train":
        raise ValueError("Objaverse-LVIS is for testing: it has no training half")
    listed = (
        Path(place) if Path(place).is_file() else next((one for one in map(Path(place).joinpath, LISTS) if one.is_file()), None)
    )
    if listed is None:
        raise ValueError(f"{place} holds no list of Objaverse-LVIS: give it, or the folder with one of {', '.join(LISTS)}")
    said = {id: label for id, label in read_split(str(listed), "objaverse").items()}
    if unnamed := [id for id, label in said.items() if label is None]:
        raise ValueError(f"{listed} does not say what {unnamed[0]} is, and {len(unnamed)} in all: it is no list of Objaverse-LVIS")
    clouds = next((folder / "Objaverse" for folder in listed.resolve().parents[:_ABOVE] if (folder / "Objaverse").is_dir()), None)
    if clouds is None:
        raise ValueError(
            f"there is no folder Objaverse beside {listed} or above it: put OpenShape's Objaverse/000-000/UID.npy there"
        )
    places = _places(clouds, said)
    there = [id for id in said if id in places]
    classes = tuple(sorted(set(said.values())))
    return Benchmark(
        name="objaverse-lvis",
        variant="OpenShape's clouds",
        classes=classes,
        ids=tuple(there),
        labels=numbered(listed, [said[id] for id in there], classes),
        missing=tuple(id for id in said if id not in places),
        cloud=lambda number: _cloud(Path(places[there[number]])),
        file=lambda number: places[there[number]],
    )


def _places(folder: Path, wanted: Container[str]) -> dict[str, str]:
    """The clouds of the wanted objects, by id. Folders are listed, and files not asked for one by one: lists name places of other
    machines, or none."""
    found = {}
    for group in sorted(entry.path for entry in os.scandir(folder) if entry.is_dir()):
        for entry in os.scandir(group):
            uid, ending = os.path.splitext(entry.name)
            if ending == ".npy" and (id := f"objaverse/{uid}") in wanted:
                found[id] = entry.path
    return found


def _cloud(place: Path) -> Cloud:
    data = load_pickled(place, place.read_bytes())
    if not isinstance(data, dict) or "xyz" not in data:
        raise ObjectError("malformed", f"{place} is no dictionary with xyz; get the file again")
    return checked(place, data["xyz"], data.get("rgb"), up="+y", most=1.0)
