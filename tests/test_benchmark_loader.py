"""The loader race: every contestant reads the same content, and the figures are those of what was done."""

import json

import numpy as np
import pytest
import torch

from benchmarks.loader import BATCH, VIEWS, contestants, made, main, put_out_of_cache, told

OBJECTS = 150


@pytest.fixture(scope="module")
def content():
    return made(OBJECTS)


NAMES = list(contestants(made(0)))


@pytest.mark.parametrize("name", NAMES)
def test_every_contestant_yields_the_content_and_nothing_else(content, name, tmp_path):
    one = contestants(content)[name]
    one.write(content, tmp_path)
    clouds = {xyz[0].astype(np.float32).tobytes(): number for number, xyz in enumerate(content.xyz)}
    assert len(clouds) == OBJECTS
    epoch = one.open(tmp_path)
    seen, texts, views = [], set(), set()
    for number in range(3):
        batches = list(epoch(number))
        assert {len(batch[0]) for batch in batches} == {BATCH} and len(batches) == OBJECTS // BATCH
        order = []
        for xyz, rgb, image, text in (sample for batch in batches for sample in zip(*batch, strict=True)):
            object = clouds[xyz[0].float().numpy().tobytes()]
            order.append(object)
            np.testing.assert_array_equal(xyz.float(), content.xyz[object].astype(np.float32))
            colors = (rgb * 255).round() if rgb.is_floating_point() else rgb
            np.testing.assert_array_equal(colors, content.rgb[object])
            [view] = np.flatnonzero((content.image[object].astype(np.float32) == image.float().numpy()).all(axis=1))
            [said] = np.flatnonzero((content.texts(object).astype(np.float32) == text.float().numpy()).all(axis=1))
            views.add(int(view))
            texts.add((object, int(said)))
        assert len(set(order)) == len(order)
        seen.append(order)
    assert seen[0] != seen[1] and views == set(range(VIEWS)) and len(texts) > OBJECTS
    assert all(torch.is_tensor(part) for part in batches[0])


def test_the_content_is_what_the_docstring_says(content):
    counts = np.diff(content.starts)
    assert content.xyz.shape == (OBJECTS, 10_000, 3) and content.image.shape == (OBJECTS, 12, 1280)
    assert counts.min() == 3 and counts.max() == 14 and counts.sum() == len(content.text)
    np.testing.assert_allclose(np.linalg.norm(content.text.astype(np.float32), axis=1), 1, atol=2e-3)


def test_a_small_race_gives_a_table_and_figures(tmp_path, capsys):
    race = ["--objects", "64", "--warm-rounds", "1", "--cold-rounds", "1", "--seconds", "0", "--json", str(tmp_path / "found.json")]
    assert main(race) == 0
    found = json.loads((tmp_path / "found.json").read_text())["contestants"]
    assert list(found) == NAMES
    raw = found["memcpy"]["bytes"]
    for name, one in found.items():
        assert one["warm"]["per_core"] > 0 and ("cold" in one) == (name != "memcpy")
        assert raw <= one["bytes"] <= 3 * raw
    assert found["tables"]["bytes"] < 1.05 * raw + 2e5  # ids, captions, manifests
    said = capsys.readouterr().out
    assert all(f"\n{name} " in said for name in NAMES) and "times openshape" in said


def test_what_is_told_is_the_ratio_of_the_rates():
    lap = {"per_second": 1.0, "read_mb": 0.0}
    rates = dict.fromkeys(NAMES, 100.0) | {"tables": 900.0, "openshape": 200.0, "flat file": 1000.0, "parquet": 450.0}
    found = {name: {"bytes": 40, "warm": lap | {"per_core": rate}} for name, rate in rates.items()}
    found["openshape"] |= {"bytes": 100, "twice": 20}
    lines = told(found)
    assert "warm: 4.5 times openshape (to reach: 4), 2.00 times the nearest, parquet (1), 90% of the flat file (80%)" in lines
    assert lines[-1] == "bytes on disk: 40.0% of openshape's (to reach: 40% or less), 50.0% without what its format has twice"


def test_files_that_are_put_out_of_the_cache_are_as_they_were(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"content" * 1000)
    put_out_of_cache(tmp_path)
    assert (tmp_path / "a" / "b").read_bytes() == b"content" * 1000
