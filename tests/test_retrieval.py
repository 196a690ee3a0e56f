"""Retrieval: exact lists, ties and all, and what counts as found."""

import pytest
import torch

from evaluate import retrieval as module
from evaluate.retrieval import both_ways, cosines, ranked, retrieval


@pytest.fixture
def chance():
    return torch.Generator().manual_seed(0)


def near_each_other(count, dim, chance):
    """Embeddings like those of an untrained encoder: float32 cannot tell their cosines apart."""
    return 1 + 1e-3 * torch.randn(count, dim, generator=chance)


def brute_force(queries, gallery, count):
    cosine = cosines(queries, gallery).tolist()
    return [sorted(range(len(row)), key=lambda item: (-row[item], item))[:count] for row in cosine]


def test_cosines_are_cosines(chance):
    queries, gallery = torch.randn(7, 33, generator=chance), 5 * torch.randn(9, 33, generator=chance)
    exact = torch.nn.functional.cosine_similarity(queries.double()[:, None], gallery.double()[None], dim=2)
    assert (cosines(queries, gallery) - exact).abs().max() < 1e-7


def test_cosines_do_not_depend_on_what_else_is_computed(chance):
    queries, gallery = near_each_other(50, 1280, chance), near_each_other(301, 1280, chance)
    whole = cosines(queries, gallery)
    for one in range(0, 301, 13):
        assert torch.equal(whole[:, one], cosines(queries, gallery[one : one + 1])[:, 0])
    for one in range(50):
        assert torch.equal(whole[one], cosines(queries[one : one + 1], gallery)[0])


@pytest.mark.parametrize("make", [near_each_other, lambda count, dim, chance: torch.randn(count, dim, generator=chance)])
def test_lists_are_those_of_a_full_sort_in_blocks_of_any_size(chance, monkeypatch, make):
    queries, gallery = make(100, 64, chance), make(150, 64, chance)
    gallery = gallery[torch.randint(150, (400,), generator=chance)]  # every vector several times
    exact = torch.tensor(brute_force(queries, gallery, 7))
    for block in (1, 32, 1000):
        monkeypatch.setattr(module, "QUERIES_AT_ONCE", block)
        assert torch.equal(ranked(queries, gallery, 7), exact)


def test_of_equals_the_lower_number_is_nearer():
    gallery = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    assert ranked(torch.tensor([[3.0, 0.0]]), gallery, 3).tolist() == [[1, 2, 3]]


def test_a_vector_of_zeros_is_as_far_from_all():
    assert ranked(torch.zeros(1, 2), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 2).tolist() == [[0, 1]]


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="1 of 2 embeddings are not finite"):
        ranked(torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]), torch.eye(2), 1)


def test_instances_and_categories():
    """Four objects on a circle; the third and fourth captions are swapped."""
    shapes = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [0.0, -1.0]])
    captions = shapes[[0, 1, 3, 2]]
    found = retrieval(captions, shapes, torch.tensor([5, 6, 7, 6]))
    # nearest to each caption: 0 1 3 / 1 0 3 / 3 2 1 / 2 3 1
    assert found.instance == (0.5, 1.0, 1.0)
    assert found.category == (0.5, 1.0, 1.0)
    assert retrieval(captions, shapes, torch.tensor([5, 6, 6, 6])).category == (1.0, 1.0, 1.0)


def test_the_ways_are_not_the_same():
    """A caption that is like all shapes is nearest to each of them."""
    shapes, captions = torch.eye(3), torch.tensor([[1.0, 1.0, 1.0], [0.1, 0.0, -1.0], [0.0, -1.0, 0.1]])
    found = both_ways(shapes, captions, torch.arange(3))
    assert found["3d to text"].instance[0] == 1 / 3
    assert found["text to 3d"].instance[0] == 2 / 3
