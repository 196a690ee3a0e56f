"""Every gate before pictures that Blender made: bad ones, and good ones that look almost as odd."""

import io
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial

from jobs.__main__ import main
from jobs.status import page
from pipeline.run import run
from pipeline.stage import ObjectError
from pipeline.status import completeness, status
from pipeline.store import Corpus
from render.blender import Blender, BlenderSettings
from render.blender_pass import BlenderPass, FromBlender, RenderViews
from render.cameras import Camera
from render.gates import THUMBNAIL_BYTES, THUMBNAIL_SIDE, Gates, judge, thumbnail
from render.spec import Request
from render.views import encoded
from schemas.check import to_table
from schemas.tables import FAILURES, OBJECTS
from shout import object_row

NO_GATES = Gates(min_coverage=None, max_border=None, min_view_variance=None, max_dark=None, max_bright=None)
# What somebody would set who wants nothing that is missing a part of its look.
STRICT = Gates(max_missing_textures=0, max_substituted_materials=0)
COLORFUL = Gates(min_color_spread=0.03)
STAGE = RenderViews(width=48, height=48, gates=NO_GATES)


@dataclass(frozen=True, kw_only=True)
class Aimed(RenderViews):
    """Views from cameras that no rig has."""

    aimed: tuple[Camera, ...]

    def cameras(self, object_id):
        return list(self.aimed)


def colored(shape, color, *, unlit=False, glow=0.0, texture=None):
    """GLB of a shape of one colour. `glow`: strength of its own light, in white; `texture`: name of a file of its colour."""
    shape.visual = trimesh.visual.TextureVisuals(
        uv=np.zeros((len(shape.vertices), 2)),
        material=PBRMaterial(baseColorFactor=[*color, 255], metallicFactor=0.0, roughnessFactor=1.0),
    )

    def change(document):
        [material] = document["materials"]
        extensions = {"KHR_materials_unlit": {}} if unlit else {}
        if glow:
            material["emissiveFactor"] = [1, 1, 1]
            extensions["KHR_materials_emissive_strength"] = {"emissiveStrength": glow}
        if texture:
            document["images"], document["textures"] = [{"uri": texture}], [{"source": 0}]
            material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
        material["extensions"] = extensions
        document["extensionsUsed"] = list(extensions)

    return trimesh.exchange.gltf.export_glb(trimesh.Scene(shape), include_normals=True, tree_postprocessor=change)


def with_a_stray_triangle(distance):
    far = trimesh.Trimesh([[distance, 0, 0], [distance, 0.001, 0], [distance, 0, 0.001]], [[0, 1, 2]])
    return trimesh.exchange.gltf.export_glb(trimesh.Scene([trimesh.creation.box(), far]))


LONG = "ä" * 50  # 100 bytes, of which Blender keeps 62


def of_obj(*used, color="", mtl="colors.mtl"):
    """An OBJ of as many triangles as it uses materials. `color`: of its vertices."""
    vertices = [f"v {x} {y} {z} {color}" for x, y, z in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    faces = [f"usemtl {name}\nf 1 2 {3 + number}" if name else "f 1 2 3" for number, name in enumerate(used)]
    return "\n".join([*vertices, f"mtllib {mtl}", *faces, ""]).encode()


def of_usd(shader):
    return f"""#usda 1.0
def Mesh "mesh" (prepend apiSchemas = ["MaterialBindingAPI"]) {{
    int[] faceVertexCounts = [3]
    int[] faceVertexIndices = [0, 1, 2]
    point3f[] points = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
    rel material:binding = </material>
}}
def Material "material" {{
    token outputs:surface.connect = </material/shader.outputs:surface>
    def Shader "shader" {{
        uniform token info:id = "{shader}"
        color3f inputs:diffuseColor = (1, 0, 0)
        token outputs:surface
    }}
}}
""".encode()


BOX, BALL = trimesh.creation.box(extents=(1, 0.7, 0.4)), trimesh.creation.icosphere(subdivisions=4)
ASSETS = {
    "grey box": colored(BOX, (128, 128, 128)),
    "white box": colored(BOX, (255, 255, 255)),
    "black box": colored(BOX, (0, 0, 0)),
    "grey ball": colored(BALL, (128, 128, 128)),
    "unlit black box": colored(BOX, (0, 0, 0), unlit=True),
    "unlit white box": colored(BOX, (255, 255, 255), unlit=True),
    "unlit red box": colored(BOX, (255, 0, 0), unlit=True),
    "glowing box": colored(BOX, (128, 128, 128), glow=20.0),
    "box without its texture": colored(BOX, (255, 255, 255), texture="gone.png"),
    "needle": trimesh.exchange.gltf.export_glb(trimesh.Scene(trimesh.creation.cylinder(radius=1 / 400, height=2))),
    "box and something stray": with_a_stray_triangle(80),
    "obj": of_obj("red", "blue"),
    "obj without one material": of_obj("red", "gone"),
    "obj without any": of_obj("red", "blue", mtl="gone.mtl"),
    "obj of a long name": of_obj("red", LONG),
    "obj of coloured vertices": of_obj("", color="1 0 0"),
    "usda": of_usd("UsdPreviewSurface"),
    "usda of a shader of its own": of_usd("ShaderOfItsOwn"),
}


@pytest.fixture(scope="module")
def blender():
    with Blender(BlenderSettings(threads=1)) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    (folder / "colors.mtl").write_text("".join(f"newmtl {name}\nKd 1 0 0\n" for name in ("red", "blue", LONG)))
    for name, content in ASSETS.items():
        path(folder, name).write_bytes(content)
    return folder


def path(folder, name):
    return folder / f"{name}.{name.split()[0] if name.startswith(('obj', 'usda')) else 'glb'}"


@pytest.fixture(scope="module")
def rows_of(blender, folder):
    """The rows of a named asset's views by a stage, whatever its gates would say; each is rendered once."""

    known = {}

    def rows(name, stage=STAGE):
        key = (name, id(stage))  # cameras have no hash
        if key not in known:
            file = path(folder, name)
            made = blender.do(Request(asset=str(file), format=file.suffix[1:], **stage.asks(name)))
            known[key] = stage.rows(name, FromBlender(*made))
        return known[key]

    return rows


CAMERAS = STAGE.cameras("any")
TOO_NEAR = Aimed(width=48, height=48, gates=NO_GATES, aimed=tuple(replace(one, fx=3 * one.fx, fy=3 * one.fy) for one in CAMERAS))
STUCK = Aimed(width=48, height=48, gates=NO_GATES, aimed=tuple(CAMERAS[:1] * 12))


@pytest.mark.parametrize(
    ("name", "stage", "reason", "says"),
    [
        ("box and something stray", STAGE, "gate_coverage", "a dot"),
        ("grey box", TOO_NEAR, "gate_border", "cuts the object off"),
        ("grey box", STUCK, "gate_view_variance", "one picture"),
        ("unlit black box", STAGE, "gate_dark", "black"),
        ("unlit white box", STAGE, "gate_bright", "burnt out"),
        ("glowing box", STAGE, "gate_bright", "burnt out"),
        ("unlit red box", STAGE, "gate_color_spread", "of one colour"),
        ("box without its texture", STAGE, "gate_missing_textures", "textures cannot be read"),
        ("obj without one material", STAGE, "gate_substituted_materials", "something else stands for"),
    ],
)
def test_each_gate_refuses_what_it_is_for(rows_of, name, stage, reason, says):
    rows, gates = rows_of(name, stage), COLORFUL if reason == "gate_color_spread" else STRICT
    with pytest.raises(ObjectError, match=says) as error:
        judge(rows, gates)
    assert error.value.reason == reason
    picture = Image.open(io.BytesIO(error.value.thumbnail))
    assert picture.size == (4 * THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    [setting] = [gate.name for gate in fields(Gates) if gate.name.split("_", 1)[1] == reason.removeprefix("gate_")]
    judge(rows, replace(gates, **{setting: None}))  # it is this gate alone that it does not pass


@pytest.mark.parametrize("name", ["grey box", "white box", "black box", "grey ball", "needle", "obj"])
def test_odd_objects_that_are_as_they_should_be_pass_even_strict_gates(rows_of, name):
    judge(rows_of(name), STRICT)
    judge(rows_of(name), COLORFUL)


REFUSED = {"box and something stray", "unlit black box", "unlit white box", "glowing box"}


@pytest.mark.parametrize("name", [name for name in ASSETS if name not in REFUSED])
def test_what_may_be_meant_passes_the_gates_that_are_on_by_default(rows_of, name):
    """Bare colours, and objects of which a texture or a material is missing."""
    judge(rows_of(name), Gates())


def test_textures_and_materials_that_are_not_the_assets_are_counted(rows_of):
    counted = {name: (rows_of(name)[0]["missing_textures"], rows_of(name)[0]["substituted_materials"]) for name in ASSETS}
    assert {name: counts for name, counts in counted.items() if any(counts)} == {
        "box without its texture": (1, 0),
        "obj without one material": (0, 1),
        "obj without any": (0, 2),
        "usda of a shader of its own": (0, 1),
    }


# ------------------------------------------------------------------------------------------------------------ made pictures

GOOD = {
    "alpha_coverage": 0.25,
    "border_coverage": 0.0,
    "dark_share": 0.1,
    "bright_share": 0.1,
    "luminance": 0.5,
    "color_spread": 0.2,
    "view_variance": 0.02,
    "missing_textures": 0,
    "substituted_materials": 0,
}


def rows_like(rng, *measured):
    """Rows of a picture of noise, with these measures besides good ones."""
    image = encoded(rng.integers(0, 256, (224, 224, 4), dtype=np.uint8))
    return [GOOD | each | {"image": image} for each in measured]


def test_a_limit_itself_passes_and_the_mean_over_the_views_counts(rng):
    gates = Gates(max_dark=0.5, min_coverage=0.25)
    judge(rows_like(rng, {"dark_share": 0.0}, {"dark_share": 1.0}), gates)
    with pytest.raises(
        ObjectError, match=r"dark_share is 0.667, mean of 3 views, above max_dark = 0.5; .* raise that below .gates."
    ):
        judge(rows_like(rng, {"dark_share": 0.0}, {"dark_share": 1.0}, {"dark_share": 1.0}), gates)
    with pytest.raises(ObjectError, match=r"alpha_coverage is 0.2, mean of 2 views, below min_coverage = 0.25; .* lower that"):
        judge(rows_like(rng, {"alpha_coverage": 0.1}, {"alpha_coverage": 0.3}), gates)


def test_views_that_cannot_tell_do_not_count(rng):
    judge(rows_like(rng, {"dark_share": None}, {"dark_share": 0.4}), Gates(max_dark=0.5))
    judge(rows_like(rng, {"dark_share": None, "view_variance": None}), STRICT)
    with pytest.raises(ObjectError, match="dark_share is 0.6, mean of 1 views"):
        judge(rows_like(rng, {"dark_share": None}, {"dark_share": 0.6}), Gates(max_dark=0.5))


def test_a_thumbnail_is_small_whatever_it_shows(rng):
    for alpha in (None, 255):
        for side in (THUMBNAIL_SIDE, 224):
            noise = rng.integers(0, 256, (side, side, 4), dtype=np.uint8)
            if alpha:
                noise[..., 3] = alpha
            assert len(thumbnail([{"image": encoded(noise)}] * 12)) <= THUMBNAIL_BYTES


def test_a_thumbnail_shows_views_from_all_around_with_what_is_transparent(rng):
    rows = []
    for number in range(12):
        picture = np.zeros((224, 224, 4), np.uint8)
        picture[60:160, 60:160] = (20 * number, 0, 0, 255)
        rows.append({"image": encoded(picture)})
    strip = np.asarray(Image.open(io.BytesIO(thumbnail(rows))).convert("RGBA")).astype(int)
    assert strip.shape == (THUMBNAIL_SIDE, 4 * THUMBNAIL_SIDE, 4)
    middles = strip[THUMBNAIL_SIDE // 2, THUMBNAIL_SIDE // 2 :: THUMBNAIL_SIDE]
    np.testing.assert_allclose(middles[:, 0], [0, 60, 120, 180], atol=12)
    assert (middles[:, 3] == 255).all() and (strip[:8, :, 3] == 0).all()
    assert Image.open(io.BytesIO(thumbnail(rows[:2]))).size == (2 * THUMBNAIL_SIDE, THUMBNAIL_SIDE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_border": 1.2}, "max_border is 1.2; it limits border_coverage: a number from 0 to 1$"),
        ({"min_coverage": -0.1}, "min_coverage is -0.1"),
        ({"min_coverage": float("nan")}, "min_coverage is nan"),
        ({"max_dark": "0.9"}, "max_dark is '0.9'"),
        ({"max_dark": True}, "max_dark is True"),
        ({"max_missing_textures": -1}, "max_missing_textures is -1; it limits missing_textures: a number from 0 to 1,000,000"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Gates(**settings)


# ------------------------------------------------------------------------------------------------------------ in a corpus


def test_a_gated_object_becomes_a_failure_with_its_picture_and_another_limit_lets_it_in(folder, tmp_path, capsys):
    corpus = Corpus(str(tmp_path / "corpus"))
    corpus.create(OBJECTS)
    names = ["grey box", "unlit black box"]
    rows = [
        object_row(number, object_id=f"test/{name}", asset_uri=str(path(folder, name)), asset_format="glb", asset_sha256=name)
        for number, name in enumerate(names)
    ]
    corpus.append(OBJECTS, corpus.write(OBJECTS, to_table(OBJECTS, rows)))
    stage, blender = replace(STAGE, rig="ring-3@1"), BlenderSettings(threads=1)
    [first] = run(corpus, BlenderPass(stages=(replace(stage, gates=Gates(max_dark=0.9)),), blender=blender))
    assert (first.done, first.reasons) == (1, {"gate_dark": 1})
    [failure] = corpus.need(FAILURES.name).to_table().to_pylist()
    assert (failure["object_id"], failure["stage"]) == ("test/unlit black box", "render")
    assert Image.open(io.BytesIO(failure["thumbnail"])).size == (3 * THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    assert "1 × gate_dark" in page("corpus", status(corpus), completeness(corpus))
    assert f"status {corpus.root} --thumbnails FILE.png" in page(corpus.root, status(corpus), completeness(corpus))
    assert main(["status", corpus.root, "--thumbnails", str(tmp_path / "seen.png")]) == 0
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'seen.png'}: 1 with a picture\n")
    assert Image.open(tmp_path / "seen.png").height > THUMBNAIL_SIDE
    assert main(["status", corpus.root, "--thumbnails", "seen.what"]) == 2
    assert "--thumbnails seen.what: unknown file extension" in capsys.readouterr().err
    [second] = run(corpus, BlenderPass(stages=(replace(stage, gates=Gates(max_dark=0.9)),), blender=blender))
    assert (second.done, second.failed) == (0, 0)
    [third] = run(corpus, BlenderPass(stages=(replace(stage, gates=NO_GATES),), blender=blender))
    assert (third.done, third.failed) == (2, 0)
    assert corpus.need(FAILURES.name).count_rows() == 0
    assert main(["status", corpus.root, "--thumbnails", str(tmp_path / "none.png")]) == 0
    assert "no failure has a picture" in capsys.readouterr().out and not (tmp_path / "none.png").exists()
