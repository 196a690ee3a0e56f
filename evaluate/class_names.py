"""Class names as vectors of a teacher's space: from a corpus, from a file that others published, or by the teacher itself.

By which rule a name's prompts become one vector: evaluate/zero_shot.py. A published file holds one vector per class; whatever rule
made it, it is taken as it is.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from evaluate.benchmark import Benchmark
from evaluate.zero_shot import Rule
from pipeline.classes import EmbedClasses
from pipeline.embed import Device
from pipeline.imports.pickled import load_pickled, plain
from pipeline.stage import ObjectError, Task
from pipeline.weights import TeacherError, find_weights, identity, name_in_tables
from schemas.check import matrix
from schemas.corpus import CorpusError, Reader

WEIGHTS = "weights"  # the source that is the teacher itself
FEATURES = "open_clip_text_feat"  # of a class in OpenShape's cat_name_pt_feat.npy
COLUMNS: dict[Rule, str] = {"unit templates": "embedding", "raw templates": "raw_mean"}
NAMED = 5  # classes that are not there, in a sentence


def class_vectors(
    benchmark: Benchmark,
    teacher: str,
    rule: Rule,
    *,
    source: str | None = None,
    weights_sha256: str | None = None,
    device: Device = "auto",
) -> Float32[np.ndarray, "c d"]:
    """The benchmark's classes, in its order; their lengths mean nothing.

    `teacher`: ARCH:PRETRAINED, or a name as tables have it. `source`: the root of a corpus with class_embeddings; an .npy file,
    OpenShape's {name: {"open_clip_text_feat": …}} or an array with a row per class, in the official order; "weights", the teacher
    itself; None: see `class_source`. `weights_sha256`: of the teacher's weights, where they are known: others are refused.
    `device`: for the teacher.
    Raises CorpusError, ObjectError and TeacherError, with a sentence: naming a class that is not there, or the weights.
    """
    source = source or class_source(benchmark, teacher)
    if source == WEIGHTS:
        return _of_weights(benchmark, teacher, rule, weights_sha256, device)
    if source.endswith(".npy"):
        return _of_file(benchmark, Path(source))
    return _of_corpus(benchmark, teacher_in_tables(teacher), rule, source, weights_sha256)


def class_source(benchmark: Benchmark, teacher: str) -> str:
    """Where the class vectors come from if nobody says: the benchmark's corpus, if it has them all; else the teacher's weights.
    Raises TeacherError where these are not here either, and says what to do."""
    if benchmark.corpus is not None:
        table = f"class_embeddings/{teacher_in_tables(teacher)}"
        stored = Reader.at(benchmark.corpus).open(table)
        if stored is not None and set(benchmark.classes) <= set(stored.to_table(columns=["name"])["name"].to_pylist()):
            return benchmark.corpus
    try:
        find_weights(teacher)
    except TeacherError as error:
        raise TeacherError(
            f"the class names of {benchmark.name} have no vectors of {teacher} here. Give --class-embeddings FILE_OR_CORPUS; or "
            f"{error}"
        ) from error
    return WEIGHTS


def source_told(source: str, teacher: str, rule: Rule) -> str:
    """A source and the rule, as results tell them."""
    if source == WEIGHTS:
        return f"{rule}, {EmbedClasses.prompts}, made by the teacher"
    if source.endswith(".npy"):
        return f"as {Path(source).name} has them"
    made = Reader.at(source).made_by(f"class_embeddings/{teacher_in_tables(teacher)}")
    prompts = ", ".join(sorted({one["settings"].get("prompts", "prompts not known") for one in made.values()}))
    return f"{rule}, {prompts or 'prompts not known'}, of {source}"


def teacher_in_tables(teacher: str) -> str:
    """A teacher's name in tables; of a weights file that is not here any more, as it is given."""
    try:
        return name_in_tables(teacher)
    except TeacherError:
        return teacher


def _of_weights(
    benchmark: Benchmark, teacher: str, rule: Rule, weights_sha256: str | None, device: Device
) -> Float32[np.ndarray, "c d"]:
    if weights_sha256 is not None and (found := identity(teacher).weights_sha256) != weights_sha256:
        raise TeacherError(
            f"the weights of {teacher} that are here have SHA-256 {found}, and the encoder's teacher had {weights_sha256}: two "
            "models of one name. Put the right ones here, or give --class-embeddings FILE_OR_CORPUS"
        )
    stage = EmbedClasses(teacher=teacher, device=device)
    made = stage.start()([Task(id=name, keys={}, rows=[]) for name in benchmark.classes])
    by_name = {row["name"]: row[COLUMNS[rule]] for row in made.rows[stage.name]}
    return np.stack([np.asarray(by_name[name], np.float32) for name in benchmark.classes])


def _of_corpus(benchmark: Benchmark, teacher: str, rule: Rule, root: str, weights_sha256: str | None) -> Float32[np.ndarray, "c d"]:
    corpus = Reader.at(root)
    stored = corpus.need(f"class_embeddings/{teacher}").to_table(columns=["name", COLUMNS[rule]])
    said = corpus.teacher_of(teacher)
    if weights_sha256 is not None and said is not None and said["weights_sha256"] != weights_sha256:
        raise CorpusError(
            f"{corpus.root}: embeddings called {teacher} are of weights {said['weights_sha256']}, and the encoder's teacher had "
            f"{weights_sha256}: two models of one name. Cosines between them mean nothing: give --class-embeddings of the right one"
        )
    place = {name: number for number, name in enumerate(stored["name"].to_pylist())}
    if missing := [name for name in benchmark.classes if name not in place]:
        raise CorpusError(
            f"{corpus.root} has no class embeddings by {teacher} of {_some(missing)}: where they are names of the corpus, "
            f"python -m jobs embed {corpus.root} --teacher {teacher} makes them; else give --class-embeddings {WEIGHTS}"
        )
    return matrix(stored[COLUMNS[rule]]).astype(np.float32)[[place[name] for name in benchmark.classes]]


def _of_file(benchmark: Benchmark, path: Path) -> Float32[np.ndarray, "c d"]:
    if not path.is_file():
        raise ObjectError("not_found", f"there is no {path} to take class embeddings from")
    content = path.read_bytes()
    try:
        vectors = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except ValueError:  # objects, or no array at all
        vectors = _of_names(benchmark, path, load_pickled(path, content))
    if vectors.ndim != 2 or len(vectors) != len(benchmark.classes) or vectors.dtype.kind != "f" or not np.isfinite(vectors).all():
        raise ObjectError(
            "no_class_embeddings",
            f"{path} has an array {vectors.shape} of {vectors.dtype}; {benchmark.name} needs finite numbers, a row for each of its "
            f"{len(benchmark.classes):,} classes in the official order",
        )
    return vectors.astype(np.float32)


def _of_names(benchmark: Benchmark, path: Path, told: Any) -> np.ndarray:
    """Rows of the benchmark's classes from {name: {"open_clip_text_feat": (d,) or (1, d)}}."""
    if not isinstance(told, dict) or not all(isinstance(one, dict) and FEATURES in one for one in told.values()):
        raise ObjectError("no_class_embeddings", f'{path} is not OpenShape\'s {{name: {{"{FEATURES}": …}}}}')
    spelt = {_spoken(name): one[FEATURES] for name, one in told.items()}
    if missing := [name for name in benchmark.classes if _spoken(name) not in spelt]:
        raise ObjectError("class_missing", f"{path} has no vectors of {_some(missing)}; it has {len(told):,} classes")
    vectors = [np.ravel(plain(spelt[_spoken(name)])) for name in benchmark.classes]
    if different := [name for name, one in zip(benchmark.classes, vectors, strict=True) if one.shape != vectors[0].shape]:
        raise ObjectError("no_class_embeddings", f"{path}: the vectors of {_some(different)} have other sizes than the first")
    return np.stack(vectors)


def _spoken(name: str) -> str:
    """Lists differ in night_stand and "night stand"."""
    return name.replace("_", " ")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more classes" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more
