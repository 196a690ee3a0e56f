"""ModelNet40 in the three forms that are passed on. A folder has one of them; where it has several, the first counts.

test_split.json, test_pc.npy         OpenShape's and Uni3D's: the test set's clouds; 10,000 points, y up, colour 100 of 255
modelnet40_test.txt, …_train.txt     "resampled" (PointNet++'s): names, and <class>/<name>.txt with lines x,y,z,nx,ny,nz; y up
<class>/{train,test}/*.off           the meshes (https://modelnet.cs.princeton.edu), z up; also below ModelNet40/
"""

import json
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float64

from evaluate.benchmark import Benchmark, Cloud
from evaluate.sets.clouds import Half, checked, numbered
from pipeline.assets.limits import Limits
from pipeline.assets.mesh_file import MeshFile
from pipeline.assets.preflight_others import examine_off
from pipeline.imports.pickled import load_pickled_list, mapped
from pipeline.stage import ObjectError, rng_for
from schemas.tables import POINTS_PER_OBJECT

# In the official order, which is the alphabet's, and spelt as in OpenShape's and Uni3D's class lists, with spaces.
CLASSES = (
    *("airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain", "desk"),
    *("door", "dresser", "flower pot", "glass box", "guitar", "keyboard", "lamp", "laptop", "mantel", "monitor", "night stand"),
    *("person", "piano", "plant", "radio", "range hood", "sink", "sofa", "stairs", "stool", "table", "tent", "toilet", "tv stand"),
    *("vase", "wardrobe", "xbox"),
)


def modelnet40(place: str, part: Half) -> Benchmark:
    """The test or training half, from the folder that holds it, or a file in there. Raises ValueError, ObjectError."""
    root = Path(place).parent if Path(place).is_file() else Path(place)
    if (root / "test_pc.npy").is_file():
        return _openshape(root, part)
    for folder in (root, root / "modelnet40_normal_resampled"):
        if (folder / f"modelnet40_{part}.txt").is_file():
            return _resampled(folder, part)
    for folder in (root, root / "ModelNet40"):
        if any(folder.glob(f"*/{part}")):
            return _meshes(folder, part)
    raise ValueError(
        f"{place} holds no {part} half of ModelNet40: give the folder with test_split.json and test_pc.npy, with "
        f"modelnet40_{part}.txt, or with <class>/{part}/*.off"
    )


def _openshape(root: Path, part: Half) -> Benchmark:
    if part != "test":
        raise ValueError(f"{root}/test_pc.npy is the test half alone: give the folder of the meshes, or of the resampled clouds")
    place, listed = root / "test_pc.npy", root / "test_split.json"
    try:
        entries = json.loads(listed.read_text())
        names, said = [one["name"] for one in entries], [one["category"].replace("_", " ") for one in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{listed} cannot be read ({error!r}): it must list {{"name", "category"}} of each cloud') from error
    clouds = load_pickled_list(place, mapped(place))
    if len(clouds) != len(names):
        raise ObjectError(
            "shape_mismatch", f"{place} has {len(clouds)} clouds, and {listed.name} lists {len(names)}: get both again"
        )

    def cloud(number: int) -> Cloud:
        one = clouds[number]
        where = f"{place}, {names[number]}"
        if not isinstance(one, dict) or "xyz" not in one:
            raise ObjectError("malformed", f"{where} is no dictionary with xyz; get the file again")
        return checked(where, one["xyz"], one.get("rgb"), up="+y")

    return Benchmark(
        name="modelnet40",
        variant="OpenShape's clouds",
        classes=CLASSES,
        ids=tuple(f"modelnet40/{name}" for name in names),
        labels=numbered(listed, said, CLASSES),
        cloud=cloud,
    )


def _resampled(root: Path, part: Half) -> Benchmark:
    listed = root / f"modelnet40_{part}.txt"
    names = listed.read_text().split()
    places = {name: root / name.rpartition("_")[0] / f"{name}.txt" for name in names}
    there = [name for name in places if places[name].is_file()]

    def cloud(number: int) -> Cloud:
        place = places[there[number]]
        try:
            columns = np.loadtxt(place, delimiter=",", ndmin=2)
        except ValueError as error:
            raise ObjectError("unreadable", f"{place} has lines that are no numbers ({error}): get it again") from error
        return checked(place, columns[:, :3], up="+y")

    return Benchmark(
        name="modelnet40",
        variant=f"resampled clouds, {part} half",
        classes=CLASSES,
        ids=tuple(f"modelnet40/{name}" for name in there),
        labels=numbered(listed, [name.rpartition("_")[0].replace("_", " ") for name in there], CLASSES),
        missing=tuple(f"modelnet40/{name}" for name in places if name not in there),
        cloud=cloud,
        file=lambda number: str(places[there[number]]),
    )


def _meshes(root: Path, part: Half) -> Benchmark:
    places = sorted(root.glob(f"*/{part}/*.off"))
    ids = tuple(f"modelnet40/{place.stem}" for place in places)
    return Benchmark(
        name="modelnet40",
        variant=f"meshes, {POINTS_PER_OBJECT:,} points even by area, {part} half",
        classes=CLASSES,
        ids=ids,
        labels=numbered(root, [place.parent.parent.name.replace("_", " ") for place in places], CLASSES),
        cloud=lambda number: Cloud(_surface(places[number], ids[number]), None, "+z"),
        file=lambda number: str(places[number]),
    )


def _surface(place: Path, id: str) -> Float64[np.ndarray, "n 3"]:
    """Points of a mesh, even by area; the id is the seed. Raises ObjectError: no_area, and what `examine_off` raises."""
    examine_off(MeshFile(place, Limits()))
    mesh = trimesh.load_mesh(place, process=False)
    if not mesh.area > 0:
        raise ObjectError("no_area", f"{place}: the {len(mesh.faces)} triangles have no area")
    return trimesh.sample.sample_surface(mesh, POINTS_PER_OBJECT, seed=rng_for(id, purpose="modelnet40"))[0]
