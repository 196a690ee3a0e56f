"""The canary: do the stored embeddings of pictures, texts and class names belong together? Told in a minute, before anyone trains.

Each object's views are averaged and looked up among class names and among captions; a teacher that knows the objects finds their
own. Beside every figure stands what the same embeddings reach when rows are dealt out to objects by chance.

It notices: rows swapped among objects, all of them or a run of them in the table's order; texts or class names with the embeddings
of others; embeddings of another teacher; vectors that are all the same; one camera that shows nothing; on Objaverse-LVIS,
preprocessing that costs a teacher much of what is known of it.
It cannot notice: a few swapped rows strewn over the table (of a tenth, nine tenths of the agreement are left); views of an object
in another order; small errors of preprocessing, where nothing is published to compare with; anything at all, where the teacher
knows nothing of the objects. Encoding some views and texts again (`pipeline/reencode.py`) tells those.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64

from schemas.check import matrix, vectors_of
from schemas.corpus import Reader
from schemas.labels import Said, class_names, pairs, usual_split
from schemas.tables import CAPTIONS

TOP = (1, 3, 5)
# Objects that are classified, and objects among whose captions the own ones are looked for: a sample of the table, by chance.
MOST_CLASSIFIED = 10_000
MOST_CAPTIONED = 2_000

# Standard deviations above rows dealt out by chance: that many are needed, or half of what perfect embeddings of so few objects
# would reach. Where that is less than the third number, nothing can be told.
Z_NEEDED, SHARE_OF_PERFECT, Z_LEAST = 5.0, 0.5, 3.0
# A run of rows counts as shuffled when its agreement is this many standard errors below the others' and not above nothing.
RUNS, ROWS_IN_RUN, RUN_BELOW, RUN_ABOVE = 20, 50, 5.0, 3.0
# A view number that has less than this share of what the others have above chance, by more than so many standard errors, is bad.
VIEW_SHARE, VIEW_BELOW = 0.5, 5.0
MOST_VIEWS = 64  # view numbers looked at one by one
# Mean of 1 - cosine between objects; CLIP's is 0.3 and more.
LEAST_SPREAD = 1e-3

# Top-1, 3, 5 of the unnormalised mean of 12 views, no training, by teacher and split: DuoduoCLIP (Lee et al., ICLR 2025), table of
# zero-shot classification.
KNOWN = {
    ("ViT-bigG-14:laion2b_s39b_b160k", "objaverse-lvis"): (0.435, 0.642, 0.713),
    ("ViT-B-32:laion2b_s34b_b79k", "objaverse-lvis"): (0.357, 0.548, 0.621),
}
KNOWN_FROM = 1_000  # objects from which on a comparison with them means something
FLOOR = 0.8  # share of the known top-1 below which something is wrong

_OBJECTS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Found:
    """How often an object's own was among the nearest.

    `asked`: what was looked up, in words; `objects` looked up among `choices`. `top`: shares of objects whose own was among the
    nearest 1, 3, 5; `chance`: the same when rows are dealt out to objects by chance. `z`: how many standard deviations the mean
    cosine with the own lies above that; `z_needed`: how many there must be, None: too few objects, or too much alike, to tell.
    `views`: per view number the share of top-1 of that view alone, and of how many objects. `spread`: mean of 1 - cosine between
    objects. `shuffled_runs`: first and last place, in the image table, of runs of rows that look dealt out by chance.
    """

    asked: str
    objects: int
    choices: int
    top: tuple[float, ...]
    chance: tuple[float, ...]
    z: float
    z_needed: float | None
    views: tuple[tuple[float, int], ...]
    spread: float
    shuffled_runs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Canary:
    """What was found in a corpus. `objects`: those with embedded views; `averaged`: how an object's views were made one vector.
    `known`: top-1, 3, 5 that others published for this teacher and split. `notes`: what could not be asked, or is good to know;
    `problems`: why not to train on it, a sentence each; none: fit to train on."""

    root: str
    teacher: str
    weights_sha256: str | None
    objects: int
    averaged: str
    classes: Found | None
    captions: Found | None
    known: tuple[float, ...] | None
    floor: float
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def canary(
    root: str,
    teacher: str,
    *,
    split: str | None = None,
    floor: float = FLOOR,
    classified: int = MOST_CLASSIFIED,
    captioned: int = MOST_CAPTIONED,
    seed: int = 0,
) -> Canary:
    """Look up the objects' mean embeddings among class names and captions.

    teacher: its name in tables. split: the list whose labels are the objects' classes; None: objaverse-lvis, else the only list
    with labels, else the objects' own categories. floor: share of the known top-1 that must be reached. classified, captioned: how
    many objects are looked up, at most. seed: of their choice.
    Raises CorpusError when the views have not been embedded, when the tables are of different teachers, or when there is no such
    split.
    """
    corpus = Reader.at(root)
    images = corpus.need(f"image_embeddings/{teacher}")
    identity = corpus.teacher_of(teacher)
    ids = images.to_table(columns=["object_id"])["object_id"].combine_chunks()
    raw = len(ids) > 0 and images.count_rows("lengths IS NULL") == 0
    notes: list[str] = []
    problems: list[str] = []
    rng = np.random.default_rng(seed)
    found: dict[str, Found | None] = {}
    split = split or usual_split(corpus)
    for about in (_about_classes(corpus, teacher, split, raw), _about_captions(corpus, teacher)):
        most = classified if about.whole else captioned
        question = _question(about, ids, most, rng, corpus, notes)
        found[about.what] = _ask(question, about.asked, images, raw) if question else None
        if question:
            problems += _problems(found[about.what], about)
            if found[about.what].z_needed is None:
                notes.append(f"{about.what}: too few objects, or too much alike, to tell agreement from chance")
    classes, captions = found.values()
    if classes is None and captions is None:
        problems.append(
            f"nothing of {root} can be looked up: no object has both embedded views and an embedded caption or class name "
            f"(python -m jobs caption {root}, then python -m jobs embed {root} --teacher {teacher})"
        )
    known = KNOWN.get((teacher, split)) if classes else None
    if known and classes.objects < KNOWN_FROM:
        notes.append(f"{classes.objects:,} objects are too few to compare with the published figures ({KNOWN_FROM:,} needed)")
        known = None
    if known and classes.top[0] < floor * known[0]:
        problems.append(
            f"top-1 on {split} is {classes.top[0]:.1%}; published for {teacher} are {known[0]:.1%}, and {floor:.0%} of that is the "
            "floor: preprocessing, cameras, or a part of the rows is wrong"
        )
    return Canary(
        root=corpus.root,
        teacher=teacher,
        weights_sha256=identity and identity["weights_sha256"],
        objects=len(ids),
        averaged="raw vectors" if raw else "unit vectors",
        classes=classes,
        captions=captions,
        known=known,
        floor=floor,
        notes=tuple(notes),
        problems=tuple(problems),
    )


# What is said of the objects


@dataclass(frozen=True, kw_only=True)
class _About:
    """Names or texts that belong to objects. `said`: table, column of the keys and condition; `gallery`: table, its key and its
    column of vectors; `whole`: to choose from is what is said of any object, not only of those that are looked up."""

    what: str
    asked: str
    said: Said
    gallery: tuple[str, str, str]
    whole: bool


def _about_classes(corpus: Reader, teacher: str, split: str | None, raw: bool) -> _About:
    return _About(
        what="class names",
        asked=f"labels of {split}" if split else "categories",
        said=class_names(corpus, split),
        # The published figures come from unnormalised means on both sides.
        gallery=(f"class_embeddings/{teacher}", "name", "raw_mean" if raw else "embedding"),
        whole=True,
    )


def _about_captions(corpus: Reader, teacher: str) -> _About:
    return _About(
        what="captions",
        asked="captions",
        said=(CAPTIONS.name, "text_sha256", "kept"),
        gallery=(f"text_embeddings/{teacher}", "text_sha256", "embedding"),
        whole=False,
    )


# Looking up


class _Question:
    """Objects, what they may choose from, and which of it is theirs.

    `places` (n,): rows of the image table, ascending. `gallery` (m, d): unit vectors. `own` (n, most): the gallery's rows that are
    the object's, the first repeated where there are fewer. Objects to which the same rows belong form a kind: `kind` (n,),
    `kind_size` (kinds,); `members` of all kinds one after the other, each from `starts` (kinds,) on.
    """

    def __init__(self, places: Int64[np.ndarray, " n"], gallery: Float32[np.ndarray, "m d"], own: list[tuple[int, ...]]):
        self.places, self.gallery = places, gallery
        most = max(map(len, own))
        self.own = np.array([rows + rows[:1] * (most - len(rows)) for rows in own])
        kinds = {rows: number for number, rows in enumerate(dict.fromkeys(own))}
        self.kind = np.array([kinds[rows] for rows in own])
        self.kind_size = np.bincount(self.kind)
        self.members = np.array([row for rows in kinds for row in rows])
        self.starts = np.cumsum([0] + [len(rows) for rows in kinds])[:-1]


def _question(
    about: _About, ids: pa.Array, most: int, rng: np.random.Generator, corpus: Reader, notes: list[str]
) -> _Question | None:
    """The objects to look up, chosen by chance among those that have views and something said of them; None: there are none."""
    has = np.zeros(len(ids), bool)
    keys = pa.array([], pa.string())
    for objects, said in pairs(corpus, about.said):
        has[pc.drop_null(pc.index_in(objects, ids)).to_numpy()] = True
        if about.whole:
            keys = pc.unique(pa.concat_arrays([keys, said]))
    places = np.flatnonzero(has)
    if not len(places):
        notes.append(f"{about.what}: no object with embedded views has any")
        return None
    if len(places) > most:
        places = np.sort(rng.choice(places, most, replace=False))
    chosen = ids.take(pa.array(places))
    said_of, said = [], []
    for objects, texts in pairs(corpus, about.said):
        mine = pc.is_in(objects, chosen)
        said_of.append(objects.filter(mine))
        said.append(texts.filter(mine))
    said_of, said = pa.concat_arrays(said_of), pa.concat_arrays(said)
    keys = keys if about.whole else pc.unique(said)
    vectors, keys = _gallery(about, keys, corpus, notes)
    if not len(keys):
        return None  # `notes` say why
    belongs = pa.table({"object": pc.index_in(said_of, chosen), "key": pc.index_in(said, keys)}).drop_null()
    own: dict[int, set[int]] = {}
    for object, key in zip(belongs["object"].to_pylist(), belongs["key"].to_pylist(), strict=True):
        own.setdefault(object, set()).add(key)
    asked = sorted(own)
    return _Question(places[asked], vectors, [tuple(sorted(own[object])) for object in asked]) if asked else None


def _gallery(about: _About, keys: pa.Array, corpus: Reader, notes: list[str]) -> tuple[Float32[np.ndarray, "m d"], pa.Array]:
    """Unit vectors of the keys that have any, and these keys."""
    table, column, vector = about.gallery
    teacher = table.partition("/")[2]
    make = f"python -m jobs embed {corpus.root} --teacher {teacher}"
    dataset = corpus.open(table)
    if dataset is None:
        notes.append(f"{about.what}: there is no table {table} ({make})")
        return np.zeros((0, 0), np.float32), keys[:0]
    stored = pc.index_in(keys, dataset.to_table(columns=[column])[column].combine_chunks())
    if stored.null_count == len(stored):
        notes.append(f"{about.what}: none of the {len(keys):,} there are has an embedding in {table} ({make})")
        return np.zeros((0, 0), np.float32), keys[:0]
    if stored.null_count:
        notes.append(f"{about.what}: {stored.null_count:,} of {len(keys):,} have no embedding yet ({make})")
    rows = dataset.take(pc.drop_null(stored).to_numpy(), columns=[vector])
    return _unit(matrix(rows[vector]).astype(np.float32)), keys.filter(stored.is_valid())


def _ask(question: _Question, asked: str, images: Any, raw: bool) -> Found:
    """Look up every object of the question by the mean of its views, and by each view alone.

    Mean and variance of the cosines when rows are dealt out by chance are exact (Hoeffding, "A combinatorial central limit
    theorem", 1951); nothing is shuffled.
    """
    n, weights = len(question.places), question.kind_size
    hits, chance = np.zeros(len(TOP)), np.zeros(len(TOP))
    own, of_row, best_possible = np.zeros(n), np.zeros(n), 0.0
    of_kind, squares = np.zeros(len(weights)), 0.0
    view_hits, view_count = np.zeros(MOST_VIEWS), np.zeros(MOST_VIEWS, int)
    middle = np.zeros(question.gallery.shape[1])
    for first in range(0, n, _OBJECTS_AT_ONCE):
        part = slice(first, min(first + _OBJECTS_AT_ONCE, n))
        views, counts, means = _vectors(images, question.places[part], raw)
        middle += means.sum(axis=0)
        cosine = means @ question.gallery.T
        mine = np.take_along_axis(cosine, question.own[part], axis=1).max(axis=1)
        rank = _rank(cosine, mine)
        hits += [(rank < k).sum() for k in TOP]
        # What another object's row would find: the best of each kind's members, for every row.
        best = np.maximum.reduceat(cosine[:, question.members], question.starts, axis=1)
        nearest = -np.sort(np.partition(-cosine, min(TOP[-1], cosine.shape[1] - 1), axis=1)[:, : TOP[-1]], axis=1)
        chance += [((best >= nearest[:, :k][:, -1:]) @ weights).sum() / n for k in TOP]
        best = best.astype(np.float64)
        own[part], of_row[part] = mine, best @ weights / n
        of_kind += best.sum(axis=0)
        squares += ((best * best) @ weights).sum()
        best_possible += best.max(axis=1).sum()
        # Each view alone
        view = np.concatenate([np.arange(count) for count in counts])
        of = np.repeat(np.arange(part.start, part.stop), counts)
        views, view, of = (values[view < MOST_VIEWS] for values in (views, view, of))
        cosine = views @ question.gallery.T
        right = _rank(cosine, np.take_along_axis(cosine, question.own[of], axis=1).max(axis=1)) < 1
        view_hits += np.bincount(view, right, MOST_VIEWS)
        view_count += np.bincount(view, minlength=MOST_VIEWS)
    of_kind /= n
    overall = float(of_row.mean())
    variance = max(0.0, squares - n * (of_row**2).sum() - n * (of_kind**2 * weights).sum() + n**2 * overall**2) / max(n - 1, 1)
    deviation = np.sqrt(variance) if np.sqrt(variance / n) > 1e-5 else np.inf  # less is rounding: the rows do not differ
    agreement = own - of_row - of_kind[question.kind] + overall
    needed = min(Z_NEEDED, SHARE_OF_PERFECT * (best_possible - n * overall) / deviation)
    too_alike = len(weights) == 1
    return Found(
        asked=asked,
        objects=n,
        choices=len(question.gallery),
        top=tuple((hits / n).tolist()),
        chance=tuple((chance / n).tolist()),
        z=float((own.sum() - n * overall) / deviation),
        z_needed=None if too_alike or (np.isfinite(deviation) and needed < Z_LEAST) else float(max(needed, Z_LEAST)),
        views=tuple((float(hit / count), int(count)) for hit, count in zip(view_hits, view_count, strict=True) if count),
        spread=1 - float(((middle / n) ** 2).sum()),
        shuffled_runs=tuple(_shuffled_runs(agreement, question.places)),
    )


def _rank(cosine: Float32[np.ndarray, "n m"], mine: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """How many choices are nearer than the own one; of those that are as near, half."""
    nearer, as_near = (cosine > mine[:, None]).sum(axis=1), (cosine == mine[:, None]).sum(axis=1)
    return nearer + (as_near - 1) / 2


def _shuffled_runs(agreement: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of rows whose agreement with their own is that of rows dealt out by chance, among others whose is not."""
    runs = min(RUNS, len(agreement) // ROWS_IN_RUN)
    if runs < 2:
        return
    for rows in np.array_split(np.arange(len(agreement)), runs):
        others = np.delete(agreement, rows)
        mean, error = agreement[rows].mean(), agreement[rows].std() / np.sqrt(len(rows))
        apart = np.hypot(error, others.std() / np.sqrt(len(others)))
        if mean < RUN_ABOVE * error and others.mean() - mean > RUN_BELOW * apart:
            yield int(places[rows[0]]), int(places[rows[-1]])


def _vectors(
    images: Any, places: Int64[np.ndarray, " b"], raw: bool
) -> tuple[Float32[np.ndarray, "views d"], Int64[np.ndarray, " b"], Float32[np.ndarray, "b d"]]:
    """The views' unit vectors of some objects, how many each has, and each object's mean, brought to unit length. raw: the mean is
    that of the vectors as the teacher gave them."""
    rows = images.take(places, columns=["embedding", "lengths"])
    views, counts = vectors_of(rows["embedding"].combine_chunks())
    views = views.astype(np.float32)
    lengths = rows["lengths"].combine_chunks().flatten().to_numpy()[:, None] if raw else np.float32(1)
    starts = np.cumsum(counts) - counts
    return views, counts, _unit(np.add.reduceat(views * lengths, starts, axis=0))


def _unit(vectors: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


# Judging


def _problems(found: Found, about: _About) -> Iterator[str]:
    if found.spread < LEAST_SPREAD:
        yield (
            f"{about.what}: the image embeddings of all {found.objects:,} objects are nearly the same (mean of 1 - cosine: "
            f"{found.spread:.1e}): the teacher is broken, or all pictures are"
        )
        return
    if found.z_needed is None:
        return
    if found.z < found.z_needed:
        yield (
            f"{about.what}: objects agree with their own no better than with each other's (z = {found.z:.1f}, must be "
            f"{found.z_needed:.1f}): rows of image_embeddings or of {about.gallery[0]} are swapped, or the teacher does not know "
            "these objects"
        )
        return
    for first, last in found.shuffled_runs:
        yield (
            f"{about.what}: rows {first:,} to {last:,} of the image embeddings agree with their own no better than rows dealt out "
            "by chance, while the others do: they are swapped, or of a kind of objects that the teacher does not know"
        )
    shares, counts = (np.array(values) for values in zip(*found.views, strict=True))
    middle, chance = float(np.median(shares)), found.chance[0]
    for number, (share, count) in enumerate(zip(shares, counts, strict=True)):
        error = np.sqrt(middle * (1 - middle) / count)
        if share - chance < VIEW_SHARE * (middle - chance) and middle - share > VIEW_BELOW * error:
            yield (
                f"{about.what}: view {number} alone finds {share:.1%}, the median of the views {middle:.1%}: look at what that "
                f"camera shows (table views, view = {number})"
            )
