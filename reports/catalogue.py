"""What is held of a corpus in memory while somebody looks through it: ids, words, what objects are told apart by, and where their
rows stand in each table. Read once, by scans over a few columns; a million objects with three million captions take about 1 GB.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

from reports.funnel import named, positions, sources_of
from reports.scans import scanned, spread
from schemas.corpus import Reader
from schemas.tables import CAPTIONS, FAILURES, OBJECTS, POINTS, SPLITS, VIEWS

TABLES = (OBJECTS.name, CAPTIONS.name, VIEWS.name, POINTS.name, SPLITS.name, FAILURES.name)  # those that are read
TEXTS_AT_ONCE = 1 << 16  # taken apart into words
# What stands between words is blank; bytes from 128 on are parts of letters, in UTF-8.
BETWEEN_WORDS = bytes(byte if byte > 127 or chr(byte).isalnum() else 32 for byte in range(256))
FACETS = ("license", "category", "split", "captions", "failures", "warning", "made")  # and the source

# Numbers of objects, and for each a text.
Pairs = tuple[np.ndarray, pa.ChunkedArray]


@dataclass(frozen=True)
class Facet:
    """What objects are told apart by, such as their source. `names`: its values; `objects` and `values`: pairs of the number of an
    object and the number of a value that it has; it may have several, or none."""

    names: list[str]
    objects: Int[np.ndarray, " pairs"]
    values: Int[np.ndarray, " pairs"]

    def having(self, name: str, count: int) -> Bool[np.ndarray, " n"]:
        """Which of `count` objects have this value."""
        mask = np.zeros(count, bool)
        if name in self.names:
            mask[self.objects[self.values == self.names.index(name)]] = True
        return mask

    def counts(self, among: Bool[np.ndarray, " n"]) -> list[tuple[str, int]]:
        """How many of these objects have each value, the most frequent first; values that none has are left out."""
        counts = np.bincount(self.values[among[self.objects]], minlength=len(self.names))
        order = np.argsort(-counts, kind="stable")
        return [(self.names[value], int(counts[value])) for value in order if counts[value]]


@dataclass(frozen=True)
class Texts:
    """Texts on objects, as numbers of words: text k is on object `objects[k]`, its words are `words[starts[k]:starts[k + 1]]`."""

    objects: Int[np.ndarray, " m"]
    starts: Int[np.ndarray, " m_1"]
    words: Int[np.ndarray, " words"]


@dataclass(frozen=True)
class Places:
    """Where the rows of objects stand in a table: those of object k are `rows[starts[k]:starts[k + 1]]`, ascending."""

    rows: Int[np.ndarray, " m"]
    starts: Int[np.ndarray, " n_1"]

    def of(self, number: int) -> list[int]:
        """The rows of one object."""
        return self.rows[self.starts[number] : self.starts[number + 1]].tolist()


@dataclass(frozen=True, eq=False)
class Catalogue:
    """`tables`: the open tables (lance datasets), which stay as they were when they were opened. `ids` (n): all objects that the
    sources name; in what follows an object's number is its place among them. `vocabulary`: the words of all texts. `has`: by table,
    which objects have rows in it. `pictured`: of which there is something to see. `reasons` and `why`: the kinds of failures as
    (stage, reason), and for each row of FAILURES the number of its own."""

    tables: dict[str, Any]
    ids: pa.Array
    facets: dict[str, Facet]
    vocabulary: pa.Array
    texts: list[Texts]
    places: dict[str, Places]
    has: dict[str, Bool[np.ndarray, " n"]]
    pictured: Bool[np.ndarray, " n"]
    reasons: list[tuple[str, str]]
    why: Int[np.ndarray, " failures"]

    def number(self, object_id: str) -> int | None:
        """The number of an object; None: there is none of this id."""
        found = pc.index(self.ids, object_id).as_py()
        return None if found < 0 else found

    def rows(self, table: str, number: int, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """An object's rows in a table, of the columns that the table has; none where there is no table."""
        places = self.places[table].of(number) if table in self.places else []
        return self.taken(table, places, columns)

    def taken(self, table: str, places: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Rows of a table by where they stand."""
        if not places:
            return []
        there = self.tables[table].schema.names  # an older corpus lacks what was added since
        wanted = None if columns is None else [name for name in columns if name in there]
        return self.tables[table].take(places, columns=wanted).to_pylist()

    def saying(self, text: str) -> Bool[np.ndarray, " n"]:
        """Which objects have all words of a text, or words that begin so, in their name, categories, tags, labels and kept captions
        together; capitals do not matter. Or have the text in their id."""
        mask = np.ones(len(self.ids), bool)
        for word in words_of(pa.array([text])).flatten().to_pylist():
            if word:
                mask &= self._with(word)
        if not text.strip() or " " in text.strip():
            return mask
        return mask | pc.match_substring(self.ids, text.strip()).to_numpy(zero_copy_only=False)

    def _with(self, word: str) -> Bool[np.ndarray, " n"]:
        meant = pc.starts_with(self.vocabulary, word).to_numpy(zero_copy_only=False)
        mask = np.zeros(len(self.ids), bool)
        for text in self.texts if meant.any() else ():
            places = np.flatnonzero(meant[text.words])
            mask[text.objects[np.searchsorted(text.starts, places, side="right") - 1]] = True
        return mask

    def found(
        self, said: Bool[np.ndarray, " n"], wanted: Mapping[str, str]
    ) -> tuple[Int[np.ndarray, " m"], dict[str, list[tuple[str, int]]]]:
        """Of the objects that have the words, those that have the wanted value of each facet, by number; and for each facet how
        many there would be of each of its values, the other facets being as they are wanted."""
        masks = {name: self.facets[name].having(value, len(self.ids)) for name, value in wanted.items()}
        counts = {}
        for name, facet in self.facets.items():
            others = [mask for other, mask in masks.items() if other != name]
            counts[name] = facet.counts(np.logical_and.reduce([said, *others]))
        return np.flatnonzero(np.logical_and.reduce([said, *masks.values()])), counts


def words_of(texts: pa.Array) -> pa.ListArray:
    """The words of each text, in small letters; may hold empty ones."""
    lower = pc.utf8_lower(texts)
    _, offsets, letters = lower.buffers()
    words = b"" if letters is None else letters.to_pybytes().translate(BETWEEN_WORDS)
    return pc.ascii_split_whitespace(pa.StringArray.from_buffers(len(lower), offsets, pa.py_buffer(words)))


def rows_to_read(corpus: Reader) -> int:
    """How many rows `read` reads."""
    return sum(dataset.count_rows() for name in TABLES if (dataset := corpus.open(name)) is not None)


def read(corpus: Reader, watch: Callable[[int], None] = lambda rows: None) -> Catalogue:
    """Read a corpus' catalogue. `watch` is told how many rows, of `rows_to_read`, have been read by now."""
    tables = {name: dataset for name in TABLES if (dataset := corpus.open(name)) is not None}
    ids = named(corpus)
    everyone = np.arange(len(ids), dtype=np.int32)
    stand: dict[str, list[np.ndarray]] = {name: [np.empty(0, np.int32)] for name in tables}
    values: dict[str, list[Pairs]] = {name: [] for name in FACETS}
    texts: list[Texts] = []
    vocabulary: dict[str, int] = {}
    kept = np.zeros(len(ids), bool)
    done = 0

    def pieces(table: str, *columns: str) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """Numbers of objects, and these columns of their rows."""
        nonlocal done
        for piece in scanned(tables.get(table), ["object_id", *columns]):
            objects = positions(piece["object_id"], ids).astype(np.int32)
            stand[table].append(objects)
            known = objects >= 0  # failures may be of texts
            yield (objects, piece) if known.all() else (objects[known], piece.filter(pa.array(known)))
            watch(done := done + len(objects))

    def note(objects: np.ndarray, said: pa.ChunkedArray) -> None:
        for first in range(0, len(said), TEXTS_AT_ONCE):
            some = words_of(said.slice(first, TEXTS_AT_ONCE).combine_chunks())
            found = some.flatten().dictionary_encode()
            numbers = np.array([vocabulary.setdefault(word, len(vocabulary)) for word in found.dictionary.to_pylist()], np.int32)
            words = numbers[found.indices.to_numpy()]
            texts.append(Texts(objects[first : first + TEXTS_AT_ONCE], some.offsets.to_numpy(), words))

    for objects, piece in pieces(OBJECTS.name, "name", "categories", "tags", "license", "warnings"):
        values["license"].append((objects, piece["license"]))
        values["category"].append(_items(objects, piece["categories"]))
        values["warning"].append(_items(objects, piece["warnings"]))
        words = (piece["name"], pc.binary_join(piece["categories"], "\n"), pc.binary_join(piece["tags"], "\n"))
        note(objects, pc.binary_join_element_wise(*words, "\n", null_handling="replace", null_replacement=""))
    for objects, piece in pieces(CAPTIONS.name, "text", "kept", "origin", "dropped_because"):
        of_kept, of_dropped = (_where(pc.equal(piece["kept"], is_kept), objects, piece) for is_kept in (True, False))
        kept[of_kept[0]] = True
        note(of_kept[0], of_kept[1]["text"])
        values["captions"].append((of_kept[0], _prefixed("kept, of ", of_kept[1]["origin"])))
        values["captions"].append((of_dropped[0], _prefixed("dropped: ", of_dropped[1]["dropped_because"])))
    for _ in pieces(VIEWS.name):
        pass
    for objects, piece in pieces(POINTS.name, "warnings"):
        values["warning"].append(_items(objects, piece["warnings"]))
    for objects, piece in pieces(SPLITS.name, "split", "label"):
        values["split"].append((objects, piece["split"]))
        whose, labelled = _where(pc.is_valid(piece["label"]), objects, piece)
        note(whose, labelled["label"])
    for objects, piece in pieces(FAILURES.name, "stage", "reason"):
        values["failures"].append((objects, pc.binary_join_element_wise(piece["stage"], piece["reason"], ": ")))

    places = {name: _places(np.concatenate(found), len(ids)) for name, found in stand.items()}
    nobody = np.zeros(len(ids), bool)
    has = {name: np.diff(places[name].starts) > 0 if name in places else nobody for name in TABLES}
    for facet, mask, yes, no in (
        ("failures", has[FAILURES.name], "any", "none"),
        ("captions", kept, "some kept", "none kept"),
        ("made", has[VIEWS.name], "views", "no views"),
        ("made", has[POINTS.name], "points", "no points"),
    ):
        values[facet] += [
            (everyone[which], pa.chunked_array([pa.repeat(name, which.sum())])) for which, name in ((mask, yes), (~mask, no))
        ]
    names, source = sources_of(ids)
    facets = {"source": Facet(names, everyone, source.astype(np.int32))}
    facets |= {name: _facet(pairs) for name, pairs in values.items()}
    reasons, why = _kinds(tables.get(FAILURES.name))
    return Catalogue(
        tables=tables,
        ids=ids,
        facets=facets,
        vocabulary=pa.array(vocabulary, pa.string()),
        texts=texts,
        places=places,
        has=has,
        pictured=has[VIEWS.name] | has[POINTS.name] | _thumbnailed(tables.get(FAILURES.name), ids),
        reasons=reasons,
        why=why,
    )


def _where(mask: pa.ChunkedArray, objects: np.ndarray, piece: pa.Table) -> tuple[np.ndarray, pa.Table]:
    return objects[mask.to_numpy()], piece.filter(mask)


def _items(objects: np.ndarray, lists: pa.ChunkedArray) -> Pairs:
    """A pair for each item of the lists."""
    items = spread(pa.table({"object": objects, "item": lists}))
    return items["object"].to_numpy(), items["item"]


def _prefixed(prefix: str, texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(prefix, texts, "")


def _facet(pairs: list[Pairs]) -> Facet:
    chunks = [chunk for _, values in pairs for chunk in values.chunks]
    encoded = pa.chunked_array(chunks, pa.string()).dictionary_encode().combine_chunks()
    names = encoded.dictionary.to_pylist()
    objects = np.concatenate([np.empty(0, np.int32), *(objects for objects, _ in pairs)]).astype(np.int64)
    # an object may have a value twice, as that of two captions
    once = np.unique(objects * max(len(names), 1) + encoded.indices.to_numpy())
    objects, values = np.divmod(once, max(len(names), 1))
    return Facet(names, objects.astype(np.int32), values.astype(np.int32))


def _places(objects: Int[np.ndarray, " m"], count: int) -> Places:
    """Where the rows of `count` objects stand, by the number of the object that each row is of; -1: of none."""
    rows = np.argsort(objects, kind="stable").astype(np.int32)
    return Places(rows, np.searchsorted(objects[rows], np.arange(count + 1, dtype=np.int32)))


def _kinds(failures: Any | None) -> tuple[list[tuple[str, str]], Int[np.ndarray, " failures"]]:
    """Stages and reasons of failures, the most frequent first, and for each row the number of its own."""
    pieces = [piece for piece in scanned(failures, ["stage", "reason"])]
    if not pieces:
        return [], np.empty(0, np.int32)
    rows = pa.concat_tables(pieces)
    encoded = pc.binary_join_element_wise(rows["stage"], rows["reason"], "\n").dictionary_encode().combine_chunks()
    numbers = encoded.indices.to_numpy()
    order = np.argsort(-np.bincount(numbers), kind="stable")
    kinds = [tuple(encoded.dictionary[int(number)].as_py().split("\n", 1)) for number in order]
    return kinds, np.argsort(order).astype(np.int32)[numbers]


def _thumbnailed(failures: Any | None, ids: pa.Array) -> Bool[np.ndarray, " n"]:
    """Of which objects something was made that was not let in, and a picture of it kept."""
    mask = np.zeros(len(ids), bool)
    if failures is not None and "thumbnail" in failures.schema.names:
        for piece in scanned(failures, ["object_id"], "thumbnail IS NOT NULL"):
            objects = positions(piece["object_id"], ids)
            mask[objects[objects >= 0]] = True
    return mask
