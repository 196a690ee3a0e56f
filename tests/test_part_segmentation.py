"""The metric of part segmentation, by hand and on made labels of real layouts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluate.part_segmentation import CATEGORIES, part_ious, part_segmentation

PARTS = 4
labels = arrays(np.int64, 12, elements=st.integers(0, PARTS - 1))


def test_each_part_alone():
    ious = part_ious(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2)
    assert ious.tolist() == [1 / 2, 2 / 3]


def test_a_part_that_is_neither_there_nor_predicted_is_right():
    assert part_ious(np.array([0, 0]), np.array([0, 0]), 3).tolist() == [1, 1, 1]


def test_a_part_that_is_only_predicted_is_wrong():
    assert part_ious(np.array([0, 2]), np.array([0, 0]), 3).tolist() == [1 / 2, 1, 0]


def test_what_no_part_was_predicted_for_is_wrong():
    assert part_ious(np.array([0, -1]), np.array([0, 0]), 1).tolist() == [1 / 2]


def test_a_lamp_counts_four_parts_though_two_are_ever_predicted():
    truth = np.array([0, 0, 1, 1, 2, 2])
    ious = part_ious(np.array([0, 0, 1, 1, 1, 1]), truth, CATEGORIES["lamp"].parts)
    assert ious.tolist() == [1, 1 / 2, 0, 1]


@given(labels, labels)
def test_as_sets(predicted, truth):
    for number, iou in enumerate(part_ious(predicted, truth, PARTS)):
        ours, theirs = set(np.flatnonzero(predicted == number)), set(np.flatnonzero(truth == number))
        assert iou == (len(ours & theirs) / len(ours | theirs) if ours | theirs else 1)


@pytest.mark.parametrize("truth", [[-1, 0], [0, 4]])
def test_a_label_of_another_category_is_refused(truth):
    with pytest.raises(ValueError, match="the category has 4: subtract the number of its first part"):
        part_ious(np.array([0, 0]), np.array(truth), PARTS)


def test_means_over_shapes_and_over_categories_differ():
    right, wrong = (np.array([0, 1]), np.array([0, 1])), (np.array([1, 0]), np.array([0, 1]))
    found = part_segmentation([("mug", *right), ("mug", *right), ("mug", *wrong), ("bag", *wrong)])
    assert found.shapes == {"bag": 1, "mug": 3}
    assert found.categories == {"bag": 0, "mug": pytest.approx(2 / 3)}
    assert (found.overall, found.instances) == (pytest.approx(1 / 3), 1 / 2)


def test_the_categories_share_out_the_fifty_parts():
    first = 0
    for category in CATEGORIES.values():
        assert category.first == first
        first += category.parts
    assert (len(CATEGORIES), first) == (16, 50)


def test_the_real_lists_folders_and_labels(assets):
    folder = next((assets / "eval" / "shapenetpart").glob("shapenetcore_*"))
    lines = (folder / "synsetoffset2category.txt").read_text().splitlines()
    assert {name.lower(): synset for name, synset in map(str.split, lines)} == {
        name: category.synset for name, category in CATEGORIES.items()
    }
    shapes = []
    for name, category in CATEGORIES.items():
        for file in (folder / category.synset).glob("*.txt"):
            truth = np.loadtxt(file)[:, 6].astype(int) - category.first
            shapes.append((name, truth, truth))
    assert shapes and part_segmentation(shapes).overall == 1
