"""The report's section on points, on clouds whose figures are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_report_captions import exhibit

from pipeline.store import Corpus
from reports.page import page
from reports.points import clouds_of, points, read
from reports.section import Bars, Pictures
from schemas.check import to_table
from schemas.corpus import Reader
from schemas.tables import OBJECTS, POINTS, POINTS_PER_OBJECT
from shout import object_row


def sheet(rng) -> np.ndarray:
    """Points by chance on a square of side 1, far from any edge effect that matters: (10000, 3)."""
    return np.column_stack([rng.random((POINTS_PER_OBJECT, 2)) - 0.5, np.zeros(POINTS_PER_OBJECT)]).astype(np.float16)


def row(number: int, xyz: np.ndarray, rgb=(200, 30, 30), **changes) -> dict:
    """A row of POINTS; `rgb`: one colour, or one for each point, or None."""
    colors = None if rgb is None else np.broadcast_to(rgb, (POINTS_PER_OBJECT, 3)).astype(np.uint8).ravel()
    return {
        "object_id": f"{'ab'[number % 2]}/{number}",
        "stage": "points",
        "stage_key": "k",
        "xyz": xyz.ravel(),
        "rgb": colors,
        "canonical_from_asset": np.eye(4).ravel(),
        "vertices": 10 ** (number + 1),
        "faces": 20,
        "area": 1.0,
        "warnings": [],
    } | changes


def made(folder: Path, rows: list[dict] | None) -> Reader:
    corpus = Corpus(str(folder))
    named = [object_row(number, object_id=one["object_id"], name=None) for number, one in enumerate(rows or [])]
    for table, those in ((OBJECTS, named), (POINTS, rows)):
        if those is not None:
            corpus.create(table)
            if those:
                corpus.append(table, corpus.write(table, to_table(table, those)))
    return Reader.at(corpus.root)


def clouds(corpus: Reader):
    """All clouds, in the order of their ids."""
    sizes = read(corpus)
    return clouds_of(corpus, sizes.objects, sizes.objects)


def test_evenness_is_one_by_chance_less_in_clumps_and_more_in_a_grid(tmp_path, rng):
    fine = np.column_stack([rng.random((POINTS_PER_OBJECT, 2)) - 0.5, np.zeros(POINTS_PER_OBJECT)])
    grid = np.stack([*np.meshgrid(np.arange(100) / 128, np.arange(100) / 128), np.zeros((100, 100))], axis=-1).reshape(-1, 3)
    clumps = np.repeat(fine[:2500], 4, axis=0) + rng.normal(0, 1e-3, (POINTS_PER_OBJECT, 3))
    both = np.column_stack(
        [np.tile(fine[:, :2], 1), np.where(np.arange(POINTS_PER_OBJECT) % 2, 0.0, 0.001)]
    )  # a sheet of two sides
    shapes = [fine, grid, clumps, both]
    areas = [1.0, (100 / 128) ** 2, 1.0, 2.0]
    rows = [row(number, xyz.astype(np.float16), area=areas[number]) for number, xyz in enumerate(shapes)]
    found = clouds(made(tmp_path, rows))
    by_chance, of_grid, of_clumps, of_both = found.evenness
    assert by_chance == pytest.approx(1, abs=0.02)  # 10,000 points: a standard error of 0.0052, and the rounding to float16
    assert of_grid == pytest.approx(2, rel=1e-3) and found.spacing[1] == pytest.approx(1 / 128, rel=1e-3)
    assert of_clumps < 0.5
    assert of_both == pytest.approx(1 / np.sqrt(2), abs=0.05)  # two surfaces on each other count as one, twice as dense


def test_a_cloud_of_unknown_area_has_a_spacing_and_no_evenness(tmp_path, rng):
    section = points(made(tmp_path, [row(0, sheet(rng), area=None, faces=0)]))
    assert section.figures["evenness"]["median"] is None and section.figures["spacing"]["median"] == pytest.approx(0.005, abs=5e-4)
    assert (section.figures["meshes"], section.figures["clouds"], section.gates["uneven_share"]) == (0, 1, None)


def test_points_that_are_repeated_are_counted(tmp_path):
    xyz = np.zeros((POINTS_PER_OBJECT, 3), np.float16)
    xyz[:, 0] = np.arange(POINTS_PER_OBJECT) % 1024 / 1024  # exact in float16
    xyz[:, 1] = np.arange(POINTS_PER_OBJECT) // 1024 / 16
    xyz[1, :] = xyz[0, :]
    xyz[2, :] = (-0.0, 0, 0)  # where the first one is: 0 is 0
    assert clouds(made(tmp_path, [row(0, xyz)])).repeated[0] == pytest.approx(3 / POINTS_PER_OBJECT)


def test_colours_greys_and_none(tmp_path, rng):
    xyz = sheet(rng)
    greys = np.repeat(rng.integers(0, 256, (POINTS_PER_OBJECT, 1)), 3, axis=1)
    many = rng.integers(0, 256, (POINTS_PER_OBJECT, 3))
    corpus = made(tmp_path, [row(0, xyz, (255, 0, 51)), row(1, xyz, greys), row(2, xyz, many), row(3, xyz, None)])
    found = clouds(corpus)
    assert found.grey.tolist() == [False, True, False, False]
    assert found.one_color.tolist() == [True, False, False, False]
    assert np.allclose(found.color[0], [1, 0, 0.2]) and np.isnan(found.color[3]).all()
    assert np.allclose(found.color[2], many.mean(axis=0) / 255)
    section = points(corpus)
    assert (section.gates["colored_share"], section.gates["one_color_share"]) == (0.75, 0.25)
    assert section.figures["grey_share"] == 0.25


def test_extent_and_farthest_point(tmp_path, rng):
    xyz = sheet(rng)
    xyz[:2] = [[-0.75, 0, 0], [0.5, 0, -0.25]]
    section = points(made(tmp_path, [row(0, xyz)]))
    extent = section.figures["extent"]
    assert (extent["x"]["max"], extent["z"]["max"]) == (1.25, 0.25) and extent["y"]["max"] == pytest.approx(1, abs=1e-2)
    assert section.figures["farthest"]["max"] == 0.75
    assert any("0.75 of its centre" in warning for warning in section.warnings)
    xyz[2] = [0, 0, 1]
    assert points(made(tmp_path / "whole", [row(0, xyz)])).warnings == ()


def test_sizes_and_warnings_are_of_all_objects_though_few_are_looked_at(tmp_path, rng):
    rows = [
        row(number, sheet(rng), warnings=["flat_geometry", "tiny_mesh"][: 2 - number] if number < 2 else []) for number in range(6)
    ]
    section = points(made(tmp_path, rows), looked_at=3, neighboured=2, shown=1)
    figures = section.figures
    assert [figures[name] for name in ("objects", "looked_at", "neighboured", "warned")] == [6, 3, 2, 2]
    assert figures["warnings"] == {"flat_geometry": 2, "tiny_mesh": 1}
    assert section.gates["shape_warning_share"] == 2 / 6
    assert figures["vertices"]["max"] == 10**6 and figures["vertices"]["min"] == 10
    assert sum(map(sum, exhibit(section, "Vertices").series.values())) == 6
    assert sum(map(sum, exhibit(section, "Evenness").series.values())) == 2
    assert figures["sources"]["a"]["objects"] == 3
    (shown,) = (one for one in section.exhibits if isinstance(one, Pictures))
    assert len(shown.pictures) == 1 and shown.pictures[0].note == "20 triangles"
    odd = exhibit(section, "What is odd about shapes")
    assert isinstance(odd, Bars) and {bar.name: bar.note for bar in odd.bars}["flat_geometry"] == "all in one plane"


def test_the_sample_is_the_same_however_the_rows_are_stored(tmp_path, rng):
    rows = [row(number, sheet(rng)) for number in range(8)]
    one = points(made(tmp_path / "a", rows), looked_at=4, neighboured=2, shown=2)
    other = points(made(tmp_path / "b", rows[::-1]), looked_at=4, neighboured=2, shown=2)
    assert {picture.title for picture in exhibit(one, "Some clouds by chance").pictures} == {
        picture.title for picture in exhibit(other, "Some clouds by chance").pictures
    }
    assert one.figures["spacing"] == pytest.approx(other.figures["spacing"])
    assert one.gates == other.gates


def test_without_points_the_same_figures_are_named_and_none_is_known(tmp_path, rng):
    there, absent = points(made(tmp_path / "a", [row(0, sheet(rng))])), points(made(tmp_path / "b", None))
    assert absent.figures.keys() == there.figures.keys() and absent.figures["extent"].keys() == {"x", "y", "z"}
    assert absent.gates == dict.fromkeys(there.gates)
    assert "python -m jobs points" in absent.lead and absent.exhibits == () and absent.warnings == ()
    empty = points(made(tmp_path / "c", []))
    assert (empty.figures["objects"], empty.gates["shape_warning_share"]) == (0, None) and "empty" in empty.lead


def test_the_section_is_json_and_makes_a_page(tmp_path, rng):
    section = points(made(tmp_path, [row(number, sheet(rng)) for number in range(2)]))
    json.dumps(section.figures, allow_nan=False)
    assert "b/1" in page([section], title="t", made="m")
