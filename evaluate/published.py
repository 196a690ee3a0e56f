"""What others have published: the rows of the field's tables, beside which an evaluation is set.

Only figures that were read in the source that stands with them, none from memory. What is not here could not be read: Uni3D's Ti
and S, TAMM and MixCon3D on ModelNet40, top-3 and top-5 of MRD's classification, DuoduoCLIP on MVPNet and with other numbers of
views than 5 and 12, OpenShape's curves of few shots, ULIP's fine-tuning.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from evaluate.result import Task

# How many objects and classes the benchmarks have. "scanobjectnn" is OBJ_ONLY, both halves together.
OBJECTS = {"objaverse-lvis": 46_205, "modelnet40": 2_468, "scanobjectnn": 2_890, "mvpnet": 16_636}
TEST_OBJECTS = {
    "modelnet40": 2_468,
    "scanobjectnn-obj-only": 581,
    "scanobjectnn-obj-bg": 581,
    "scanobjectnn-pb-t50-rs": 2_882,
    "shapenetpart": 2_874,
}
CLASSES = {"objaverse-lvis": 1_156, "modelnet40": 40, "mvpnet": 238} | dict.fromkeys(
    ("scanobjectnn", "scanobjectnn-obj-only", "scanobjectnn-obj-bg", "scanobjectnn-pb-t50-rs"), 15
)

TEACHERS = {
    "bigG": "ViT-bigG-14:laion2b_s39b_b160k",
    "E+": "EVA02-E-14-plus:laion2b_s9b_b144k",
    "B32": "ViT-B-32:laion2b_s34b_b79k",
}

# "four sources": OpenShape's data, of Objaverse, ShapeNet, 3D-FUTURE and ABO; "no LVIS": without the objects of Objaverse-LVIS.
TRAINED_ON = {
    "-": "nothing",
    "SN": "ShapeNet",
    "no LVIS": "four, no LVIS",
    "four": "four sources",
    "O": "Objaverse",
    "O+SN": "Objaverse, ShapeNet",
    "own": "the benchmark",
}

SOURCES = {
    "OpenShape": "OpenShape (Liu et al., NeurIPS 2023), table of checkpoints in its README",
    "ULIP": "ULIP (Xue et al., CVPR 2023), table of pre-trained models in its README",
    "ULIP-2": "ULIP-2 (Xue et al., CVPR 2024), table of pre-trained models in its README",
    "Uni3D": "Uni3D (Zhou et al., ICLR 2024), model zoo in its README",
    "MRD": "MRD (Wang et al., ECCV 2024), tables of zero-shot classification",
    "MRD sizes": "MRD (Wang et al., ECCV 2024), table of model sizes",
    "MRD retrieval": "MRD (Wang et al., ECCV 2024), table of retrieval",
    "MRD 8": "MRD (Wang et al., ECCV 2024), table 8: ULIP's protocol, the hardest variant",
    "ViT-Lens": "ViT-Lens (Lei et al., CVPR 2024), model zoo of its repository",
    "Duoduo": "DuoduoCLIP (Lee et al., ICLR 2025), table of zero-shot classification",
    "ShapeLLM": "ShapeLLM (Qi et al., ECCV 2024), table of zero-shot learning in its README",
    "ShapeLLM tuned": "ShapeLLM (Qi et al., ECCV 2024), table of fine-tuning in its README",
    "PointCLIP": "PointCLIP (Zhang et al., CVPR 2022), as issue 17 of its repository quotes the paper",
    "PointCLIP 16": "PointCLIP (Zhang et al., CVPR 2022), README",
    "PointCLIP V2": "PointCLIP V2 (Zhu et al., ICCV 2023), as Papers with Code lists it",
    "PartDistill": "PartDistill (Umam et al., CVPR 2024), table 1 as its text reads: two of the table's rows are swapped",
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row of somebody's table.

    `figures`: shares, 0..1, by the names that `evaluate.result.Result` has. `fed`: what it saw. `teacher`: as a corpus calls it;
    None: not known. `parameters`: millions; None: not known. `source`: where it was read, in words.
    """

    method: str
    task: Task
    benchmark: str
    fed: str
    trained_on: str
    teacher: str | None
    parameters: float | None
    figures: dict[str, float]
    source: str


def published(task: Task, benchmark: str) -> list[Published]:
    """Rows of that task and benchmark."""
    return [one for one in ROWS if (one.task, one.benchmark) == (task, benchmark)]


def _rows(task: Task, table: str, columns: dict[str, tuple[str, ...]]) -> Iterator[Published]:
    """One per cell with figures. Percent, in the order of the names that `columns` has for each benchmark; a dot stands
    for what is not printed. Before them: method, what it saw, trained on, teacher, millions of parameters; last the source."""
    for line in table.strip().splitlines():
        method, fed, trained_on, teacher, parameters, *cells, source = (cell.strip() for cell in line.split("|"))
        for (benchmark, names), cell in zip(columns.items(), cells, strict=True):
            printed = zip(names, cell.split(), strict=False)  # the last ones may be left out
            if figures := {name: float(percent) / 100 for name, percent in printed if percent != "."}:
                yield Published(
                    method=method,
                    task=task,
                    benchmark=benchmark,
                    fed=fed,
                    trained_on=TRAINED_ON[trained_on],
                    teacher=TEACHERS.get(teacher),
                    parameters=float(parameters) if parameters else None,
                    figures=figures,
                    source=SOURCES[source],
                )


# method | saw | trained on | teacher | millions | Objaverse-LVIS | ModelNet40 | ScanObjectNN, OBJ_ONLY | source
_CLASSIFIED = """
PointCLIP                | depth maps    | -       |      |       |                |                | 15.38          | PointCLIP
PointCLIP V2             | depth maps    | -       |      |       |                | 64.22          | 50.09          | PointCLIP V2
CLIP B-32, mean of views | 12 views      | -       | B32  |       | 35.7 54.8 62.1 |                | 53.9 73.5 81.2 | Duoduo
CLIP bigG, mean of views | 12 views      | -       | bigG |       | 43.5 64.2 71.3 |                | 56.7 78.2 85.8 | Duoduo
ULIP PointNet++ (ssg)    | points        | SN      |      |       |                | 57.7 .    78.9 |                | ULIP
ULIP PointMLP            | points        | SN      |      |       |                | 60.0 .    79.4 |                | ULIP
ULIP PointBERT           | points        | SN      |      |       |                | 60.3 .    84.0 |                | ULIP
ULIP PointNeXt           | points        | SN      |      |       |                | 56.2 .    77.0 |                | ULIP
OpenShape PointBERT      | points        | SN      | bigG | 32.3  | 10.8 .    25.0 | 70.3 .    91.3 |                | OpenShape
OpenShape SparseConv     | points        | SN      | bigG |       | 12.1 .    27.1 | 74.1 .    89.5 |                | OpenShape
ViT-Lens-B               | points        | SN      |      |       |                | 65.4 .    92.7 |                | ViT-Lens
ViT-Lens-L               | points        | SN      |      |       |                | 70.6 .    94.4 |                | ViT-Lens
MRD-T without relations  | points        | SN      | bigG | 5.1   | 11.0           | 72.2           | 53.4           | MRD
MRD-T                    | points        | SN      | bigG | 5.1   | 11.8           | 74.2           | 55.7           | MRD
MRD-S                    | points        | SN      | bigG | 22.6  | 13.3           | 74.2           | 52.1           | MRD
ULIP PointBERT           | points        | no LVIS |      |       | 21.4 38.1 46.0 |                |                | Duoduo
OpenShape SparseConv     | points        | no LVIS | bigG |       | 38.1 .    68.2 | 84.0 .    97.3 |                | OpenShape
OpenShape PointBERT      | points        | no LVIS | bigG | 32.3  | 39.1 60.8 68.9 |                |                | Duoduo
OpenShape PointBERT      | points        | no LVIS | bigG | 32.3  |                | 85.3 .    97.4 |                | OpenShape
TAMM PointBERT           | points        | no LVIS |      |       | 42.0 63.6 71.7 |                |                | Duoduo
Uni3D-B                  | points        | no LVIS | E+   | 88.4  | 45.9 .    74.8 | 86.1 .    98.7 | 61.7 .    89.5 | Uni3D
Uni3D-L                  | points        | no LVIS | E+   | 306.7 | 46.2 .    74.7 | 86.6 .    97.8 | 58.4 .    90.1 | Uni3D
Uni3D-g                  | points        | no LVIS | E+   | 1000  | 47.2 68.8 76.1 |                |                | Duoduo
Uni3D-g                  | points        | no LVIS | E+   | 1000  |                | 86.8 .    98.4 | 66.5 .    90.1 | Uni3D
MRD-S                    | points        | no LVIS | bigG | 22.6  | 45.2           | 88.5           | 63.0           | MRD
MRD-M                    | points        | no LVIS | bigG | 32.3  | 45.9           | 87.8           | 62.3           | MRD
MixCon3D PointBERT       | points, views | no LVIS | bigG |       | 47.5 69.0 76.2 |                |                | Duoduo
ViT-Lens-G               | points        | no LVIS | bigG |       | 50.1 71.3 78.1 | 86.8 96.8 97.8 | 59.8 79.3 87.7 | ViT-Lens
CLIP B-32 tuned, mean    | 12 views      | no LVIS | B32  |       | 50.1 72.0 79.2 |                |                | Duoduo
DuoduoCLIP               | 5 views       | no LVIS | B32  | 87    | 51.3 73.1 79.9 |                |                | Duoduo
DuoduoCLIP               | 12 views      | no LVIS | B32  | 87    | 52.7 74.5 81.3 |                |                | Duoduo
ViT-Lens-B               | points        | O       |      |       |                | 74.8 .    93.8 |                | ViT-Lens
ViT-Lens-L               | points        | O       |      |       |                | 80.6 .    95.8 |                | ViT-Lens
ULIP-2 PointBERT         | points        | O+SN    | bigG |       | 50.6 .    79.1 | 84.7 .    97.1 |                | ULIP-2
ULIP PointBERT           | points        | four    |      |       | 26.8 44.8 52.6 |                | 51.6 72.5 82.3 | Duoduo
OpenShape SparseConv     | points        | four    | bigG |       | 42.7 .    72.8 | 83.7 .    98.4 |                | OpenShape
OpenShape PointBERT      | points        | four    | bigG | 32.3  | 46.8 69.1 77.0 |                | 52.2 79.7 88.7 | Duoduo
OpenShape PointBERT      | points        | four    | bigG | 32.3  |                | 84.4 .    98.0 |                | OpenShape
TAMM PointBERT           | points        | four    |      |       | 50.7 73.2 80.6 |                | 55.7 80.7 88.9 | Duoduo
MixCon3D PointBERT       | points, views | four    | bigG |       | 52.5 74.5 81.2 |                | 58.6 80.3 89.2 | Duoduo
Uni3D-B                  | points        | four    | E+   | 88.4  | 51.7 .    80.8 | 86.3 .    97.9 | 63.8 .    90.2 | Uni3D
Uni3D-L                  | points        | four    | E+   | 306.7 | 53.1 .    81.5 | 86.3 .    98.3 | 58.2 .    89.4 | Uni3D
Uni3D-g                  | points        | four    | E+   | 1000  | 55.3 76.7 82.9 |                | 65.3 85.5 92.7 | Duoduo
Uni3D-g                  | points        | four    | E+   | 1000  |                | 88.2 .    99.3 |                | Uni3D
MRD-T                    | points        | four    | bigG | 5.1   | 47.6           | 86.7           |                | MRD sizes
MRD-S                    | points        | four    | bigG | 22.6  | 51.4           | 88.6           |                | MRD sizes
MRD-M                    | points        | four    | bigG | 32.3  | 52.5           | 88.0           |                | MRD sizes
MRD-B                    | points        | four    | bigG | 88.4  | 53.2           | 88.8           | 63.7           | MRD
MRD-L                    | points        | four    | bigG | 306.7 | 53.6           | 87.3           | 64.1           | MRD
ReCon++ Base             | points        | four    |      |       | 53.2           | 86.5           | 63.6           | ShapeLLM
ReCon++ Large            | points        | four    |      |       | 53.7 75.8 82.0 |                | 65.4 84.1 89.7 | Duoduo
ReCon++ Large            | points        | four    |      |       |                | 87.3           |                | ShapeLLM
ViT-Lens-G               | points        | four    | bigG |       | 52.0 73.3 79.9 | 87.6 96.6 98.4 | 60.1 81.0 90.3 | ViT-Lens
CLIP B-32 tuned, mean    | 12 views      | four    | B32  |       | 53.0 74.7 81.4 |                | 55.1 75.6 83.9 | Duoduo
DuoduoCLIP               | 5 views       | four    | B32  | 87    | 54.1 76.0 82.4 |                | 60.7 82.4 88.5 | Duoduo
DuoduoCLIP               | 12 views      | four    | B32  | 87    | 55.2 77.1 83.4 |                | 66.3 85.5 90.2 | Duoduo
"""

# method | saw | trained on | teacher | millions | ScanObjectNN, OBJ_BG | PB_T50_RS | source
_CLASSIFIED_VARIANTS = """
PointCLIP V2 | depth maps | - |  |  | 41.22 | 35.36 | PointCLIP V2
"""

# method | saw | trained on | teacher | millions | instance top-1, 3, 5, then category top-1, 3, 5 | source
# MRD's main text says that texts look up shapes, its appendix the other way round.
_RETRIEVED = """
OpenShape PointBERT | points | four | bigG | 32.3 | 15.4 28.9 36.8 49.6 71.1 78.8 | MRD retrieval
Uni3D-B             | points | four | E+   | 88.4 | 18.9 33.8 42.2 55.9 76.4 83.4 | MRD retrieval
MRD-B               | points | four | bigG | 88.4 | 20.5 36.0 44.5 57.9 78.2 84.8 | MRD retrieval
"""

# method | saw | trained on | teacher | millions | ModelNet40 | source
_FEW_SHOT = """
PointCLIP | depth maps, 16 shots | own |  |  | 86.71 | PointCLIP 16
"""

# method | saw | trained on | teacher | millions | ScanObjectNN, OBJ_BG | PB_T50_RS | OBJ_ONLY | ModelNet40 | source
_TUNED = """
ACT           | points       | own |      |    | 93.29 | 88.21 | 91.91 |      | ShapeLLM tuned
ACT           | 1,024 points | own |      |    |       |       |       | 93.7 | ShapeLLM tuned
ACT           | 8,192 points | own |      |    |       |       |       | 94.0 | ShapeLLM tuned
ReCon         | points       | own |      |    | 95.35 | 91.26 | 93.80 |      | ShapeLLM tuned
ReCon         | 1,024 points | own |      |    |       |       |       | 94.5 | ShapeLLM tuned
ReCon         | 8,192 points | own |      |    |       |       |       | 94.7 | ShapeLLM tuned
PointGPT-B    | points       | own |      |    | 95.8  | 91.9  | 95.2  |      | ShapeLLM tuned
PointGPT-B    | 1,024 points | own |      |    |       |       |       | 94.4 | ShapeLLM tuned
PointGPT-B    | 8,192 points | own |      |    |       |       |       | 94.6 | ShapeLLM tuned
ReCon++ Base  | points       | own |      |    | 98.62 | 93.34 | 96.21 |      | ShapeLLM tuned
ReCon++ Base  | 1,024 points | own |      |    |       |       |       | 94.6 | ShapeLLM tuned
ReCon++ Base  | 8,192 points | own |      |    |       |       |       | 94.8 | ShapeLLM tuned
ReCon++ Large | points       | own |      |    | 98.80 | 95.25 | 97.59 |      | ShapeLLM tuned
ReCon++ Large | 1,024 points | own |      |    |       |       |       | 94.8 | ShapeLLM tuned
ReCon++ Large | 8,192 points | own |      |    |       |       |       | 95.0 | ShapeLLM tuned
MRD PointBERT | points       | own | bigG | 22 |       | 89.6  |       |      | MRD 8
"""

# method | saw | trained on | teacher | millions | ShapeNetPart | source
_PARTS = """
PointCLIP V2                           | 10 views | -   |  |  | 48.4 | PartDistill
PartDistill, CLIP, aligned at the test | points   | own |  |  | 53.8 | PartDistill
PartDistill, CLIP, pre-aligned         | points   | own |  |  | 63.9 | PartDistill
"""

_TOP = ("top-1", "top-3", "top-5")
_INSTANCE_AND_CATEGORY = tuple(f"{kind} {top}" for kind in ("instance", "category") for top in _TOP)
_HALVES = ("scanobjectnn-obj-bg", "scanobjectnn-pb-t50-rs", "scanobjectnn-obj-only")

ROWS: tuple[Published, ...] = (
    *_rows("zero-shot", _CLASSIFIED, dict.fromkeys(["objaverse-lvis", "modelnet40", "scanobjectnn"], _TOP)),
    *_rows("zero-shot", _CLASSIFIED_VARIANTS, dict.fromkeys(_HALVES[:2], _TOP)),
    *_rows("retrieval", _RETRIEVED, {"objaverse-lvis": _INSTANCE_AND_CATEGORY}),
    *_rows("few-shot", _FEW_SHOT, {"modelnet40": _TOP}),
    *_rows("fine-tuning", _TUNED, dict.fromkeys([*_HALVES, "modelnet40"], _TOP)),
    *_rows("part segmentation", _PARTS, {"shapenetpart": ("mIoU",)}),
)
