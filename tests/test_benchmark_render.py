import numpy as np
import pytest
import trimesh

from benchmarks.contestants import Comparison, TimedViews, chosen, ours, peers, references
from benchmarks.likeness import likeness, over_white, psnr, reduced, ssim
from benchmarks.render import measured, told

SMALL = TimedViews(rig="ring-1@1", width=64, height=64, samples=64, noise_threshold=0.0, denoise=False)


def picture(rng, height=24, width=32):
    return rng.integers(0, 256, (height, width, 4), dtype=np.uint8)


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    """A knotted tube, red and blue, in a folder of its own."""
    folder = tmp_path_factory.mktemp("assets")
    parts = []
    for color, turn in (((200, 30, 30, 255), 0), ((30, 60, 200, 255), np.pi / 2)):
        ring = trimesh.creation.torus(major_radius=1, minor_radius=0.35)
        ring.apply_transform(trimesh.transformations.rotation_matrix(turn, (1, 0, 0)))
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=color, metallicFactor=0.0, roughnessFactor=0.8)
        ring.visual = trimesh.visual.TextureVisuals(material=material)
        parts.append(ring)
    trimesh.Scene(parts).export(folder / "rings.glb")
    [row] = chosen([str(folder)], None)
    return row


@pytest.fixture(scope="module")
def how(tmp_path_factory):
    return Comparison(
        kept=tmp_path_factory.mktemp("references"), workers=1, stage=SMALL, views=(0,), peer_samples=1, reference_samples=64
    )


# ---------------------------------------------------------------------------------------------------------------- likeness


def test_a_picture_is_looked_at_over_white():
    pixels = np.array([[[255, 0, 0, 0], [255, 0, 0, 51], [0, 0, 0, 255]]], np.uint8)
    assert np.allclose(over_white(pixels), [[[1, 1, 1], [1, 0.8, 0.8], [0, 0, 0]]])


def test_psnr_is_what_the_mean_square_error_says():
    truth = np.full((5, 7, 3), 0.5)
    assert psnr(truth + 0.1, truth) == pytest.approx(20)
    assert psnr(truth + [0.1, 0, 0], truth) == pytest.approx(20 + 10 * np.log10(3))


def test_equal_pictures_are_as_alike_as_rounding_lets_know(rng):
    one = picture(rng)
    found = likeness(one, one)
    assert found == {"psnr": pytest.approx(58.92, abs=0.01), "psnr_object": found["psnr"], "ssim": pytest.approx(1), "iou": 1}


def test_ssim_of_plain_pictures_is_that_of_their_means():
    a, b = np.full((30, 30, 3), 0.2), np.full((30, 30, 3), 0.7)
    assert ssim(a, b) == pytest.approx((2 * 0.2 * 0.7 + 1e-4) / (0.2**2 + 0.7**2 + 1e-4))


def test_ssim_is_the_papers_formula_over_a_gaussian_window(rng):
    """One window, written out: all pixels of an 11 x 11 picture that goes on as its own mirror image."""
    a, b = rng.random((11, 11, 1)), rng.random((11, 11, 1))
    gauss = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(gauss, gauss) / gauss.sum() ** 2
    found = []
    wide = [np.pad(one[..., 0], 5, mode="symmetric") for one in (a, b)]
    for y in range(11):
        for x in range(11):
            p, q = (one[y : y + 11, x : x + 11] for one in wide)
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq, c = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum(), (window * (p - mp) * (q - mq)).sum()
            found.append((2 * mp * mq + 1e-4) * (2 * c + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    assert ssim(a, b) == pytest.approx(np.mean(found))


def test_masks_are_compared_at_half_alpha_and_the_object_within_its_rectangle():
    truth = np.zeros((10, 10, 4), np.uint8)
    truth[2:6, 2:8] = (0, 0, 0, 255)
    off = np.zeros_like(truth)
    off[2:6, 4:9] = (0, 0, 0, 255)
    found = likeness(off, truth)
    assert found["iou"] == pytest.approx(16 / 28)
    assert found["psnr"] == pytest.approx(-10 * np.log10(12 / 100))
    assert found["psnr_object"] == pytest.approx(-10 * np.log10(8 / 24))


def test_where_the_truth_shows_nothing_there_is_no_object_to_compare():
    nothing = np.zeros((4, 4, 4), np.uint8)
    found = likeness(nothing, nothing)
    assert (found["psnr_object"], found["iou"]) == (None, None)


def test_what_is_transparent_colours_nothing_when_a_picture_is_reduced():
    large = np.zeros((32, 32, 4), np.uint8)
    large[..., 0] = 255
    large[8:24, 8:24] = (0, 0, 255, 255)
    small = reduced(large, 8, 8)
    assert small.shape == (8, 8, 4)
    assert small[3:5, 3:5].tolist() == [[[0, 0, 255, 255]] * 2] * 2
    assert not small[..., 0].any()


# ---------------------------------------------------------------------------------------------------------------- who is compared


def test_assets_are_chosen_evenly_over_their_sizes(tmp_path):
    for number in range(9):
        trimesh.creation.icosphere(subdivisions=number % 3 + 1, radius=1 + number).export(tmp_path / f"{number}.ply")
    found = chosen([str(tmp_path)], 3)
    sizes = sorted(path.stat().st_size for path in tmp_path.iterdir())
    assert [row["asset_bytes"] for row in found] == [sizes[0], sizes[4], sizes[8]]
    assert found == chosen([str(tmp_path)], 3)


def test_an_asset_that_cannot_be_used_is_named_and_left_out(tmp_path, capsys):
    (tmp_path / "broken.glb").write_bytes(b"")
    assert chosen([str(tmp_path / "broken.glb")], None) == []
    assert "broken.glb: left out, empty_file" in capsys.readouterr().err


def test_ours_the_peers_and_the_reference_show_one_scene(row, how):
    [truth] = references(row, how, "ours")
    cost, [peer] = peers(row, how)
    wall, made = ours([row], (SMALL,), (0,), 1)
    own = made[row["object_id"]]
    assert likeness(own.pictures[0], truth)["psnr"] > 38
    assert likeness(peer, truth)["iou"] > 0.95  # at one sample a pixel, of which denoising makes what it can
    assert likeness(peer, truth)["psnr"] > 25
    assert 0 < own.cost.cpu and 0 < own.cost.wall <= wall
    assert cost.cpu > own.cost.cpu
    assert own.seconds.keys() == {"whole", "import", "mesh", "first view", "rows"}  # there is but one
    assert sum(own.seconds.values()) - own.seconds["whole"] <= own.seconds["whole"]


def test_a_reference_that_is_kept_needs_no_blender_and_another_light_is_another_reference(row, how):
    found = references(row, how, "ours")
    gone = row | {"asset_uri": "/nowhere/rings.glb"}
    assert np.array_equal(references(gone, how, "ours"), found)
    assert likeness(references(row, how, "own")[0], found[0])["psnr"] < 35


@pytest.mark.slow
def test_a_run_tells_who_is_faster_and_who_is_truer(row, how):
    found = measured([row], how, 1)
    [line] = found["objects"]
    assert line["faster_cpu"] == pytest.approx(line["peer_cpu_s"] / line["ours_cpu_s"]) and line["faster_cpu"] > 1
    assert line["ours_psnr"] > line["peer_psnr"]  # the peer has one sample here
    assert sum(found["seconds_of_an_object"].values()) == pytest.approx(2 * found["seconds_of_an_object"]["whole"])
    assert any("rings.glb" in text for text in told(found, 1)["Objects"])
