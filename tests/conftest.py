"""Small real things that several tests need."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.store import Corpus
from schemas.check import to_table
from schemas.tables import OBJECTS
from shout import object_row

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def assets() -> Path:
    """The pack of real assets, or a skip."""
    folder = Path(os.environ.get("TRICORPUS_ASSETS", ROOT.parent / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip(f"no pack of real assets at {folder}: set TRICORPUS_ASSETS to its folder")
    return folder


@pytest.fixture(scope="session")
def oracles() -> Path:
    """The parity data of the published systems, or a skip."""
    folder = Path(os.environ.get("TRICORPUS_ORACLES", ROOT.parent / "shared" / "oracles"))
    if not folder.is_dir():
        pytest.skip(f"no parity data at {folder}: set TRICORPUS_ORACLES to its folder")
    return folder


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    """A corpus of 20 rows of OBJECTS and nothing else."""
    made = Corpus(str(tmp_path / "corpus"))
    made.create(OBJECTS)
    made.append(OBJECTS, made.write(OBJECTS, to_table(OBJECTS, [object_row(number) for number in range(20)])))
    return made
