"""Embeddings in the report: cosines as plain loops count them, neighbours as a plain sort finds them, a map that stays the same."""

import io
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
from patchy import caption_row, picture, put, put_points, view_row
from PIL import Image

import reports.agreement
import reports.neighbours
import reports.scans
from pipeline.store import Corpus
from reports.agreement import BINS, GRAIN, above, agreement, spread_of
from reports.embeddings import NARROW, embeddings
from reports.neighbours import laid_out, nearest_of
from reports.page import page
from reports.portraits import called, portraits
from reports.section import Histogram, Map, Pictures
from schemas.corpus import CorpusError, Reader
from schemas.tables import CAPTIONS, OBJECTS, POINTS, VIEWS, image_embeddings, text_embeddings
from shout import object_row

TEACHER = "small:one"
STAGE = {"stage": "s", "stage_key": "k"}


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)


@dataclass
class Seen:
    """Objects of two sources and three classes, each of 1 to 4 views; captions of two origins, each of them near its object. Every
    seventh object has no caption, every fifth shares one with the object before it; of each, one caption is dropped, and one not
    embedded."""

    objects: int = 60
    dim: int = 16
    seed: int = 0
    swapped: bool = False
    order: bool = True  # rows as they come, or the other way round
    views: dict[str, np.ndarray] = field(init=False)
    said: list[tuple[str, str, str]] = field(init=False)  # object, origin, text: kept and embedded
    unsaid: list[dict] = field(init=False)  # rows of CAPTIONS that are not
    texts: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        classes = rng.normal(size=(3, self.dim))
        self.ids = [f"{('alpha', 'beta')[number % 3 == 0]}/{number}" for number in range(self.objects)]
        self.labels = [f"class {number % 3}" for number in range(self.objects)]
        own = [2 * classes[number % 3] + rng.normal(size=self.dim) for number in range(self.objects)]
        self.views = {
            id: unit(vector + 0.3 * rng.normal(size=(rng.integers(1, 5), self.dim)))
            for id, vector in zip(self.ids, own, strict=True)
        }
        self.texts, self.said, self.unsaid = {}, [], []
        for number, id in enumerate(self.ids):
            if number % 7 == 0:
                continue
            for origin in ("human", "machine"):
                text = f"{origin} {number - (number % 5 == 0 and number % 7 != 1)}"
                self.texts.setdefault(text, unit(own[number] + rng.normal(size=self.dim)))
                self.said.append((id, origin, text))
            self.unsaid.append(caption_row(id, 8, f"dropped {number}", dropped="url"))
            self.unsaid.append(caption_row(id, 9, f"never embedded {number}"))
            self.texts[f"dropped {number}"] = unit(rng.normal(size=self.dim))

    def write(self, folder, *, texts: bool = True, pictures: bool = True, teacher: str = TEACHER) -> Reader:
        corpus = Corpus(str(folder))
        step = 1 if self.order else -1

        def rows(several):
            return list(several)[::step]

        put(corpus, OBJECTS, rows(
            object_row(number, object_id=id, source=id.partition("/")[0], categories=[label])
            for number, (id, label) in enumerate(zip(self.ids, self.labels, strict=True))
        ))  # fmt: skip
        vectors = list(self.views.values())
        if self.swapped:
            vectors = vectors[1:] + vectors[:1]
        made = rows(STAGE | {"object_id": id, "embedding": list(vector)} for id, vector in zip(self.views, vectors, strict=True))
        half = len(made) // 2
        put(corpus, image_embeddings(teacher, self.dim), made[:half])  # in two fragments
        put(corpus, image_embeddings(teacher, self.dim), made[half:])
        numbers = Counter()
        captions = []
        for id, origin, text in self.said:
            captions.append(caption_row(id, numbers[id], text) | {"origin": origin})
            numbers[id] += 1
        put(corpus, CAPTIONS, rows([*captions, *self.unsaid]))
        if texts:
            put(corpus, text_embeddings(teacher, self.dim), rows(
                STAGE | {"text_sha256": text, "text": text, "embedding": vector} for text, vector in self.texts.items()
            ))  # fmt: skip
        if pictures:
            put(corpus, VIEWS, rows(view_row(id, 0) for id in self.ids))
        return Reader.at(str(folder))


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="module")
def there(seen, tmp_path_factory) -> Reader:
    return seen.write(tmp_path_factory.mktemp("seen"))


@pytest.fixture(scope="module")
def section(there):
    return embeddings(there)


def of(section, kind):
    return [exhibit for exhibit in section.exhibits if isinstance(exhibit, kind)]


def bins(cosines) -> Counter:
    return Counter(np.rint((np.array(cosines, np.float32) + 1) * GRAIN).astype(int).tolist())


def near(ours: np.ndarray, theirs: Counter) -> bool:
    """The same counts, but for cosines that rounding puts into the next bin."""
    wanted = np.bincount(list(theirs.elements()), minlength=BINS)
    return ours.sum() == wanted.sum() and np.abs(np.cumsum(ours) - np.cumsum(wanted)).max() <= 2


def test_cosines_with_the_own_captions_are_those_of_a_plain_loop_by_origin_and_by_view(seen, there, monkeypatch):
    monkeypatch.setattr(reports.scans, "ROWS_AT_ONCE", 7)
    found = agreement(there, TEACHER, sample=1000)
    assert sorted(found.ids.to_pylist()) == sorted(seen.ids) and found.origins == ["human", "machine"]
    for number, origin in enumerate(found.origins):
        for view in range(4):
            cosines = [
                float(seen.views[id][view].astype(np.float32) @ seen.texts[text].astype(np.float32))
                for id, of_it, text in seen.said
                if of_it == origin and view < len(seen.views[id])
            ]
            assert cosines and near(found.counts[0, number, view], bins(cosines))
    assert found.counts[0, :, 4:].sum() == 0
    for place, id in enumerate(found.ids.to_pylist()):
        own = [seen.texts[text].astype(np.float32) for of_it, _, text in seen.said if of_it == id]
        if own:
            wanted = (seen.views[id].astype(np.float32) @ np.array(own).T).mean()
            np.testing.assert_allclose(found.score[place], wanted, atol=1e-5)
        else:
            assert np.isnan(found.score[place])
        mean = seen.views[id].astype(np.float64).sum(axis=0)
        np.testing.assert_allclose(found.means[place], mean / np.linalg.norm(mean), atol=1e-5)


def test_cosines_with_anothers_captions_leave_out_the_captions_that_both_have(seen, there, monkeypatch):
    monkeypatch.setattr(reports.agreement, "OBJECTS_AT_ONCE", 1000)  # one block: the next one by chance is the next of the ids
    found = agreement(there, TEACHER, sample=1000)
    own = {id: [text for of_it, _, text in seen.said if of_it == id] for id in seen.ids}
    captioned = [id for id in found.ids.to_pylist() if own[id]]
    cosines, left_out = [], 0
    for id, other in zip(captioned, captioned[1:] + captioned[:1], strict=True):
        theirs = [text for text in own[other] if text not in own[id]]
        left_out += len(own[other]) - len(theirs)
        cosines += [
            float(value) for text in theirs for value in seen.views[id].astype(np.float32) @ seen.texts[text].astype(np.float32)
        ]
    assert near(found.counts[1].sum(axis=(0, 1)), bins(cosines))


def test_two_objects_with_one_caption_are_no_mismatched_pair(tmp_path):
    made = Seen(objects=2)
    made.texts = {"the same": made.views[made.ids[0]][0]}
    made.said, made.unsaid = [(id, "human", "the same") for id in made.ids], []
    section = embeddings(made.write(tmp_path))
    assert section.figures["matched"]["pairs"] == sum(map(len, made.views.values()))
    assert section.figures["mismatched"]["pairs"] == 0 and section.figures["matched_above_mismatched"] is None
    assert "Too few" in section.lead


def test_views_with_views_are_counted_within_an_object_and_between_two(seen, there):
    found = agreement(there, TEACHER, sample=1000)
    within = [
        float(one @ other)
        for views in seen.views.values()
        for one, other in zip(views[1:].astype(np.float32), views.astype(np.float32), strict=False)
    ]
    assert near(found.views[0], bins(within))
    medians = [spread_of(counts)["median"] for counts in found.views]
    assert medians[0] > medians[1] + 0.1


def test_the_share_above_is_that_of_all_pairs_with_ties_counted_half(rng):
    some, others = rng.integers(990, 1010, 300), rng.integers(980, 1005, 200)
    wanted = ((some[:, None] > others) + 0.5 * (some[:, None] == others)).mean()
    counts = [np.bincount(values, minlength=BINS) for values in (some, others)]
    assert above(*counts) == pytest.approx(wanted, abs=1e-12)
    assert above(counts[0], counts[0]) == pytest.approx(0.5, abs=1e-12)
    assert above(counts[0], np.zeros(BINS, np.int64)) is None
    told = spread_of(counts[0])
    assert told["pairs"] == 300 and told["mean"] == pytest.approx(some.mean() / GRAIN - 1)
    assert told["median"] == pytest.approx(np.quantile(some, 0.5, method="inverted_cdf") / GRAIN - 1, abs=1e-9)


def test_embeddings_of_other_objects_are_told_from_their_own(section, tmp_path):
    assert section.gates["matched_above_mismatched"] > 0.75
    swapped = embeddings(Seen(swapped=True).write(tmp_path))
    assert swapped.gates["matched_above_mismatched"] < 0.65
    assert swapped.figures["embedding_spread"] == pytest.approx(section.figures["embedding_spread"], abs=1e-6)


def test_figures_say_how_many_of_what(seen, section):
    figures = section.figures
    assert (figures["teacher"], figures["embedded"], figures["sampled"], figures["unembedded_share"]) == (TEACHER, 60, 60, 0)
    assert figures["without_text_share"] == pytest.approx(9 / 60)
    told = figures["teachers"][TEACHER]
    assert told["dim"] == seen.dim and set(told["origins"]) == {"human", "machine"} and set(told["views"]) == set("0123")
    assert told["matched"]["pairs"] == sum(len(seen.views[id]) for id, _, _ in seen.said)
    means = np.array([views.astype(np.float64).sum(axis=0) for views in seen.views.values()])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert figures["embedding_spread"] == pytest.approx(1 - (means @ means.T).mean(), abs=1e-5)


def test_neighbours_are_the_nearest_of_the_whole_table(seen, there, monkeypatch):
    monkeypatch.setattr(reports.neighbours, "STREAMED_AT_ONCE", 7)
    means = np.array([views.astype(np.float64).sum(axis=0) for views in seen.views.values()])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    asked = [seen.ids[3], seen.ids[59]]
    found = nearest_of(there, TEACHER, asked, 5)
    assert list(found) == asked
    for id in asked:
        cosine = means @ means[seen.ids.index(id)]
        wanted = [other for other in np.argsort(-cosine) if seen.ids[other] != id][:5]
        assert [other for other, _ in found[id]] == [seen.ids[other] for other in wanted]
        np.testing.assert_allclose([cosine for _, cosine in found[id]], cosine[wanted], atol=1e-5)


def test_objects_whose_neighbours_are_shown_are_of_all_sources(section):
    asked = [one["object_id"].partition("/")[0] for one in section.figures["neighbours"]]
    assert Counter(asked) == {"alpha": 3, "beta": 3}
    shown = [exhibit for exhibit in of(section, Pictures) if exhibit.title.startswith("Nearest to")]
    assert [len(exhibit.pictures) for exhibit in shown] == [6] * 6


def test_the_map_puts_objects_of_a_class_near_each_other_and_colours_them(seen, section):
    (map,) = of(section, Map)
    assert len(map.x) == len(map.labels) == len(map.pictures) == 60 and all(map.pictures)
    xy, category = np.stack([map.x, map.y], axis=1), np.array(map.colors["category"])
    far = np.linalg.norm(xy[:, None] - xy, axis=2) + np.diag([np.inf] * 60)
    assert (category[far.argmin(axis=1)] == category).mean() > 0.9
    ids = [label.split("\n")[1] for label in map.labels]
    assert list(category) == [seen.labels[seen.ids.index(id)] for id in ids]
    assert list(map.colors["source"]) == [id.partition("/")[0] for id in ids]
    assert map.colors["licence"] == ("CC0-1.0",) * 60
    score = dict(zip(ids, map.colors["cosine with its captions"], strict=True))
    assert {id for id, value in score.items() if value is None} == set(seen.ids[::7])


def test_the_order_of_the_rows_changes_nothing(section, tmp_path):
    other = embeddings(Seen(order=False).write(tmp_path))
    assert other.figures == section.figures and other.lead == section.lead
    for ours, theirs in zip(section.exhibits, other.exhibits, strict=True):
        assert ours == theirs


def test_chance_is_the_seed(there):
    one, other = (agreement(there, TEACHER, sample=20, seed=seed) for seed in (0, 1))
    assert one.ids.to_pylist() != other.ids.to_pylist() and len(one.ids) == len(other.ids) == 20


def test_the_most_frequent_categories_are_told_apart_and_the_others_are_others(tmp_path):
    made = Seen()
    made.labels = [f"class {min(number, 29):02}" for number in range(60)]
    (map,) = of(embeddings(made.write(tmp_path)), Map)
    assert Counter(map.colors["category"])["class 29"] == 31
    assert Counter(map.colors["category"])["other"] == 21 and len(set(map.colors["category"])) == 10


def test_two_corpora_have_charts_of_the_same_names_and_edges(section, tmp_path):
    other = embeddings(Seen(objects=30, seed=5).write(tmp_path))
    assert [(chart.title, chart.edges, list(chart.series)) for chart in of(section, Histogram)] == [
        (chart.title, chart.edges, list(chart.series)) for chart in of(other, Histogram)
    ]
    for chart in of(section, Histogram):
        assert len(chart.edges) == len(next(iter(chart.series.values()))) + 1


def test_a_histogram_is_narrow_where_a_teachers_cosines_are(tmp_path, rng):
    made = Seen(dim=512)
    made.views = {id: unit(rng.normal(size=(2, 512))) for id in made.ids}
    made.texts = {text: unit(rng.normal(size=512)) for text in made.texts}
    chart, *_ = of(embeddings(made.write(tmp_path)), Histogram)
    assert chart.edges[0] == NARROW[0] / GRAIN and chart.edges[-1] == NARROW[1] / GRAIN
    pairs = sum(len(made.views[id]) for id, _, _ in made.said)
    assert sum(chart.series["its own caption"]) == pairs
    low = np.searchsorted(chart.edges, -0.15), np.searchsorted(chart.edges, 0.15)
    assert sum(chart.series["its own caption"][low[0] : low[1]]) > 0.99 * pairs


def test_what_was_not_made_is_not_known(corpus, tmp_path):
    nothing = embeddings(Reader.at(corpus.root))
    assert set(nothing.gates.values()) == {None} and nothing.figures["teachers"] is None and not nothing.exhibits
    assert "embed" in nothing.lead
    no_texts = embeddings(Seen().write(tmp_path / "no texts", texts=False))
    assert no_texts.figures["matched_above_mismatched"] is None and no_texts.figures["embedding_spread"] > 0
    assert "None of them has an embedded caption" in no_texts.lead
    (map,) = of(no_texts, Map)
    assert set(map.colors["cosine with its captions"]) == {None}
    assert no_texts.figures.keys() == nothing.figures.keys()


def test_embeddings_that_are_all_the_same_make_no_map_and_show_in_the_spread(tmp_path):
    made = Seen()
    made.views = {id: unit(np.ones((2, made.dim))) for id in made.ids}
    section = embeddings(made.write(tmp_path))
    assert of(section, Map) == [] and abs(section.gates["embedding_spread"]) < 1e-3
    assert abs(section.gates["matched_above_mismatched"] - 0.5) < 0.1
    assert laid_out(np.eye(9, dtype=np.float32)) is None and laid_out(np.eye(10, dtype=np.float32)).shape == (10, 2)


def test_every_teacher_is_measured_and_one_is_shown(tmp_path):
    Seen().write(tmp_path)
    there = with_a_second_teacher(tmp_path)
    section = embeddings(there, teacher="small:two", problems=["The canary says no."])
    assert section.figures["teacher"] == "small:two" and list(section.figures["teachers"]) == ["small:two", TEACHER]
    both = [section.figures["teachers"][name]["matched_above_mismatched"] for name in ("small:two", TEACHER)]
    assert section.gates["matched_above_mismatched"] == both[0] < both[1]
    assert section.warnings == ("The canary says no.",)
    assert [exhibit.title for exhibit in of(section, Map)] == ["Map of the objects, small:two"]
    with pytest.raises(CorpusError, match=r"no embeddings of teacher 'small:three'; of these it has: small:one, small:two"):
        embeddings(there, teacher="small:three")


def with_a_second_teacher(folder) -> Reader:
    """A second teacher in the corpus, whose embeddings belong to other objects."""
    made, corpus = Seen(), Corpus(str(folder))
    vectors = list(made.views.values())
    rows = zip(made.ids, vectors[1:] + vectors[:1], strict=True)
    put(corpus, image_embeddings("small:two", made.dim), [STAGE | {"object_id": id, "embedding": list(one)} for id, one in rows])
    put(corpus, text_embeddings("small:two", made.dim), [
        STAGE | {"text_sha256": text, "text": text, "embedding": vector} for text, vector in made.texts.items()
    ])  # fmt: skip
    return Reader.at(str(folder))


def test_the_page_shows_it(section):
    html = page([section], title="a corpus", made="by hand")
    assert "Nearest to" in html and "Objects that agree least with their captions" in html


def test_a_portrait_is_the_first_view_or_else_the_points(tmp_path):
    corpus = Corpus(str(tmp_path))
    red, blue = (220, 0, 0), (0, 0, 220)
    put(corpus, VIEWS, [view_row("a/1", view, image=picture(blue if view else red, 64)) for view in (3, 0, 1)])
    put(corpus, VIEWS, [view_row("a/2", 2, image=picture(blue, 8))])
    put_points(corpus, ["a/2", "a/3"], [[], []])
    assert corpus.open(POINTS.name).count_rows() == 2
    made = portraits(Reader.at(str(tmp_path)), pa.array(["a/3", "a/2", "a/1", "a/4"]), side=32)
    assert made.keys() == {"a/1", "a/2", "a/3"}
    opened = {id: Image.open(io.BytesIO(picture)).convert("RGB") for id, picture in made.items()}
    assert opened["a/1"].size == (32, 32) and opened["a/2"].size == (8, 8) and opened["a/3"].size == (32, 32)
    assert np.abs(np.asarray(opened["a/1"], int) - red).max() < 12
    assert np.abs(np.asarray(opened["a/2"], int) - blue).max() < 12


def test_an_object_is_called_by_its_name_or_category_or_id(tmp_path):
    corpus = Corpus(str(tmp_path))
    put(corpus, OBJECTS, [
        object_row(1, name="Lamp"), object_row(2, name=None, categories=["sofa", "seat"]), object_row(3, name=None)
    ])  # fmt: skip
    ids = pa.array([f"test/{number}" for number in (3, 2, 1, 4)])
    found = called(Reader.at(str(tmp_path)), ids)
    assert [found[id].name for id in ids.to_pylist()] == ["test/3", "sofa", "Lamp", "test/4"]
    assert found["test/4"].source == "test" and found["test/4"].license is None and found["test/1"].license == "CC0-1.0"
