"""The report's section on views, against measures made one by one in NumPy."""

import io
import json
from pathlib import Path

import lance
import numpy as np
import pytest
from PIL import Image
from test_report_captions import caption, exhibit

from pipeline.store import Corpus
from reports.contact_sheet import strip
from reports.page import page
from reports.section import Pictures
from reports.views import BLANK, STRIP_BYTES, STRIP_TILE, SUSPICIONS, views
from schemas.check import to_table
from schemas.corpus import Reader
from schemas.tables import CAPTIONS, OBJECTS, VIEWS, image_embeddings, text_embeddings
from shout import object_row

GOOD = {
    "alpha_coverage": 0.25,
    "border_coverage": 0.0,
    "dark_share": 0.0,
    "bright_share": 0.0,
    "luminance": 0.5,
    "color_spread": 0.2,
    "view_variance": 0.05,
    "missing_textures": 0,
    "substituted_materials": 0,
}
TEACHER = "tiny:test"


def picture(level: int, size: int = 16) -> bytes:
    """A grey square."""
    file = io.BytesIO()
    Image.new("RGBA", (size, size), (level, level, level, 255)).save(file, "WEBP", lossless=True)
    return file.getvalue()


def view(object_id: str, number: int, **changes) -> dict:
    return {
        "object_id": object_id,
        "view": number,
        "stage": "render",
        "stage_key": "k",
        "image": picture(10 * number),
        "width": 16,
        "height": 16,
        "intrinsics": [16, 16, 8, 8],
        "camera_to_world": np.eye(4).ravel().tolist(),
        "kind": "rendered",
        "rig": "rig@1",
        "device": "CPU",
        **GOOD,
    } | changes


def put(corpus: Corpus, table, rows: list[dict]) -> None:
    corpus.create(table)
    corpus.append(table, corpus.write(table, to_table(table, rows)))


def made(folder: Path, rows: list[dict] | None, *, captions: list[dict] = (), pieces: int = 1) -> Reader:
    """A corpus of these views, written in so many fragments, and the objects they are of."""
    corpus = Corpus(str(folder))
    ids = sorted({row["object_id"] for row in rows or []})
    put(corpus, OBJECTS, [object_row(number, object_id=id, name=f"Name of {id}") for number, id in enumerate(ids)])
    if rows is not None:
        corpus.create(VIEWS)
        for piece in range(pieces):
            corpus.append(VIEWS, corpus.write(VIEWS, to_table(VIEWS, rows[piece::pieces])))
    if captions:
        put(corpus, CAPTIONS, captions)
    return Reader.at(corpus.root)


def titles(section, title: str) -> list[str]:
    return [one.title for one in exhibit(section, title).pictures]


BAD = {
    "cut_off": {"border_coverage": 0.2},
    "nearly_blank": {"alpha_coverage": 0.005},
    "burnt_out": {"bright_share": 0.8},
    "dark": {"dark_share": 0.8},
    "all_alike": {"view_variance": 1e-5},
    "one_color": {"color_spread": 0.01},
    "missing_textures": {"missing_textures": 2},
    "substituted_materials": {"substituted_materials": 1},
}


def test_every_suspicion_has_its_case():
    assert BAD.keys() == {one.name for one in SUSPICIONS}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_found_and_nothing_else_is(tmp_path, name):
    unknown = dict.fromkeys(BAD[name])
    rows = [view(f"test/{id}", number, **BAD[name] if id == "bad" else {}) for id in ("bad", "good") for number in range(3)]
    rows += [view("test/unknown", number, **unknown) for number in range(3)]
    section = views(made(tmp_path, rows))
    found = section.figures["suspicions"]
    assert {other: one["objects"] for other, one in found.items()} == {other: int(other == name) for other in BAD}
    assert (found[name]["judged"], found[name]["share"]) == (2, 0.5)
    assert (section.figures["suspicious"], section.gates["suspicious_share"]) == (1, 1 / 3)
    title = next(one.title for one in SUSPICIONS if one.name == name)
    pictures = next(one for one in section.exhibits if isinstance(one, Pictures) and one.title == title)
    assert [one.title for one in pictures.pictures] == ["Name of test/bad"]
    assert any(title in warning for warning in section.warnings)


def test_one_view_cut_off_is_enough_and_one_dark_view_is_not(tmp_path):
    rows = [view("test/a", number, **({"border_coverage": 0.1, "dark_share": 0.9} if number == 2 else {})) for number in range(3)]
    found = views(made(tmp_path, rows)).figures["suspicions"]
    assert (found["cut_off"]["objects"], found["dark"]["objects"]) == (1, 0)


def test_figures_agree_with_counting_one_by_one_however_the_rows_are_stored(tmp_path, rng):
    rows = [
        view(
            f"{'ab'[number % 2]}/{number}",
            place,
            **{name: None if rng.random() < 0.1 else float(np.float32(rng.random() ** 4)) for name in list(GOOD)[:6]},
        )
        for number in range(30)
        for place in range(rng.integers(1, 5))
    ]
    shuffled = [rows[number] for number in rng.permutation(len(rows))]
    section = views(made(tmp_path / "a", shuffled, pieces=4))
    figures = section.figures
    assert (figures["views"], figures["objects"]) == (len(rows), 30)
    for name in list(GOOD)[:6]:
        there = [row[name] for row in rows if row[name] is not None]
        assert figures["measures"][name]["median"] == pytest.approx(np.median(there), abs=1e-6)
    covered = [row["alpha_coverage"] for row in rows if row["alpha_coverage"] is not None]
    assert figures["blank_view_share"] == pytest.approx(np.mean(np.less(covered, BLANK)))

    def of(name: str, how) -> list[float]:
        found = ([row[name] for row in rows if row["object_id"] == id and row[name] is not None] for id in sorted(ids))
        return [how(values) for values in found if values]

    ids = {row["object_id"] for row in rows}
    assert figures["suspicions"]["cut_off"]["objects"] == np.sum(np.greater(of("border_coverage", max), 0.02))
    assert figures["suspicions"]["nearly_blank"]["objects"] == np.sum(np.less(of("alpha_coverage", np.mean), 0.01))
    assert figures["sources"]["a"]["views"] == sum(row["object_id"].startswith("a/") for row in rows)
    coverage = exhibit(section, "Coverage")
    assert {name: sum(counts) for name, counts in coverage.series.items()} == {
        source: sum(row["object_id"].startswith(source) and row["alpha_coverage"] is not None for row in rows) for source in "ab"
    }
    border = exhibit(section, "At the border")
    assert sum(map(sum, border.series.values())) == sum((row["border_coverage"] or 0) >= 0.0001 for row in rows)
    other = views(made(tmp_path / "b", sorted(rows, key=lambda row: row["view"])))
    assert other.exhibits == section.exhibits and other.gates == section.gates


def test_a_picture_shows_views_evenly_spread_and_no_other_view_is_read(tmp_path, rng):
    rows = [view("test/a", number, image=picture(20 * number)) for number in range(12)]
    rows = [rows[number] for number in rng.permutation(12)]
    for row in rows:
        if row["view"] not in (0, 3, 6, 9):
            row["image"] = b"no picture"
    shown = exhibit(views(made(tmp_path, rows)), "Some objects by chance").pictures[0]
    with Image.open(io.BytesIO(shown.image)) as opened:
        levels = np.asarray(opened.convert("RGBA"))[STRIP_TILE // 2, STRIP_TILE // 2 :: STRIP_TILE, 0]
    assert np.abs(levels.astype(int) - [0, 60, 120, 180]).max() <= 4


def test_a_strip_is_small_whatever_is_in_it(rng):
    noise = [Image.fromarray(rng.integers(0, 256, (200, 100, 4), np.uint8), "RGBA") for _ in range(4)]
    made_strip = strip(noise, STRIP_TILE, STRIP_BYTES)
    with Image.open(io.BytesIO(made_strip)) as opened:
        assert opened.size == (4 * STRIP_TILE, STRIP_TILE)
    assert len(made_strip) < 1.5 * STRIP_BYTES
    plain = strip([Image.new("RGBA", (64, 64), "red")], STRIP_TILE, STRIP_BYTES)
    assert len(plain) < 1000


def test_best_and_worst_by_the_scores_of_kept_captions(tmp_path):
    rows = [view(f"test/{number}", 0, alpha_coverage=0.9 - 0.1 * number) for number in range(4)]
    captions = [caption(f"test/{number}", 0, "x", score=number / 10) for number in range(3)]
    captions += [caption("test/0", 1, "y", "url", score=0.9), caption("test/3", 0, "z")]
    section = views(made(tmp_path, rows, captions=captions), ranked_shown=2)
    assert titles(section, "Best") == ["Name of test/2", "Name of test/1"]
    assert titles(section, "Worst") == ["Name of test/0", "Name of test/1"]
    assert exhibit(section, "Worst").pictures[0].note.startswith("cosine 0 ")


def test_without_scores_by_the_teacher_and_without_a_teacher_by_coverage(tmp_path):
    rows = [view(f"test/{number}", place, alpha_coverage=0.9 - 0.1 * number) for number in range(4) for place in range(2)]
    captions = [caption(f"test/{number}", 0, f"text {number}") for number in range(4)]
    corpus = made(tmp_path, rows, captions=captions)
    by_coverage = views(corpus, ranked_shown=2)
    assert titles(by_coverage, "Best") == ["Name of test/0", "Name of test/1"]
    assert "no caption has a score" in exhibit(by_coverage, "Best").note
    images, texts = image_embeddings(TEACHER, 2), text_embeddings(TEACHER, 2)
    angles = np.radians([50, 10, 80, 30])
    stage = {"stage": "embed", "stage_key": "k", "dtype": "float32"}
    unit = [[np.cos(angle), np.sin(angle)] for angle in angles]
    put(Corpus(corpus.root), images, [{"object_id": f"test/{n}", "embedding": [unit[n]] * 2, **stage} for n in range(4)])
    put(
        Corpus(corpus.root),
        texts,
        [{"text_sha256": row["text_sha256"], "text": row["text"], "embedding": [1.0, 0.0], **stage} for row in captions],
    )
    by_teacher = views(corpus, ranked_shown=2)
    assert titles(by_teacher, "Best") == ["Name of test/1", "Name of test/3"]
    assert titles(by_teacher, "Worst") == ["Name of test/2", "Name of test/0"]
    assert TEACHER in exhibit(by_teacher, "Best").note


def test_views_of_several_rigs_are_warned_of_and_photos_are_not(tmp_path):
    photos = dict(kind="photo", rig="photos@1", alpha_coverage=None, border_coverage=None, view_variance=None)
    rows = [view("test/a", 0), view("test/b", 0, **photos)]
    assert views(made(tmp_path / "a", rows)).warnings == ()
    warnings = views(made(tmp_path / "b", [*rows, view("test/c", 0, rig="rig@2")])).warnings
    assert len(warnings) == 1 and "rig" in warnings[0]


def test_unmasked_photos_alone_make_a_section(tmp_path):
    photos = dict(kind="photo", alpha_coverage=None, border_coverage=None, view_variance=None, substituted_materials=None)
    section = views(made(tmp_path, [view("test/a", number, **photos) for number in range(2)]))
    assert section.gates["blank_view_share"] is None and section.gates["cut_off_share"] is None
    assert "Coverage" in page([section], title="t", made="m")


def test_without_views_the_same_figures_are_named_and_none_is_known(tmp_path):
    there, absent = views(made(tmp_path / "a", [view("test/a", 0)])), views(made(tmp_path / "b", None))
    assert absent.figures.keys() == there.figures.keys()
    assert absent.figures["suspicions"].keys() == there.figures["suspicions"].keys()
    assert absent.gates == dict.fromkeys(there.gates)
    assert "python -m jobs render" in absent.lead and absent.exhibits == () and absent.warnings == ()
    empty = Corpus(str(tmp_path / "c"))
    empty.create(VIEWS)
    assert views(Reader.at(empty.root)).figures["views"] == 0


def test_a_table_from_before_a_measure_was_made(tmp_path):
    rows = to_table(VIEWS, [view("test/a", number) for number in range(3)])
    lance.write_dataset(rows.drop_columns(["color_spread", "file"]), str(tmp_path / "views.lance"))
    section = views(Reader.at(str(tmp_path)))
    assert section.figures["suspicions"]["one_color"] == {
        "rule": "mean color_spread below 0.03",
        "objects": 0,
        "judged": 0,
        "share": None,
    }
    assert section.figures["measures"]["alpha_coverage"]["median"] == pytest.approx(0.25)


def test_the_section_is_json_and_makes_a_page(tmp_path):
    section = views(made(tmp_path, [view(f"test/{number}", place) for number in range(3) for place in range(3)]))
    json.dumps(section.figures, allow_nan=False)
    assert "Name of test/1" in page([section], title="t", made="m")
