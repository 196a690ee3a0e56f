"""Look objects up by a text, a picture, a mesh or another object, and see what was found on a contact sheet.

python -m jobs search /data/corpus "a red wooden chair"

python -m jobs search /data/corpus --picture chair.jpg --where "source = 'abo'" -o chairs.png

python -m jobs search /data/corpus --mesh chair.glb --encoder runs/mine/checkpoints/step-00010000

Objects are compared as a teacher sees them, the mean of its embeddings of their views, or, with --encoder, as that checkpoint does.
Nothing is written to the corpus; with --index the vectors are kept there (table shape_embeddings), and a large corpus gets a vector
index: worth it for more than one search with an encoder, or among more than some ten thousand objects.
"""

import io
import json
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image, ImageOps, UnidentifiedImageError

from evaluate.gallery import Encoded, Gallery, Hit, MeanOfViews, index
from jobs.arguments import Json, Root
from jobs.carry_out import Running, Step, carry_out
from jobs.encode import Found as Named
from jobs.encode import corpus_of, look, read_points
from jobs.progress import duration, progress
from jobs.refusal import Refusal
from pipeline.stage import ObjectError, Row, Single
from pipeline.store import Corpus
from pipeline.teacher import Teacher, unit
from pipeline.weights import TeacherError, identity, name_in_tables, refuse_other_weights
from reports.contact_sheet import Found, Subject, search_sheet, views_around
from schemas.corpus import any_of, quote
from schemas.tables import CAPTIONS, OBJECTS, POINTS, VIEWS
from trainer.encode import Device, Encoder, Up

TILE = 300  # of a query's points, before they are scaled


@dataclass(frozen=True, kw_only=True)
class Job:
    # Folder or URI of the corpus.
    root: Root
    # What to look for, in words; they are embedded as they are typed.
    text: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")] = None
    # Picture of what to look for; may be given several times: so many views of it.
    picture: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    # Mesh, or file of points, of what to look for.
    mesh: Path | None = None
    # Object of the corpus whose like to look for.
    like: str | None = None
    # Checkpoint that the objects are compared by: a folder, the name of a published one, or, with --name, a file.
    encoder: str | None = None
    # Which published checkpoint the file is.
    name: str | None = None
    # Teacher (ARCH:PRETRAINED) whose embeddings the objects are compared by, or who reads the query in the encoder's space.
    # Default: the encoder's own, or the only one of the corpus.
    teacher: str | None = None
    # How many objects to show.
    top: int = 10
    # Only objects of this source.
    source: str | None = None
    # Only objects under this licence, an SPDX id.
    license: str | None = None
    # Only objects that an SQL condition on the table objects holds for.
    where: str | None = None
    # Look at every vector, also where there is an index.
    exact: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # Keep the vectors in the corpus first, or bring them up to date; give many an index. May be all there is to do.
    index: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    # Picture file of the contact sheet; one that is there is replaced.
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("search.png")
    # Which way is up in a file of points: +y with the front to +z, or +z with the front to -y.
    up: Up | None = None
    # cpu, cuda, or auto: a GPU if there is one.
    device: Device = "auto"
    # TOML file with the settings of the stages that a mesh goes through: [limits] [render] [points] [blender].
    settings: Path | None = None
    # Print one JSON object instead of text.
    json: Json = False


@dataclass(frozen=True)
class Query:
    """What is looked for. `told`: in words; `vector` (d,): where it stands, any length; `pictures`: for the sheet; `itself`: the
    object that it is, if it is one of the corpus."""

    told: str
    vector: np.ndarray
    pictures: list[Image.Image] = field(default_factory=list)
    itself: tuple[str, ...] = ()


def main(job: Job) -> int:
    """Bring the gallery up to date if that is wanted, look up, print, and draw the sheet."""
    began = time.monotonic()
    asked = [one for one in (job.text, job.picture, job.mesh, job.like) if one]
    if len(asked) != 1 and not (job.index and not asked):
        raise Refusal('say what to look for: one of "TEXT", --picture FILE, --mesh FILE and --like OBJECT_ID')
    if job.top < 1:
        raise Refusal(f"--top {job.top}: must be 1 or more")
    if not job.output.absolute().parent.is_dir():
        raise Refusal(f"--output {job.output}: there is no folder {job.output.absolute().parent}")
    if job.output.suffix.lower() not in Image.registered_extensions():
        raise Refusal(f"--output {job.output}: the name must end in .png, or as another kind of picture")
    corpus = Corpus.at(job.root)
    corpus.need(OBJECTS.name)
    gallery = opened(job, corpus)
    done = kept(job, gallery) if job.index else None
    if not asked:
        if job.json:
            print(json.dumps({"root": corpus.root, "table": gallery.table, "index": done}))
        return 0
    among = allowed(job, corpus)
    query = query_of(job, gallery)
    looking = time.monotonic()
    with progress("looking", gallery.count()[1], "objects", quiet=job.json) as bar:
        hits = gallery.nearest(
            query.vector, job.top, among=among, without=query.itself, exact=job.exact, watch=lambda done: bar.update(done=done)
        )
    seconds = time.monotonic() - looking
    found = list(described(corpus, hits))
    told = how(gallery, job, among)
    sheet = search_sheet(query.told, query.pictures, [one for one, _ in found], caption=told)
    try:
        sheet.save(job.output)
    except OSError as error:
        raise Refusal(f"--output {job.output}: {error}", exit_code=1) from error
    if job.json:
        rows = [{"score": one.score} | row for one, row in found]
        about = {"root": corpus.root, "query": query.told, "compared": told, "table": gallery.table, "found": rows}
        print(json.dumps(about | {"sheet": str(job.output), "seconds": round(time.monotonic() - began, 2)}, ensure_ascii=False))
    else:
        print(page(query, told, found))
        print(f"\n{job.output}: the objects with their views; looked up in {1000 * seconds:,.0f} ms, all in {elapsed(began)}")
    return 0


def elapsed(began: float) -> str:
    """Time since then, for a person."""
    return duration(time.monotonic() - began)


# ---------------------------------------------------------------------------------------------------------------- the gallery


def opened(job: Job, corpus: Corpus) -> Gallery:
    """The gallery that is asked for; nothing of it is read yet."""
    if job.encoder:
        source = Encoded(root=corpus.root, checkpoint=job.encoder, published=job.name, device=job.device)
        try:
            corpus.need(source.reads)
        except ValueError as error:
            raise Refusal(f"--encoder {job.encoder}: {error}", exit_code=1) from error
        return Gallery(source)
    there = corpus.teachers()
    try:
        teacher = name_in_tables(job.teacher) if job.teacher else there[0] if len(there) == 1 else None
    except TeacherError as error:
        if job.teacher not in there:
            raise Refusal(str(error)) from error
        teacher = job.teacher  # of a weights file that is not here any more
    if teacher is None and there:
        raise Refusal(f"{corpus.root} has embeddings of {len(there)} teachers: say --teacher NAME, one of {', '.join(there)}")
    if teacher is None:
        raise Refusal(
            f"{corpus.root} has no embeddings of any teacher: python -m jobs embed {corpus.root} --teacher ARCH:PRETRAINED, or "
            "search with --encoder CHECKPOINT",
            exit_code=1,
        )
    embedding = corpus.need(f"image_embeddings/{teacher}").schema.field("embedding").type
    return Gallery(MeanOfViews(root=corpus.root, teacher=teacher, dim=embedding.value_type.list_size))


def kept(job: Job, gallery: Gallery) -> str:
    """Bring the kept table and its index up to date; says what was done to the index."""
    carry_out(Running(root=job.root, json=job.json), [Step(Single(gallery.source), embeds=True)])
    with gallery.corpus.lock():
        done = index(gallery)
    if not job.json:
        print(f"  {gallery.table}: {done}\n", flush=True)
    return done


def allowed(job: Job, corpus: Corpus) -> Collection[str] | None:
    """Ids of the objects that may be found; None: all."""
    conditions = [f"{name} = {quote(value)}" for name, value in (("source", job.source), ("license", job.license)) if value]
    conditions += [f"({job.where})"] if job.where else []
    if not conditions:
        return None
    objects = corpus.need(OBJECTS.name)
    try:
        ids = objects.to_table(columns=["object_id"], filter=" AND ".join(conditions))["object_id"].to_pylist()
    except (ValueError, OSError) as error:
        told = str(error).splitlines()[0].partition(", /")[0].rstrip(".")  # what follows is a place in Lance's own code
        columns = ", ".join(objects.schema.names)
        raise Refusal(f"--where {job.where!r} is no condition on the table objects ({told}). Its columns: {columns}") from error
    if not ids:
        raise Refusal(f"there is no object with {' AND '.join(conditions)}", exit_code=1)
    return frozenset(ids)


def how(gallery: Gallery, job: Job, among: Collection[str] | None) -> str:
    """Where it was looked up, and how, in words."""
    stored, there = gallery.count()
    objects = f"{stored or there:,} objects" if among is None else f"{len(among):,} of {stored or there:,} objects"
    source = gallery.source
    told = (
        f"mean of views, {source.teacher}"
        if isinstance(source, MeanOfViews)
        else f"{gallery.table.partition('/')[2]}, {job.encoder}"
    )
    way = "through the index" if gallery.indexed() and not job.exact and among is None else "all looked at"
    late = f"; {there - stored:,} more are not kept yet: search {job.root} --index" if 0 < stored < there else ""
    return f"{objects} of {gallery.corpus.root} by {told}; {way}{late}"


# ---------------------------------------------------------------------------------------------------------------- the query


def query_of(job: Job, gallery: Gallery) -> Query:
    """What is looked for, in the gallery's space. Raises Refusal for what cannot be read, and where weights are missing."""
    encoder = gallery.source.encoder if isinstance(gallery.source, Encoded) else None
    try:
        if job.text:
            return Query(job.text, reader(job, gallery).encode_texts([job.text])[0])
        if job.like:
            return like(gallery, job.like)
        if job.picture:
            pictures = [opened_picture(path) for path in job.picture]
            if encoder and encoder.reads == "views":
                vector = encoder.pictures(pictures)[0]
            else:
                vector = mean_seen(reader(job, gallery), [np.asarray(one) for one in pictures])
            return Query(" ".join(path.name for path in job.picture), vector, pictures)
        return of_mesh(job, gallery, encoder)
    except TeacherError as error:
        raise Refusal(str(error), exit_code=1) from error
    except (ObjectError, UnidentifiedImageError, OSError, ValueError) as error:
        raise Refusal(f"{job.mesh or ' '.join(map(str, job.picture))}: {error}") from error


def reader(job: Job, gallery: Gallery) -> Teacher:
    """The teacher in whose space the gallery is, ready. Raises TeacherError when its weights are missing, or are not those that the
    gallery was made with."""
    if isinstance(gallery.source, MeanOfViews):
        teacher = job.teacher or gallery.source.teacher
        refuse_other_weights(gallery.corpus, teacher)
        return Teacher(teacher, device=job.device)
    said = gallery.source.encoder.card.teacher
    if said is None:
        raise Refusal(
            f"--encoder {job.encoder}: its card names no teacher: a text or picture has no place in its space; --mesh has"
        )
    teacher = job.teacher or said["name"]
    mine = identity(teacher).to_json()
    if differing := [name for name in ("name", "weights_sha256") if name in said and said[name] != mine[name]]:
        what = "; ".join(f"{name} {said[name]}, here {mine[name]}" for name in differing)
        raise TeacherError(
            f"teacher {teacher}: {job.encoder} embeds into the space of another one ({what}): give it with --teacher"
        )
    return Teacher(teacher, device=job.device)


def like(gallery: Gallery, object_id: str) -> Query:
    """An object of the corpus, by its vector in the gallery."""
    vector = gallery.vector(object_id)
    [(one, row)] = described(gallery.corpus, [Hit(object_id, 1.0)])
    pictures = [Image.open(io.BytesIO(view["image"])) for view in one.subject.views]
    name = f" ({row['name']})" if row["name"] else ""
    return Query(f"like {object_id}{name}", vector, pictures or around(one.subject.points), itself=(object_id,))


def of_mesh(job: Job, gallery: Gallery, encoder: Encoder | None) -> Query:
    """A mesh, through the stages of a build, or a file of points. Raises ObjectError."""
    named = Named()
    look(str(job.mesh), named)
    if len(named.ids()) != 1 or named.pictures:
        raise Refusal(f"--mesh {job.mesh}: must be one mesh, or one file of points")
    if named.clouds:
        return of_cloud(job, encoder, named.clouds[0][1])
    teacher = None if encoder else reader(job, gallery)
    with corpus_of(named.meshes, encoder.reads if encoder else "views", settings=job.settings, json=True) as made:
        for failure in made.need("failures").to_table(columns=["reason", "message"]).to_pylist():
            raise ObjectError(failure["reason"], failure["message"])
        [(one, _)] = described(made, [Hit(named.ids()[0], 1.0)])
        images = [view["image"] for view in one.subject.views]
        vector = next(iter(encoder.corpus(made.root)))[1][0] if encoder else mean_seen(teacher, images)
        return Query(job.mesh.name, vector, [Image.open(io.BytesIO(image)) for image in images] or around(one.subject.points))


def of_cloud(job: Job, encoder: Encoder | None, path: Path) -> Query:
    """A file of points, which only an encoder of points can read. Raises ObjectError."""
    if encoder is None or encoder.reads == "views":
        raise Refusal(f"--mesh {path}: points have no views to be compared by: add the --encoder of a checkpoint that reads points")
    if job.up is None:
        raise Refusal(f"{path} does not say which way is up: give --up +y, or --up +z")
    xyz, rgb = read_points(path)
    vector = encoder.points(xyz, rgb, up=job.up)[0]
    middle = (xyz.min(axis=0) + xyz.max(axis=0)) / 2
    xyz = (xyz - middle) / max(np.linalg.norm(xyz - middle, axis=1).max(), 1e-12)
    x, y, z = xyz.T
    upright = xyz if job.up == "+y" else np.stack([x, z, -y], axis=1)
    if rgb is not None and rgb.dtype.kind == "f":
        rgb = (255 * rgb).round().astype(np.uint8)
    return Query(path.name, vector, around({"xyz": upright, "rgb": rgb, "area": None}))


def opened_picture(path: Path) -> Image.Image:
    """A picture file, the way up that its camera noted; with alpha where it has any."""
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file)
        return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def mean_seen(teacher: Teacher, images: list[bytes] | list[np.ndarray]) -> np.ndarray:
    """Unit vector (d,): the mean of a teacher's embeddings of the pictures of one object, as the teacher gives them."""
    vectors = teacher.image_vectors([teacher.prepare(image) for image in images])
    return unit(vectors.mean(axis=0, keepdims=True))[0][0]


def around(points: Row | None) -> list[Image.Image]:
    """Pictures of the points of an object, for the sheet."""
    return views_around(points, 6, TILE) if points else []


# ---------------------------------------------------------------------------------------------------------------- what was found


def described(corpus: Corpus, hits: list[Hit]) -> Iterator[tuple[Found, Row]]:
    """What is known of each object that was found: for the sheet, and as a row for the terminal."""

    def rows(table: str, columns: list[str], where: str = "true") -> dict[str, list[Row]]:
        dataset = corpus.open(table)
        found: dict[str, list[Row]] = {hit.object_id: [] for hit in hits}
        if dataset is not None and hits:
            wanted = f"{any_of('object_id', found)} AND {where}"
            for row in dataset.to_table(columns=["object_id", *columns], filter=wanted).to_pylist():
                found[row["object_id"]].append(row)
        return found

    objects = rows(OBJECTS.name, ["name", "categories", "license", "creator", "source"])
    captions = rows(CAPTIONS.name, ["caption", "text"], "kept")
    views = rows(VIEWS.name, ["view", "image", "width", "height", "intrinsics", "camera_to_world"])
    without = [id for id, found in views.items() if not found]
    points = rows(POINTS.name, ["xyz", "rgb", "area"]) if without else {}
    for hit in hits:
        id = hit.object_id
        about = (objects[id] or [{"object_id": id, "name": None, "categories": [], "license": "unknown", "creator": None}])[0]
        texts = [row["text"] for row in sorted(captions[id], key=lambda row: row["caption"])]
        subject = Subject(
            object_id=id,
            name=about["name"],
            captions=texts,
            views=sorted(views[id], key=lambda row: row["view"]),
            points=next(iter(points.get(id, [])), None) if not views[id] else None,
        )
        licence = f"{about['license']}, {about['creator']}" if about["creator"] else about["license"]
        told = "   ·   ".join([", ".join(about["categories"]) or "(no category)", licence])
        yield Found(subject=subject, score=hit.score, about=told), about | {"caption": texts[0] if texts else None}


def page(query: Query, told: str, found: list[tuple[Found, Row]]) -> str:
    """What was found, a line each, the nearest first."""
    width = max([len(row["object_id"]) for _, row in found], default=9)
    lines = [f"looked for   {query.told}", f"among        {told}", ""]
    lines.append(f"{'rank':>4}  {'score':>6}  {'object':<{width}}  {'name':<28}  {'categories':<28}  licence")
    for rank, (one, row) in enumerate(found, 1):
        name, categories = (_cut(text, 28) for text in (row["name"] or "", ", ".join(row["categories"])))
        lines.append(f"{rank:>4}  {one.score:>6.3f}  {row['object_id']:<{width}}  {name:<28}  {categories:<28}  {row['license']}")
    return "\n".join(lines)


def _cut(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
