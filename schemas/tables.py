"""The data dictionary: every table of a corpus, and what each column means.

A corpus is a folder or URI that holds `<table>.lance`. A column's `doc` (unit, shape, frame) is stored in the data itself, as
metadata of its Arrow field. Absence is null, never a made-up value.

The canonical frame, used by every coordinate here: right-handed, +y up, +z to the front (glTF's), the centre of the bounding box
at the origin, the farthest surface point at distance 1.
"""

from dataclasses import dataclass

import pyarrow as pa

POINTS_PER_OBJECT = 10_000


@dataclass(frozen=True)
class Table:
    """One table: its name (also its path under the corpus' root), its columns, and the columns that make a row unique.

    `shared`: several stages may each have rows of the same object. In any other table an object's rows are one stage's, and another
    stage leaves them alone.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    shared: bool = False

    @property
    def id_column(self) -> str:
        """The column that says whose row this is; the stages ask for what is missing by it."""
        return self.key[0]


def column(name: str, type: pa.DataType, doc: str, *, optional: bool = False) -> pa.Field:
    """One column; `optional` means that null is allowed and says "absent"."""
    return pa.field(name, type, nullable=optional, metadata={"doc": doc})


_OBJECT_ID = column("object_id", pa.string(), 'The object: "source/source_id".')
_STAGE = column("stage", pa.string(), "The stage that made this row; it is the only one that replaces or removes it.")
_STAGE_KEY = column(
    "stage_key",
    pa.string(),
    "Hash of all that this row depends on: input, the stage's settings, its code version. Another hash means: make it anew.",
)

OBJECTS = Table(
    "objects",
    pa.schema(
        [
            _OBJECT_ID,
            _STAGE,
            _STAGE_KEY,
            column("source", pa.string(), "Name of the collection the object comes from."),
            column("source_id", pa.string(), "Id within the collection, in the collection's own spelling."),
            column("asset_uri", pa.string(), "Where the asset is: an absolute path or a URI."),
            column(
                "asset_format",
                pa.string(),
                "Lower-case format of the asset: glb, gltf, obj, ...; photos: a folder of photos with a COLMAP model; pcd: a "
                "point cloud; npy: what OpenShape made of an object.",
            ),
            column("asset_sha256", pa.string(), "SHA-256 of the asset's bytes, hexadecimal; of a folder, over its files."),
            column("asset_bytes", pa.int64(), "Size of the asset in bytes."),
            column(
                "companions",
                pa.list_(
                    pa.struct(
                        [
                            pa.field("role", pa.string(), nullable=False),
                            pa.field("name", pa.string(), nullable=False),
                            pa.field("uri", pa.string(), nullable=False),
                        ]
                    )
                ),
                "The other files of the asset; nothing else is ever opened for it. Role `named`: the asset refers to it "
                "by `name`; `texture`: the base colour of its materials that have none; `cloud`: the object's point cloud.",
            ),
            column(
                "companions_sha256",
                pa.string(),
                "SHA-256 over role, name and contents of the companions, hexadecimal. Null: the asset stands alone.",
                optional=True,
            ),
            column(
                "traits",
                pa.list_(pa.string()),
                "What the asset makes use of, sorted: draco, quantized, unlit, animated, skinned, multi_scene, ...",
            ),
            column(
                "warnings",
                pa.list_(pa.string()),
                "What is wrong with the asset or its metadata and did not stop it, sorted: missing_texture, metadata_missing, ...",
            ),
            column(
                "front",
                pa.string(),
                "Where the object faces in the asset's coordinates, as its collection has it: +z or -z, y being up. Null: unknown, "
                "taken as +z.",
                optional=True,
            ),
            column("name", pa.string(), "Name as the collection gives it.", optional=True),
            column("categories", pa.list_(pa.string()), "Category names as the collection gives them; may be empty."),
            column("tags", pa.list_(pa.string()), "Tags as the collection gives them; may be empty."),
            column("description", pa.string(), "Description as the collection gives it; may hold HTML.", optional=True),
            column("license", pa.string(), 'Licence of the object as an SPDX id, or "unknown".'),
            column("creator", pa.string(), "Who made the object, as to be named in an attribution.", optional=True),
            column("split", pa.string(), "Named split the object belongs to.", optional=True),
            column("thumbnail_uri", pa.string(), "The collection's own picture of the object.", optional=True),
        ]
    ),
    key=("object_id",),
)

VIEWS = Table(
    "views",
    pa.schema(
        [
            _OBJECT_ID,
            column("view", pa.int32(), "Number of the view within the object, from 0."),
            _STAGE,
            _STAGE_KEY,
            column(
                "image",
                pa.binary(),
                "Encoded picture, sRGB with straight alpha; RGB is 0 where alpha is 0. WebP: lossless, but of quality 95 for "
                "photos without a mask, which are opaque.",
            ),
            column("width", pa.int32(), "Width of the image, pixels."),
            column("height", pa.int32(), "Height of the image, pixels."),
            column(
                "intrinsics",
                pa.list_(pa.float32(), 4),
                "fx, fy, cx, cy in pixels; the image's top left corner is (0, 0), the centre of its first pixel (0.5, 0.5).",
            ),
            column(
                "camera_to_world",
                pa.list_(pa.float32(), 16),
                "Row-major 4x4, camera to canonical frame. Camera axes are OpenCV's: x right, y down, z forward.",
            ),
            column("kind", pa.string(), "rendered, photo or thumbnail."),
            column("rig", pa.string(), "Named and versioned set of cameras the view belongs to.", optional=True),
            column(
                "alpha_coverage",
                pa.float32(),
                "Share of the picture covered by the object: mean alpha, 0..1. Null: a photo without a mask, opaque all over.",
                optional=True,
            ),
            column(
                "border_coverage",
                pa.float32(),
                "Mean alpha over the outermost pixels, 0..1: above 0, the object is cut off. Null: as for alpha_coverage.",
                optional=True,
            ),
            column("dark_share", pa.float32(), "Share of the object's pixels with luminance below 5/255.", optional=True),
            column("bright_share", pa.float32(), "Share of the object's pixels with luminance above 250/255.", optional=True),
            column("luminance", pa.float32(), "Mean sRGB luminance of the object's pixels, 0..1.", optional=True),
            column(
                "color_spread",
                pa.float32(),
                "How much the object's pixels differ in colour: root mean square distance from their mean, sRGB 0..1. 0: alike.",
                optional=True,
            ),
            column(
                "view_variance",
                pa.float32(),
                "How much the object's views differ from one another: variance over the views of each premultiplied RGBA value, "
                "0..1, mean over the pixels that any view covers; the same in all rows of an object. 0: they are all one picture. "
                "Null: a single view, or photos.",
                optional=True,
            ),
            column("file", pa.string(), "Name of the photo the view was made of. Null: it was rendered.", optional=True),
            column("missing_textures", pa.int32(), "Textures that the asset names and that could not be read.", optional=True),
            column(
                "substituted_materials",
                pa.int32(),
                "Materials that the asset names and that something else stands for, because they are absent or not understood. "
                "Null: photos.",
                optional=True,
            ),
            column("device", pa.string(), "What rendered the view: CPU, or the GPU backend and its name.", optional=True),
        ]
    ),
    key=("object_id", "view"),
)

MAPS = Table(
    "maps",
    pa.schema(
        [
            _OBJECT_ID,
            column("view", pa.int32(), "Number of the view within the object, from 0: the camera of that row of VIEWS."),
            _STAGE,
            _STAGE_KEY,
            column("rig", pa.string(), "Named and versioned set of cameras the view belongs to."),
            column("width", pa.int32(), "Width of the maps, pixels."),
            column("height", pa.int32(), "Height of the maps, pixels."),
            column("intrinsics", pa.list_(pa.float32(), 4), "As in VIEWS."),
            column("camera_to_world", pa.list_(pa.float32(), 16), "As in VIEWS."),
            column(
                "depth",
                pa.binary(),
                "16-bit grey PNG: value times `depth_unit` is the depth at the pixel's centre, along the camera's z axis, in the "
                "canonical frame, of the nearest surface that is at least half opaque; glass is. 0: nothing is seen there.",
            ),
            column("depth_unit", pa.float32(), "What one step of `depth` is, canonical frame."),
            column(
                "normal",
                pa.binary(),
                "WebP without loss: the shading normal (with normal maps) of that surface at the pixel's centre, in the canonical "
                "frame, of the side that the camera sees, as round((n + 1) / 2 * 255). Alpha 0: nothing is seen there.",
            ),
            column(
                "seen",
                pa.list_(pa.uint16()),
                "Numbers of the points in POINTS.xyz that this view sees, ascending: nothing that is at least half opaque lies "
                "between them and the camera, and they lie within the picture.",
            ),
            column("pixels", pa.list_(pa.uint32()), "For each of them the pixel that it lies in, row * width + column."),
        ]
    ),
    key=("object_id", "view"),
)

POINTS = Table(
    "points",
    pa.schema(
        [
            _OBJECT_ID,
            _STAGE,
            _STAGE_KEY,
            column(
                "xyz",
                pa.list_(pa.float16(), 3 * POINTS_PER_OBJECT),
                "(10000, 3) row-major, canonical frame, even by area. Every prefix is a good subsample: the first 1,024 are in "
                "farthest-point order.",
            ),
            column(
                "rgb",
                pa.list_(pa.uint8(), 3 * POINTS_PER_OBJECT),
                "(10000, 3) row-major, sRGB 0..255: the surface's unlit base colour. Null: the asset has no colour.",
                optional=True,
            ),
            column(
                "canonical_from_asset",
                pa.list_(pa.float64(), 16),
                "Row-major 4x4: coordinates of the asset's file to the canonical frame.",
            ),
            column("vertices", pa.int64(), "Vertices of the mesh the points lie on, as rendered; of a point cloud, its points."),
            column("faces", pa.int64(), "Triangles of the mesh the points lie on, as rendered; 0: a point cloud."),
            column("area", pa.float64(), "Surface area of that mesh in the canonical frame. Null: a point cloud.", optional=True),
            column(
                "warnings",
                pa.list_(pa.string()),
                "What is odd about the shape, sorted: flat_geometry, tiny_mesh, far_from_origin, extreme_scale, outlier_geometry.",
            ),
        ]
    ),
    key=("object_id",),
)

CAPTIONS = Table(
    "captions",
    pa.schema(
        [
            _OBJECT_ID,
            column("origin", pa.string(), "Where the caption comes from: metadata, cap3d, captioner, retrieved, ..."),
            column("caption", pa.int32(), "Number of the caption within the object and stage, from 0."),
            _STAGE,
            _STAGE_KEY,
            column("text", pa.string(), "The caption: one sentence or phrase about the object."),
            column("text_sha256", pa.string(), "SHA-256 of the text in UTF-8, hexadecimal: key into TEXT_EMBEDDINGS."),
            column("model", pa.string(), "What wrote the caption: a model's name, or the rule that made it."),
            column("kept", pa.bool_(), "Whether the caption is for training."),
            column("dropped_because", pa.string(), "Reason a caption is not kept. Null: it is kept.", optional=True),
            column("score", pa.float32(), "Cosine of caption and views under a teacher. Null: not measured.", optional=True),
        ]
    ),
    key=("object_id", "stage", "caption"),
    shared=True,
)

SPLITS = Table(
    "splits",
    pa.schema(
        [
            _OBJECT_ID,
            _STAGE,
            _STAGE_KEY,
            column("split", pa.string(), "Name of the split, as it was imported: openshape-train, objaverse-lvis, ..."),
            column("label", pa.string(), "What the list calls the object (its class, in an evaluation set).", optional=True),
        ]
    ),
    key=("object_id", "split"),
    shared=True,
)

FAILURES = Table(
    "failures",
    pa.schema(
        [
            column("object_id", pa.string(), "The object that the stage could not do; for texts, the text's SHA-256."),
            column("stage", pa.string(), "The stage."),
            _STAGE_KEY,
            column("reason", pa.string(), "Short name of the reason, to count by."),
            column("message", pa.string(), "What happened, for the person who must act."),
            column("log_tail", pa.string(), "Last lines of the tool that failed.", optional=True),
            column("attempts", pa.int32(), "How often it was tried."),
            column("thumbnail", pa.binary(), "Small picture (WebP) of what was made and not let in.", optional=True),
        ]
    ),
    key=("object_id", "stage"),
)

RUNS = Table(
    "runs",
    pa.schema(
        [
            column(
                "began",
                pa.timestamp("us", tz="UTC"),
                "When the run began. A run is one pass of one command: stages over the same input whose work is done together. One "
                "that did nothing leaves no row, nor does one whose process was killed.",
            ),
            column(
                "stages",
                pa.list_(
                    pa.struct(
                        [
                            pa.field("stage", pa.string(), nullable=False),
                            pa.field("table", pa.string(), nullable=False),
                            pa.field("done", pa.int64(), nullable=False),
                            pa.field("failed", pa.int64(), nullable=False),
                            pa.field("skipped", pa.int64(), nullable=False),
                            pa.field("made_by", pa.string(), nullable=False),
                        ]
                    )
                ),
                "The pass's stages, in its order: the table each writes, how many objects (texts, class names) were committed as "
                "done and as failed, how many needed nothing, and `made_by`: as in the table's schema metadata at that time, JSON.",
            ),
            column(
                "tasks",
                pa.int64(),
                "Objects (texts, class names) that came back from the workers, done or failed; one counts once in a pass of "
                "several stages.",
            ),
            column("wall_seconds", pa.float64(), "From the run's begin to its last commit, looking for what is to do included."),
            column(
                "work_seconds",
                pa.float64(),
                "Time in which workers had a batch in hand, summed over the workers. Batches that were lost with their worker, or "
                "ended by the error that stopped the run, are not in it.",
            ),
            column("workers", pa.int32(), "Workers that were asked for."),
            column("cpus", pa.float64(), "Cores that each worker took; without Ray, all that the process may use."),
            column("gpus", pa.float64(), "GPUs that each worker took, or a part of one; without Ray, 1 where one was used."),
            column(
                "devices",
                pa.list_(pa.string()),
                "What computed, sorted: names of GPUs and models of CPUs, as their drivers and the system have them; may be empty.",
            ),
            column("python", pa.string(), "Version of Python."),
            column("tricorpus", pa.string(), "Version of this project. Null: it is not installed.", optional=True),
            column(
                "stopped_by",
                pa.string(),
                "Name of the error that ended the run before its time; KeyboardInterrupt: a key press. Null: it ended by itself.",
                optional=True,
            ),
        ]
    ),
    key=("began",),
)


_DTYPE = column(
    "dtype",
    pa.string(),
    "Arithmetic of the teacher's forward pass: float32, or bfloat16 (products; sums in float32). Null: not known.",
    optional=True,
)


def image_embeddings(teacher: str, dim: int) -> Table:
    """The image embeddings of one teacher, `dim` numbers each."""
    return Table(
        f"image_embeddings/{teacher}",
        pa.schema(
            [
                _OBJECT_ID,
                _STAGE,
                _STAGE_KEY,
                column(
                    "embedding",
                    pa.list_(pa.field("item", pa.list_(pa.float16(), dim), nullable=False)),
                    "The teacher's image embeddings, one per view in `view` order, unit length.",
                ),
                column(
                    "lengths",
                    pa.list_(pa.float32()),
                    "Length of each embedding as the teacher gave it. Null: not kept.",
                    optional=True,
                ),
                column(
                    "thumbnail",
                    pa.list_(pa.float16()),
                    "Embedding of the collection's own picture of the object, unit length. Null: none.",
                    optional=True,
                ),
                _DTYPE,
            ]
        ),
        key=("object_id",),
    )


def text_embeddings(teacher: str, dim: int) -> Table:
    """The text embeddings of one teacher, `dim` numbers each; one row per distinct text, whichever objects it describes."""
    return Table(
        f"text_embeddings/{teacher}",
        pa.schema(
            [
                column("text_sha256", pa.string(), "SHA-256 of the text in UTF-8, hexadecimal."),
                _STAGE,
                _STAGE_KEY,
                column("text", pa.string(), "The text."),
                column("embedding", pa.list_(pa.float16(), dim), "The teacher's text embedding, unit length."),
                column("length", pa.float32(), "Length of the embedding as the teacher gave it. Null: not kept.", optional=True),
                column(
                    "prompt_averaged",
                    pa.list_(pa.float16()),
                    "Mean of the embeddings of the text in ULIP's 64 prompts, brought to unit length. Null: not made.",
                    optional=True,
                ),
                _DTYPE,
            ]
        ),
        key=("text_sha256",),
    )


def class_embeddings(teacher: str, dim: int) -> Table:
    """The classifiers of one teacher, `dim` numbers each; one row per class name of the corpus: labels of SPLITS, and categories
    of OBJECTS. Which prompts the names were put in stands among the settings that made the table."""
    return Table(
        f"class_embeddings/{teacher}",
        pa.schema(
            [
                column("name", pa.string(), "The class, as its list or collection spells it."),
                _STAGE,
                _STAGE_KEY,
                column(
                    "embedding",
                    pa.list_(pa.float16(), dim),
                    "Mean of the unit-length embeddings of the name in all prompts, brought to unit length (Uni3D's rule).",
                ),
                column(
                    "raw_mean",
                    pa.list_(pa.float32(), dim),
                    "Mean of these embeddings as the teacher gave them (DuoduoCLIP's and OpenShape's rule); any length.",
                ),
                _DTYPE,
            ]
        ),
        key=("name",),
    )


def shape_embeddings(name: str, dim: int) -> Table:
    """One vector per object, `dim` numbers each, to look objects up by: a teacher's mean over the views, when `name` is the
    teacher's, or what a checkpoint made of the stored points or views; `name` then ends in a hash of its weights. Which it is
    stands among the settings that made the table. A large one has a vector index."""
    return Table(
        f"shape_embeddings/{name}",
        pa.schema(
            [
                _OBJECT_ID,
                _STAGE,
                _STAGE_KEY,
                column("embedding", pa.list_(pa.float16(), dim), "The object's embedding, unit length."),
            ]
        ),
        key=("object_id",),
    )
