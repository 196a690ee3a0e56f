"""Every exhibit of the gallery through Blender: what must be true of its pictures is."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.ndimage import label

from pipeline.made.gallery import BALL, BLUE, BOX, EXHIBITS, RED, SHOWN, WHITE, YELLOW, still_life
from pipeline.points import linear_from_srgb, srgb_from_linear
from pipeline.quality import LUMINANCE, measures
from render.blender import Blender
from render.blender_pass import RenderViews, seen_from
from render.cameras import Camera, Rig
from render.spec import Cycles, Pictures, Request
from render.views import read_pictures

# Two of the field's views from above, one from the side and from below, and one straight onto the front.
CAMERAS = Rig(name="gallery", directions=((60, 30), (60, 300), (90, 150), (120, 90), (90, 270))).cameras(64, 64)
LIT = Pictures(views=tuple(map(seen_from, CAMERAS)), width=64, height=64, cycles=Cycles(samples=RenderViews.samples))
RAW = replace(LIT, cycles=replace(LIT.cycles, denoise=False))  # the denoiser mixes a little of the background into an outline
ALBEDO = replace(LIT, shading="albedo", cycles=Cycles(samples=4, denoise=False))
FRONT = 4
SIDES = {  # of the still life's box: where each faces, and its middle
    "left": ((-1, 0, 0), (-BOX[0] / 2, BOX[1] / 2, 0)),
    "right": ((1, 0, 0), (BOX[0] / 2, BOX[1] / 2, 0)),
    "front": ((0, 0, 1), (0, BOX[1] / 2, BOX[2] / 2)),
    "back": ((0, 0, -1), (0, BOX[1] / 2, -BOX[2] / 2)),
    "bottom": ((0, -1, 0), (0, 0, 0)),
}
MIDDLE_OF_BALL = (0, BOX[1] + BALL, 0)


@dataclass(frozen=True)
class Shown:
    """Pictures of an exhibit, (views, height, width, 4), and where its coordinates are in them."""

    pictures: np.ndarray
    canonical_from_asset: np.ndarray

    @property
    def solid(self) -> np.ndarray:
        """The colours of all opaque pixels, (n, 3)."""
        return self.pictures[self.pictures[..., 3] == 255][:, :3].astype(int)

    def sides(self) -> list[dict[str, np.ndarray]]:
        """Per view the colour, 0..255, in the middle of each side of the box that it sees well."""
        found = []
        for camera, picture in zip(CAMERAS, self.pictures, strict=True):
            facing = {name: np.array(normal) @ camera.position > 0.5 for name, (normal, _) in SIDES.items()}
            found.append({name: self.near(camera, picture, SIDES[name][1]) for name in SIDES if facing[name]})
        return found

    def ball(self) -> np.ndarray:
        """Per view the colour in the middle of the ball's disc."""
        return np.array(
            [self.near(camera, picture, MIDDLE_OF_BALL) for camera, picture in zip(CAMERAS, self.pictures, strict=True)]
        )

    def near(self, camera: Camera, picture: np.ndarray, point: tuple[float, float, float]) -> np.ndarray:
        """The mean colour of 3 x 3 pixels around a point of the asset."""
        [[x, y]], _ = camera.project((self.canonical_from_asset @ (*point, 1))[None, :3])
        return picture[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2, :3].mean(axis=(0, 1))


@pytest.fixture(scope="module")
def show(tmp_path_factory):
    """Renders an exhibit, once."""
    folder, made = tmp_path_factory.mktemp("gallery"), {}
    paths = {exhibit.name: exhibit.write(folder) for exhibit in EXHIBITS}
    with Blender() as blender:

        def shown(name: str, pictures: Pictures = LIT) -> Shown:
            if (name, pictures) not in made:
                answer, results = blender.do(Request(asset=str(paths[name]), format=paths[name].suffix[1:], pictures=pictures))
                made[name, pictures] = Shown(
                    np.stack(read_pictures(results, len(CAMERAS))), np.reshape(answer.canonical_from_asset, (4, 4))
                )
            return made[name, pictures]

        yield shown


def bytes_of(color, factor: float = 1.0) -> np.ndarray:
    """A colour (sRGB 0..1) times a factor of light, in sRGB 0..255."""
    return srgb_from_linear(linear_from_srgb(np.array(color)) * factor).astype(int)


def light_of(color: np.ndarray) -> float:
    """The sRGB luminance of a colour, 0..255, as 0..1."""
    return float(color @ LUMINANCE / 255)


# ------------------------------------------------------------------------------------------------------------ the files


def test_the_gallery_is_the_same_every_time_and_has_no_name_twice():
    assert len({exhibit.name for exhibit in EXHIBITS}) == len(EXHIBITS)
    assert [exhibit.files() for exhibit in EXHIBITS] == [exhibit.files() for exhibit in EXHIBITS]


# ------------------------------------------------------------------------------------------------------------ light


def test_white_shows_its_sides_and_neither_burns_out_nor_sinks(show):
    white = show("white")
    for seen in white.sides():
        light = sorted(map(light_of, seen.values()))
        assert light[0] >= 0.45 and light[-1] <= 0.985
        assert (np.diff(light) > 0.02).all()
    assert 0.87 <= light_of(white.sides()[FRONT]["front"]) <= 0.95
    assert np.mean([measures(picture)["bright_share"] for picture in white.pictures]) < 0.05  # where ball and box light each other


@pytest.mark.parametrize(("name", "least"), [("grey", 0.02), ("black", 0.005), ("obj-black", 0.005), ("metal-dark", 0.005)])
def test_dark_things_show_their_sides(show, name, least):
    for seen in show(name).sides():
        light = sorted(map(light_of, seen.values()))
        assert light[0] > 5 / 255
        assert (np.diff(light) > least).all()


def test_black_stays_black(show):
    assert light_of(show("black").solid.mean(axis=0)) < 0.2


@pytest.mark.parametrize("name", ["metal-rough", "metal-mirror", "metal-gold", "obj-mirror", "clearcoat"])
def test_what_shines_is_nowhere_black_on_its_sides_and_mirrors_something(show, name):
    shown = show(name)
    for seen in shown.sides():
        assert min(map(light_of, seen.values())) > 0.2
    light = shown.solid @ LUMINANCE / 255
    assert np.percentile(light, 95) - np.percentile(light, 20) > 0.06


def test_gold_is_golden(show):
    red, green, blue = show("metal-gold").solid.mean(axis=0)
    assert red > green > blue + 20


@pytest.mark.parametrize(("name", "least"), [("glass", 0.4), ("glass-tinted", 0.15)])
def test_glass_is_a_solid_thing_and_not_black(show, name, least):
    assert light_of(np.median(show(name).solid, axis=0)) > least
    np.testing.assert_allclose(show(name).pictures[..., 3], show("white").pictures[..., 3], atol=1)


def test_what_glows_is_as_bright_as_it_says(show):
    emitted = int(srgb_from_linear(np.array(0.5)))
    assert (show("emissive", RAW).solid[:, 1] >= emitted).all()


def test_what_is_unlit_has_exactly_its_color(show):
    assert (show("unlit", RAW).solid == (204, 102, 51)).all()


# ------------------------------------------------------------------------------------------------------------ colours


@pytest.mark.parametrize(
    ("name", "color"),
    [
        ("white", WHITE), ("red", RED), ("glass-tinted", RED), ("clearcoat", RED), ("specular-glossiness", RED),
        ("unlit", (0.8, 0.4, 0.2)), ("plain", YELLOW), ("single-sided", YELLOW), ("inside-out", YELLOW),
    ],
)  # fmt: skip
def test_the_base_color_is_exact(show, name, color):
    seen = show(name, ALBEDO)
    assert all((picture[..., 3] == 255).any() for picture in seen.pictures)
    assert np.abs(seen.solid - bytes_of(color)).max() <= 1


@pytest.mark.parametrize(
    ("name", "factor"), [("vertex-colors", 1.0), ("vertex-colors-tinted", float(linear_from_srgb(np.array(0.735))))]
)
def test_vertex_colors_are_shown_times_the_materials(show, name, factor):
    seen = show(name, ALBEDO)
    assert np.abs(seen.ball() - bytes_of(BLUE, factor)).max() <= 1
    for sides in seen.sides():
        assert np.abs(np.array(list(sides.values())) - bytes_of(RED, factor)).max() <= 1


def test_a_texture_shows_both_its_colors_and_no_other(show):
    solid = show("texture", ALBEDO).solid
    first, second = (np.abs(solid - color).max(axis=1) <= 1 for color in ((204, 25, 25), (204, 178, 25)))
    assert first.mean() > 0.25 and second.mean() > 0.25
    between = solid[~first & ~second]  # pixels on an edge
    assert (np.abs(between[:, [0, 2]] - (204, 25)) <= 1).all()


@pytest.mark.parametrize(("name", "alpha"), [("leaves", 0), ("blended", 128), ("opaque", 255)])
def test_alpha_counts_as_the_material_says(show, name, alpha):
    """In the middle of the sheet's squares: every other one has an alpha of its own, half clear but for noise."""
    shown, seen = show(name), {True: [], False: []}
    for row in range(4):
        for column in range(4):
            middle = np.array((column - 1.5, row - 1.5, 0)) / 2 * (0.8, 0.6, 1)
            [[x, y]], _ = CAMERAS[FRONT].project((shown.canonical_from_asset @ (*middle, 1))[None, :3])
            seen[(row + column) % 2 == 0].append(shown.pictures[FRONT, int(y) - 1 : int(y) + 1, int(x) - 1 : int(x) + 1, 3])
    assert (np.array(seen[False]) == 255).all()
    if name == "blended":
        assert abs(np.mean(seen[True]) - alpha) < 6
    else:
        assert (np.array(seen[True]) == alpha).all()


# ------------------------------------------------------------------------------------------------------------ shapes and scenes

ALIKE = [exhibit.name for exhibit in EXHIBITS if exhibit.truth.startswith(SHOWN) and exhibit.name not in ("plain", "morphed")]


@pytest.mark.parametrize("name", ALIKE)
def test_the_yellow_still_life_is_shown_and_nothing_else(show, name):
    """The same picture as of the plain one, but for rounding; without normals of their own, balls have facets."""
    plain, shown = show("plain").pictures.astype(int), show(name).pictures.astype(int)
    difference = np.abs(shown - plain)[..., :3][(plain[..., 3] == 255) & (shown[..., 3] == 255)]
    assert difference.mean() < (1.5 if name in ("no-normals", "obj-plain") else 0.6)
    assert np.abs(shown[..., 3] - plain[..., 3]).mean() < 0.2


@pytest.mark.parametrize("name", ["lights-and-cameras", "helpers", "scenes", "invisible", "lines-and-points", "coincident"])
def test_what_is_not_shown_changes_nothing_at_all(show, name):
    np.testing.assert_array_equal(show(name).pictures, show("plain").pictures)


def test_a_morph_target_at_its_weight_gives_the_shape(show):
    assert np.abs(show("morphed").pictures[..., 3].astype(int) - show("plain").pictures[..., 3]).mean() < 0.2


def test_an_animation_is_taken_at_its_start(show):
    shown = show("animated")
    vertices = np.concatenate([still_life().vertices, still_life().vertices + (2, 0, 0)])
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    radius = np.linalg.norm(vertices - middle, axis=1).max()
    expected = np.diag([1 / radius] * 3 + [1])
    expected[:3, 3] = -middle / radius
    np.testing.assert_allclose(shown.canonical_from_asset, expected, atol=1e-5)


def test_a_sheet_is_seen_from_behind_as_well(show):
    """From the second view's opposite; it is about as light as from the front."""
    light = [light_of(picture[picture[..., 3] == 255][:, :3].mean(axis=0)) for picture in show("single-sided").pictures]
    assert min(light) > 0.4


def test_a_thin_wire_is_not_broken(show):
    for picture in show("wire").pictures:
        assert label(picture[..., 3] > 0, np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize("name", ["thin-sheet", "coincident", "single-sided", "two-faced"])
def test_flat_things_have_no_specks(show, name):
    """Within a flat side all pixels are about as light."""
    shown = show(name)
    picture = shown.pictures[FRONT]
    inner = picture[26:38, 26:38] if name != "coincident" else picture[40:46, 26:38]
    assert (inner[..., 3] == 255).all()
    assert np.ptp(inner[..., :3].astype(int) @ LUMINANCE) < 12
