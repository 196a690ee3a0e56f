"""MVPNet, the dense clouds of MVImgNet's photos (https://github.com/GAP-LAB-CUHK-SZ/MVImgNet), of 180 of its 238 classes.

mvpnet_val.csv, mvpnet_train.csv      DuoduoCLIP's lists: index,category,CLASS_INSTANCE
split/val.json, split/train.json      the official ones: ["0/0000251e.pcd", ...]
data/<class>/<instance>.pcd or .ply   the clouds, also without data/; coloured, in COLMAP's frame, which is any: no up, no scale
mvimgnet_category.txt                 0,bag: the names of all 238 classes; in the same folder or up to two above
"""

import posixpath
from pathlib import Path

from evaluate.benchmark import Benchmark, Cloud
from evaluate.sets.clouds import Half, checked, numbered
from pipeline.imports.splits import read_split
from pipeline.photos.clouds import read_cloud
from pipeline.sources.mvimgnet import Clouds, category_names

LISTS: dict[Half, tuple[str, ...]] = {
    "test": ("mvpnet_val.csv", "split/val.json"),
    "train": ("mvpnet_train.csv", "split/train.json"),
}
_ABOVE = 3  # folders in which the names of the classes are looked for: one, and those above


def mvpnet(place: str, part: Half) -> Benchmark:
    """From the folder of the clouds, or one of its lists. Classes: all of mvimgnet_category.txt, in the order of their numbers, as
    DuoduoCLIP chooses among them; without that file those that the list names. Raises ValueError."""
    path = Path(place)
    if path.is_file():
        listed, root = path, next((folder for folder in path.resolve().parents[:2] if Clouds(str(folder)).classes()), None)
    else:
        listed, root = next((one for one in map(path.joinpath, LISTS[part]) if one.is_file()), None), path
    if listed is None or root is None:
        raise ValueError(f"{place} holds no {part} half of MVPNet: give the folder with data/ and {' or '.join(LISTS[part])}")
    said = read_split(str(listed), "mvpnet")
    names = _names(root, listed, said)
    clouds = Clouds(str(root))
    by_class = {label: clouds.of_class(label) for label in sorted({_class(id) for id in said})}
    places = {id: by_class[_class(id)].get(id.rpartition("/")[2], (None,))[0] for id in said}
    there = [id for id in said if places[id]]
    classes = tuple(names[label] for label in sorted(names, key=int))
    return Benchmark(
        name="mvpnet",
        variant=f"dense clouds in COLMAP's frame, {listed.name}",
        classes=classes,
        ids=tuple(there),
        labels=numbered(listed, [names[_class(id)] for id in there], classes),
        missing=tuple(id for id in said if not places[id]),
        cloud=lambda number: _cloud(places[there[number]]),
        file=lambda number: places[there[number]],
    )


def names_above(place: str) -> dict[str, str]:
    """Names of MVImgNet's classes, by their numbers, from mvimgnet_category.txt in a folder (of a URI that alone) or up to two
    above; empty where there is none. Raises ValueError: it cannot be read."""
    folders = [place]
    while len(folders) < _ABOVE and "://" not in place:
        folders.append(posixpath.dirname(folders[-1]))
    return next((found for found in map(category_names, folders) if found), {})


def _names(root: Path, listed: Path, said: dict[str, str | None]) -> dict[str, str]:
    """Names by class."""
    names = names_above(str(root.resolve()))
    complete = bool(names)
    for id, label in said.items():
        known = names.get(_class(id)) if complete or label is None else names.setdefault(_class(id), label)
        if known is None:
            raise ValueError(f"nothing says what class {_class(id)} of {listed} is called: put mvimgnet_category.txt into {root}")
        if label not in (None, known):
            raise ValueError(f"{listed} calls {id} {label!r}, and its class is {known!r}: one of the lists is of something else")
    return names


def _class(id: str) -> str:
    return id.split("/")[1]


def _cloud(place: str) -> Cloud:
    found = read_cloud(Path(place))
    return checked(place, found.xyz, found.rgb, up="+y")
