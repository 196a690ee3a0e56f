"""ScanObjectNN (https://github.com/hkust-vgd/scanobjectnn): 2,902 scans of 15 classes, y up, in these forms:

h5_files/main_split_nobg/{training,test}_objectdataset.h5             OBJ_ONLY: 2,048 points of each object, no colours
h5_files/main_split/{training,test}_objectdataset.h5                  OBJ_BG: with what stands around it
h5_files/main_split/…_objectdataset_augmentedrot_scale75.h5           PB_T50_RS: moved, turned and scaled besides; others less so
xyz_label.npy                                                         OpenShape's: {xyz, label[, rgb 0..1]} of OBJ_ONLY, both halves
object_dataset/<class>/<scan>.bin, main_split.txt, object_labels.txt  the scans: all points, with colours

The halves have 2,309 and 581 objects: those with 2,048 points. The published zero-shot figures are of 2,890, so of both.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Int64

from evaluate.benchmark import Benchmark, Cloud
from evaluate.sets.clouds import Half, checked
from pipeline.imports.pickled import load_pickled, mapped, plain
from pipeline.stage import ObjectError

CLASSES = (
    *(
        "bag",
        "bin",
        "box",
        "cabinet",
        "chair",
        "desk",
        "display",
        "door",
        "shelf",
        "table",
        "bed",
        "pillow",
        "sink",
        "sofa",
        "toilet",
    ),
)

_FILES = {"train": "training_objectdataset", "test": "test_objectdataset"}
_FOLDER = re.compile(r"(?:main_split|split\d)(_nobg)?")
_FILE = re.compile(r"(?:training|test)_objectdataset(\w*)")
_LEAST_POINTS = 2048
_COLUMNS = 11  # of a scan: x y z nx ny nz r g b, instance, what it is


@dataclass(frozen=True)
class Variant:
    """`name`: the benchmark's. `folder`, `ending`: of its h5 files. `whole`: both halves are asked for as one."""

    name: str
    told: str
    folder: str
    ending: str = ""
    whole: bool = False

    def __call__(self, place: str, part: Half) -> Benchmark:
        """From one h5 file, from xyz_label.npy, or from a folder that holds the files. Raises ValueError, ObjectError."""
        if self.whole and part == "train":
            raise ValueError(
                f"{self.name} is both halves as one, for zero-shot: for a training half ask for {OBJ_ONLY.name}={place}"
            )
        parts: tuple[Half, ...] = ("train", "test") if self.whole else (part,)
        path = Path(place)
        if path.suffix == ".h5":
            if not self._may_be(path):
                raise ValueError(f"{path} is not of {self.told}: ask for it by the name of its variant")
            return self._of_arrays(f"one file, {path.parent.name}/{path.name}", [_h5(path)])
        if path.name == "xyz_label.npy" or (self.whole and (path / "xyz_label.npy").is_file()):
            if not self.whole:
                raise ValueError(f"{path} does not tell the halves apart: give the folder h5_files, or ask for {ZERO_SHOT.name}")
            path = path / "xyz_label.npy" if path.is_dir() else path
            return self._of_arrays(f"{self.told}, OpenShape's file", [_npy(path)])
        halves = "both halves" if self.whole else {"train": "training half", "test": "test half"}[part]
        for folder in (path / "h5_files" / self.folder, path / self.folder, path):
            files = [folder / f"{_FILES[one]}{self.ending}.h5" for one in parts]
            if any(file.is_file() and self._may_be(file) for file in files):
                where = "" if folder.name == self.folder else f" of {folder.name}"
                return self._of_arrays(f"{self.told}, {halves}{where}", [_h5(file) for file in files])
        for folder in (path / "object_dataset", path):
            if not self.ending and any(folder.glob("*/*.bin")):
                return self._of_scans(folder, parts, f"{self.told}, {halves}, all points with colours")
        wanted = f"h5_files/{self.folder}/{_FILES[parts[-1]]}{self.ending}.h5" + (" or xyz_label.npy" if self.whole else "")
        raise ValueError(f"{place} holds no {halves} of {self.told}: give the folder with {wanted}")

    def _may_be(self, file: Path) -> bool:
        """Whether the names that the file and its folder officially have let it be of this variant; other names tell nothing."""
        folder, name = _FOLDER.fullmatch(file.parent.name), _FILE.fullmatch(file.stem)
        return not (folder and bool(folder[1]) != self.folder.endswith("_nobg")) and not (name and name[1] != self.ending)

    def _of_arrays(self, variant: str, sets: list["_Clouds"]) -> Benchmark:
        owner = [(one, row) for one in sets for row in range(len(one.labels))]

        def cloud(number: int) -> Cloud:
            one, row = owner[number]
            xyz, rgb = one.read()
            return checked(f"{one.place}, row {row}", xyz[row], None if rgb is None else rgb[row], up="+y", most=1.0)

        return Benchmark(
            name=self.name,
            variant=variant,
            classes=CLASSES,
            ids=tuple(f"scanobjectnn/{one.place.stem}/{row}" for one, row in owner),
            labels=np.concatenate([one.labels for one in sets]),
            cloud=cloud,
        )

    def _of_scans(self, root: Path, parts: Iterable[Half], variant: str) -> Benchmark:
        listed = _beside(root, "main_split.txt")
        objects = _main_split(listed, parts)
        places = {place.name: place for place in root.glob("*/*.bin")}
        short = {name for name in objects if name in places and places[name].stat().st_size < 4 * (1 + _COLUMNS * _LEAST_POINTS)}
        there = [name for name in objects if name in places and name not in short]
        instances = _instances(_beside(root, "object_labels.txt")) if self.folder == OBJ_ONLY.folder else None
        return Benchmark(
            name=self.name,
            variant=variant,
            classes=CLASSES,
            ids=tuple(f"scanobjectnn/{name.removesuffix('.bin')}" for name in there),
            labels=np.array([objects[name] for name in there], np.int64),
            missing=tuple(f"scanobjectnn/{name.removesuffix('.bin')}" for name in objects if name not in places),
            cloud=lambda number: _scan(places[there[number]], instances),
            file=lambda number: str(places[there[number]]),
        )


ZERO_SHOT = Variant("scanobjectnn", "OBJ_ONLY", "main_split_nobg", whole=True)
OBJ_ONLY = Variant("scanobjectnn-obj-only", "OBJ_ONLY", "main_split_nobg")
OBJ_BG = Variant("scanobjectnn-obj-bg", "OBJ_BG", "main_split")
VARIANTS = (
    *(ZERO_SHOT, OBJ_ONLY, OBJ_BG),
    Variant("scanobjectnn-pb-t25", "PB_T25", "main_split", "_augmented25_norot"),
    Variant("scanobjectnn-pb-t25-r", "PB_T25_R", "main_split", "_augmented25rot"),
    Variant("scanobjectnn-pb-t50-r", "PB_T50_R", "main_split", "_augmentedrot"),
    Variant("scanobjectnn-pb-t50-rs", "PB_T50_RS", "main_split", "_augmentedrot_scale75"),
)


@dataclass(frozen=True)
class _Clouds:
    """Clouds in one file: labels, and what reads (n, p, 3) points and colours, once."""

    place: Path
    labels: Int64[np.ndarray, " n"]
    read: Callable[[], tuple[np.ndarray, np.ndarray | None]]


def _h5(place: Path) -> _Clouds:
    if not place.is_file():
        raise ValueError(f"there is no {place}: put it there, or give the one file that is to be read")

    def points() -> tuple[np.ndarray, None]:
        with _opened(place) as file:
            return file["data"][:], None

    with _opened(place) as file:
        absent = [name for name in ("data", "label") if not isinstance(file.get(name), h5py.Dataset)]
        if absent:
            raise ObjectError("malformed", f"{place} has no {' and no '.join(absent)}: it is no file of ScanObjectNN")
        labels = file["label"][:]
        _check_shapes(place, file["data"].shape, labels)
    return _Clouds(place, labels.astype(np.int64), cache(points))


@contextmanager
def _opened(place: Path) -> Iterator[h5py.File]:
    """An h5 file to be read. Raises ObjectError: truncated, unreadable."""
    try:
        with h5py.File(place, "r") as file:
            yield file
    except OSError as error:
        reason = "truncated" if "truncated" in str(error) else "unreadable"
        raise ObjectError(reason, f"{place} is no whole HDF5 file ({error}): get it again") from error


def _npy(place: Path) -> _Clouds:
    data = load_pickled(place, mapped(place))
    fields = {name: plain(data[name]) for name in ("xyz", "label", "rgb") if name in data} if isinstance(data, dict) else {}
    if not all(isinstance(fields.get(name), np.ndarray) for name in ("xyz", "label")):
        raise ObjectError("malformed", f"{place} is no dictionary with arrays xyz and label; get the file again")
    _check_shapes(place, fields["xyz"].shape, fields["label"])
    rgb = fields.get("rgb")
    if rgb is not None and (not isinstance(rgb, np.ndarray) or rgb.shape != fields["xyz"].shape):
        raise ObjectError("shape_mismatch", f"{place} has points {fields['xyz'].shape} and not as many colours; get the file again")
    return _Clouds(place, fields["label"].astype(np.int64), lambda: (fields["xyz"], rgb))


def _check_shapes(place: Path, points: tuple[int, ...], labels: np.ndarray) -> None:
    if len(points) != 3 or points[2] != 3 or labels.shape != points[:1] or labels.dtype.kind not in "iu":
        raise ObjectError(
            "shape_mismatch",
            f"{place} has points {points} and labels {labels.shape}: must be (n, p, 3), and a whole number for each; get it again",
        )
    if not ((labels >= 0) & (labels < len(CLASSES))).all():
        raise ObjectError("bad_label", f"{place} has labels {labels.min()}..{labels.max()}, must be 0..{len(CLASSES) - 1}")


def _beside(root: Path, name: str) -> Path:
    for folder in (root, root.parent, root.parent / "training_data"):
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"there is no {name} in {root} or beside it: take it from training_data/ of the official repository")


def _main_split(place: Path, parts: Iterable[Half]) -> dict[str, int]:
    """Class of each scan of these halves, by file name: lines "014_00018.bin, class[, t]", parted by tabs; t: for testing."""
    objects = {}
    for number, line in enumerate(place.read_text().splitlines(), 1):
        match line.split():
            case [name, label, *rest] if label.isdecimal() and int(label) < len(CLASSES) and rest in ([], ["t"]):
                if ("test" if rest else "train") in parts:
                    objects[name] = int(label)
            case _:
                raise ValueError(f"{place}, line {number}: {line[:80]!r} is no file, a class 0..{len(CLASSES) - 1}, and maybe t")
    return objects


def _instances(place: Path) -> dict[str, int]:
    """Which instance of its scene a scan is of, by file name: lines "255, 00001, cabinet, 363650", parted by tabs."""
    instances = {}
    for number, line in enumerate(place.read_text().splitlines(), 1):
        match line.split():
            case [scene, object, _, instance] if instance.isdecimal():
                instances[f"{scene}_{object}.bin"] = int(instance)
            case _:
                raise ValueError(f"{place}, line {number}: {line[:80]!r} is no scene, object, class and instance")
    return instances


def _scan(place: Path, instances: dict[str, int] | None) -> Cloud:
    """All points of a scan, or those of its object."""
    numbers = np.fromfile(place, "<f4")
    if not len(numbers) or len(numbers) != 1 + _COLUMNS * numbers[0]:
        raise ObjectError("truncated", f"{place} has {len(numbers)} numbers, not as many as it says itself: get it again")
    points = numbers[1:].reshape(-1, _COLUMNS)
    if instances is not None:
        if place.name not in instances:
            raise ObjectError("unlisted", f"{place}: object_labels.txt does not say which of its points are the object")
        points = points[points[:, 9] == instances[place.name]]
    return checked(place, points[:, :3], points[:, 6:9], up="+y")
