"""What must stay true of the code: who may import whom, where heavy packages live, and a few rules of style. Read over `ast`."""

import ast
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from schemas import tables

ROOT = Path(__file__).resolve().parent.parent

# schemas <- pipeline <- render, captions <- jobs; nothing imports jobs. What reads a published corpus needs nothing but schemas.
MAY_IMPORT = {
    "schemas": set(),
    "pipeline": {"schemas"},
    "render": {"schemas", "pipeline"},
    "captions": {"schemas", "pipeline"},
    "trainer": {"schemas"},
    "evaluate": {"schemas", "pipeline", "trainer"},
    "reports": {"schemas"},
    "jobs": {"schemas", "pipeline", "render", "captions", "trainer", "evaluate", "reports"},
    "benchmarks": {"schemas", "pipeline", "render", "captions", "trainer", "evaluate", "reports"},
    "tests": {"schemas", "pipeline", "render", "captions", "trainer", "evaluate", "reports", "jobs", "benchmarks"},
}

ONLY_IN = {
    "ray": ("pipeline/on_ray.py", "trainer/on_ray.py"),
    "lance": ("schemas/corpus.py", "pipeline/store.py", "trainer/data.py", "trainer/mapped.py", "benchmarks/*.py"),
    # Blender's modules: GPL, and only in Blender's own process
    "bpy": ("render/blender_*.py", "benchmarks/blender_*.py"),
    "bmesh": ("render/blender_*.py",),
    "mathutils": ("render/blender_*.py",),
}

NO_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}


def violations(path: str, source: str) -> Iterator[str]:
    """The rules that the file `path` (relative to the project's root) with this text breaks, one sentence each."""
    file = PurePosixPath(path)
    tree = ast.parse(source, path)
    if NO_NAMES & {file.stem, *file.parent.parts}:
        yield f"{path}: name it for what it makes"
    if file.name == "__init__.py" and source.strip():
        yield f"{path}: must be empty"
    for module, line in _imported(tree):
        home = file.parts[0]
        if module in MAY_IMPORT and module != home and module not in MAY_IMPORT[home]:
            yield f"{path}:{line}: {home} may not import {module}"
        # a test may use what it tests
        if module in ONLY_IN and home != "tests" and not any(file.match(pattern) for pattern in ONLY_IN[module]):
            yield f"{path}:{line}: import {module} only in {', '.join(ONLY_IN[module])}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"{path}:{node.lineno}: bare except"
        elif isinstance(node, ast.ExceptHandler) and _catches_all(node.type) and all(map(_does_nothing, node.body)):
            yield f"{path}:{node.lineno}: an exception of any kind is swallowed"
        elif isinstance(node, ast.Call) and "suppress" in _names(node.func) and any(map(_catches_all, node.args)):
            yield f"{path}:{node.lineno}: an exception of any kind is swallowed"
    if file.parts[0] != "tests":
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                private = node.name.startswith("_")
                told_by_file = file.parts[0] == "jobs" and node.name == "Job"  # a job's file opens with what it does
                if not private and not told_by_file and not ast.get_docstring(node):
                    yield f"{path}:{node.lineno}: {node.name} has no docstring"


def _imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Top-level modules that a file imports, also inside functions, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0], node.lineno


def _names(node: ast.AST) -> set[str]:
    return {
        one.id if isinstance(one, ast.Name) else one.attr for one in ast.walk(node) if isinstance(one, ast.Name | ast.Attribute)
    }


def _catches_all(type: ast.AST) -> bool:
    return bool(_names(type) & {"Exception", "BaseException"})


def _does_nothing(statement: ast.stmt) -> bool:
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass | ast.Continue | ast.Break)


def _files() -> list[str]:
    return [str(path.relative_to(ROOT)) for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def _columns() -> Iterator[tuple[str, object]]:
    of_vectors = (tables.image_embeddings, tables.text_embeddings, tables.class_embeddings, tables.shape_embeddings)
    made = [make("a:b", 4) for make in of_vectors]
    for table in [one for one in vars(tables).values() if isinstance(one, tables.Table)] + made:
        yield from ((f"{table.name}.{field.name}", field) for field in table.schema)


@pytest.mark.parametrize("path", _files())
def test_a_file_keeps_the_rules(path):
    assert list(violations(path, (ROOT / path).read_text())) == []


def test_every_folder_with_code_has_its_arrows():
    folders = {path.parent.name for path in ROOT.glob("*/*.py") if not path.parent.name.startswith(".")}
    assert folders <= MAY_IMPORT.keys()


def test_every_column_says_what_it_means():
    assert [name for name, field in _columns() if not (field.metadata or {}).get(b"doc", b"").strip()] == []


def test_every_table_is_looked_at():
    assert {name.split(".")[0] for name, _ in _columns()} >= {"objects", "views", "points", "captions", "failures"}


@pytest.mark.parametrize(
    ("path", "source", "broken"),
    [
        ("schemas/check.py", "from pipeline.stage import Row", "schemas/check.py:1: schemas may not import pipeline"),
        (
            "pipeline/run.py",
            "import schemas\ndef f():\n  'x'\n  import jobs.demo",
            "pipeline/run.py:4: pipeline may not import jobs",
        ),
        ("render/views.py", "import captions.filters", "render/views.py:1: render may not import captions"),
        ("trainer/data.py", "from pipeline import store", "trainer/data.py:1: trainer may not import pipeline"),
        ("trainer/train.py", "import evaluate.canary", "trainer/train.py:1: trainer may not import evaluate"),
        ("evaluate/canary.py", "import captions.filters", "evaluate/canary.py:1: evaluate may not import captions"),
        (
            "reports/page.py",
            "import lance",
            "reports/page.py:1: import lance only in schemas/corpus.py, pipeline/store.py, trainer/data.py, trainer/mapped.py, "
            "benchmarks/*.py",
        ),
        (
            "pipeline/run.py",
            "from ray.util import ActorPool",
            "pipeline/run.py:1: import ray only in pipeline/on_ray.py, trainer/on_ray.py",
        ),
        ("render/blender.py", "import bpy", "render/blender.py:1: import bpy only in render/blender_*.py, benchmarks/blender_*.py"),
        ("pipeline/utils.py", "", "pipeline/utils.py: name it for what it makes"),
        ("trainer/common/losses.py", "", "trainer/common/losses.py: name it for what it makes"),
        ("jobs/__init__.py", "from jobs import demo", "jobs/__init__.py: must be empty"),
        ("jobs/demo.py", "try:\n  x = 1\nexcept:\n  raise", "jobs/demo.py:3: bare except"),
        ("jobs/demo.py", "try:\n  x = 1\nexcept Exception:\n  pass", "jobs/demo.py:3: an exception of any kind is swallowed"),
        (
            "jobs/demo.py",
            "for x in y:\n  try:\n    x()\n  except (OSError, BaseException):\n    continue",
            "jobs/demo.py:4: an exception of any kind is swallowed",
        ),
        ("jobs/demo.py", "with contextlib.suppress(Exception):\n  x = 1", "jobs/demo.py:1: an exception of any kind is swallowed"),
        ("jobs/demo.py", "def main(job): return 0", "jobs/demo.py:1: main has no docstring"),
        ("schemas/check.py", "class SchemaError(Exception): pass", "schemas/check.py:1: SchemaError has no docstring"),
    ],
)
def test_a_broken_rule_is_found(path, source, broken):
    assert list(violations(path, source)) == [broken]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("jobs/build.py", "import reports.page, trainer.train, captions, render, pipeline.run, schemas"),
        ("render/blender_worker.py", "import bpy"),
        ("tests/test_store.py", "import lance\nfrom jobs import demo\ndef test_a(): pass"),
        ("pipeline/mesh.py", "from pipeline.stage import ObjectError\nfrom . import stage"),
        ("jobs/demo.py", "try:\n  x = 1\nexcept Exception as error:\n  raise ValueError('so') from error"),
        ("jobs/demo.py", "try:\n  x = 1\nexcept KeyError:\n  pass"),
        ("jobs/demo.py", "def _quiet(): return 0\nclass Job: x = 1"),
    ],
)
def test_what_the_rules_allow_is_not_complained_of(path, source):
    assert list(violations(path, source)) == []
