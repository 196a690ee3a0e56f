"""Zero-shot classification: the two rules of class embeddings, and what counts as right."""

import pytest
import torch

from evaluate.zero_shot import class_embeddings, zero_shot


@pytest.fixture
def templates():
    """Two classes, two templates each; one template of the first class is far longer than all others."""
    return torch.tensor([[[10.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [[0.0, 1.0, 0.2], [0.0, 1.0, -0.2]]])


def test_unit_templates_count_alike(templates):
    classes = class_embeddings(templates, "unit templates")
    assert torch.allclose(classes.norm(dim=1), torch.ones(2))
    longer = templates * torch.tensor([[[1.0], [7.0]], [[3.0], [1.0]]])
    assert torch.allclose(class_embeddings(longer, "unit templates"), classes)


def test_raw_templates_count_by_their_length(templates):
    means = torch.tensor([[5.0, 0.5, 0.5], [0.0, 1.0, 0.0]])
    assert torch.allclose(class_embeddings(templates, "raw templates"), torch.nn.functional.normalize(means))


def test_the_rules_classify_differently(templates):
    shape = torch.tensor([[0.5, 0.9, 0.0]])
    right = {
        rule: zero_shot(shape, class_embeddings(templates, rule), torch.tensor([0])).top[0]
        for rule in ("unit templates", "raw templates")
    }
    assert right == {"unit templates": 1.0, "raw templates": 0.0}


def test_among_the_nearest(templates):
    classes = torch.eye(6)
    objects = torch.tensor([[6.0, 5, 4, 3, 2, 1]] * 4)
    found = zero_shot(objects, classes, torch.tensor([0, 2, 4, 5]))
    assert (found.top, found.objects, found.classes) == ((1 / 4, 2 / 4, 3 / 4), 4, 6)


def test_classes_count_alike_in_their_mean():
    objects = torch.eye(4)[[0, 0, 0, 0, 1, 2]]
    found = zero_shot(objects, torch.eye(4), torch.tensor([0, 0, 0, 3, 3, 2]))
    assert found.top[0] == pytest.approx(4 / 6)
    assert found.class_mean == pytest.approx((1 + 0 + 1) / 3)  # nothing is of class 1


def test_each_class_is_told_with_its_objects_and_one_without_any_has_no_share():
    objects = torch.eye(4)[[0, 0, 0, 0, 1, 2]]
    found = zero_shot(objects, torch.eye(4), torch.tensor([0, 0, 0, 3, 3, 2]))
    assert found.per_class == ((1.0, 3), (None, 0), (1.0, 1), (0.0, 2))


def test_the_classes_together_are_the_whole():
    chance = torch.Generator().manual_seed(0)
    classes, labels = torch.randn(7, 4, generator=chance), torch.randint(7, (500,), generator=chance)
    found = zero_shot(classes[labels] + torch.randn(500, 4, generator=chance), classes, labels)
    assert 0.2 < found.top[0] < 0.9
    assert sum(count for _, count in found.per_class) == 500
    assert sum(share * count for share, count in found.per_class) / 500 == pytest.approx(found.top[0])
    assert sum(share for share, _ in found.per_class) / 7 == pytest.approx(found.class_mean)


def test_embeddings_that_are_all_the_same_score_what_one_class_has():
    found = zero_shot(torch.ones(8, 3), torch.ones(5, 3), torch.tensor([0, 1, 2, 3, 4, 4, 4, 4]))
    assert found.top == (1 / 8, 3 / 8, 1.0)


def test_fewer_classes_than_are_looked_at():
    assert zero_shot(torch.eye(2), torch.eye(2), torch.tensor([0, 1])).top == (1.0, 1.0, 1.0)


def test_a_published_size_in_blocks():
    """46,205 objects among 1,156 classes, as Objaverse-LVIS has; embeddings that are their class' and some noise."""
    chance = torch.Generator().manual_seed(0)
    classes, labels = torch.randn(1156, 16, generator=chance), torch.randint(1156, (46_205,), generator=chance)
    found = zero_shot(classes[labels] + 0.01 * torch.randn(46_205, 16, generator=chance), classes, labels)
    assert found.top[0] > 0.99 and found.class_mean > 0.99
