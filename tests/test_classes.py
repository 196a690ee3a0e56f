"""Class names to classifiers: which names, which prompts, which mean."""

import hashlib

import numpy as np

from jobs.__main__ import main
from pipeline.classes import PROMPTS, ClassNames, EmbedClasses
from pipeline.run import run
from pipeline.stage import Single, Task
from pipeline.store import Corpus
from pipeline.teacher import Teacher
from pipeline.weights import TINY_TEACHER
from schemas.check import to_table, violations
from schemas.tables import CAPTIONS, OBJECTS, SPLITS
from shout import object_row

STAGE = EmbedClasses(teacher=TINY_TEACHER, device="cpu")


def labelled(corpus: Corpus, *labels: str | None) -> Corpus:
    """The corpus with a list of objects called by these labels."""
    row = {"stage": "import", "stage_key": "k", "split": "list"}
    corpus.create(SPLITS)
    rows = [row | {"object_id": f"test/{number}", "label": label} for number, label in enumerate(labels)]
    corpus.append(SPLITS, corpus.write(SPLITS, to_table(SPLITS, rows)))
    return corpus


def classifiers(corpus: Corpus) -> dict[str, dict]:
    rows = corpus.need(STAGE.writes.name).to_table()
    assert not violations(STAGE.writes, rows)
    return {row["name"]: row for row in rows.to_pylist()}


def embed(corpus: Corpus, stage: EmbedClasses = STAGE):
    [summary] = run(corpus, Single(stage), records=ClassNames(corpus), whole=True)
    return summary


def test_the_prompts_are_ulips_and_never_change():
    assert [len(PROMPTS[name]) for name in ("ulip-64@1", "photo@1")] == [64, 1]
    assert all(prompt.count("{}") == 1 for prompts in PROMPTS.values() for prompt in prompts)
    digests = {name: hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16] for name, prompts in PROMPTS.items()}
    assert digests == {"ulip-64@1": "f2d7885a07ae567c", "photo@1": "e8e367e769f86c27"}


def test_the_class_names_are_labels_and_categories_each_once(corpus):
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, [object_row(50, categories=["vase", "car (automobile)", " "])])))
    labelled(corpus, "mug", None, "vase", "Christmas_tree")
    names = ClassNames(corpus)
    assert [row["name"] for row in names] == ["Christmas_tree", "car (automobile)", "mug", "vase"]
    assert list(names) == list(names)


def test_a_classifier_is_the_mean_over_the_prompts(corpus):
    embed(labelled(corpus, "red_mug", "vase"))
    teacher = Teacher(TINY_TEACHER, device="cpu")
    for name, row in classifiers(corpus).items():
        raw = teacher.text_vectors([prompt.replace("{}", name) for prompt in PROMPTS["ulip-64@1"]])
        assert np.abs(np.linalg.norm(raw, axis=1) - 1).max() > 0.01  # so that the two rules differ
        mean = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).mean(axis=0)
        assert np.allclose(row["embedding"], mean / np.linalg.norm(mean), atol=1e-3)
        assert np.allclose(row["raw_mean"], raw.mean(axis=0), atol=1e-5)
        assert row["dtype"] == "float32"


def test_a_second_run_does_nothing_and_only_what_changed_is_done(corpus):
    assert embed(labelled(corpus, "mug", "vase", "it's")).done == 3
    assert embed(corpus).done == 0
    corpus.delete(SPLITS, ["test/0"])
    labelled(corpus, *[None] * 5, "car")
    assert embed(corpus).done == 1
    assert set(classifiers(corpus)) == {"vase", "it's", "car"}


def test_other_prompts_make_every_classifier_anew(corpus):
    embed(labelled(corpus, "mug", "vase"))
    photo = EmbedClasses(teacher=TINY_TEACHER, device="cpu", prompts="photo@1")
    assert photo.settings() != STAGE.settings() and embed(corpus, photo).done == 2
    vector = Teacher(TINY_TEACHER, device="cpu").encode_texts(["a photo of a mug."])[0]
    assert np.allclose(classifiers(corpus)["mug"]["embedding"], vector, atol=1e-3)


def test_an_unknown_set_of_prompts_is_refused(corpus, tmp_path, capsys):
    settings = tmp_path / "settings.toml"
    settings.write_text('[embed_classes]\nprompts = "ulip-65@1"\n')
    corpus.create(CAPTIONS)
    assert main(["embed", corpus.root, "--teacher", TINY_TEACHER, "--settings", str(settings)]) == 2
    assert "ulip-65@1" in (said := capsys.readouterr().err) and "ulip-64@1, photo@1" in said


def test_embed_makes_classifiers_and_passes_over_a_corpus_without_class_names(corpus, capsys):
    corpus.create(CAPTIONS)
    assert main(["embed", corpus.root, "--teacher", TINY_TEACHER]) == 0
    assert corpus.open(STAGE.writes.name) is None and "embed-classes" not in capsys.readouterr().out
    labelled(corpus, "mug", "vase")
    assert main(["embed", corpus.root, "--teacher", TINY_TEACHER]) == 0
    assert set(classifiers(corpus)) == {"mug", "vase"}
    corpus.delete(SPLITS, ["test/0", "test/1"])  # names that are gone go
    assert main(["embed", corpus.root, "--teacher", TINY_TEACHER]) == 0
    assert classifiers(corpus) == {}


def test_a_name_without_letters_is_no_class(corpus):
    assert list(ClassNames(labelled(corpus, "", " ", None))) == []


def test_a_classifier_does_not_depend_on_what_else_is_embedded():
    work = STAGE.start()
    tasks = [Task(id=f"thing {number}", keys={}, rows=[]) for number in range(3)]
    [*_, together], [alone] = (work(some).rows[STAGE.name] for some in (tasks, tasks[-1:]))
    assert all(np.array_equal(together[column], alone[column]) for column in ("embedding", "raw_mean"))
