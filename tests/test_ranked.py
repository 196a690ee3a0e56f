"""Lists of the nearest are found roughly and settled exactly: what float32 cannot tell apart, and what it would leave out."""

import pytest
import torch

from evaluate import retrieval as module
from evaluate.retrieval import cosines, ranked, ranked_both_ways

DIM = 257


def hard_to_tell(chance):
    """Queries, each with a crowd of items around its nearest: exact copies and steps of 1e-8, among others that are far."""
    queries = torch.randn(40, DIM, generator=chance, dtype=torch.float64)
    crowd = queries[:, None] + 0.05 * torch.randn(40, 1, DIM, generator=chance)
    crowd = (crowd + 3e-7 * torch.randn(40, 12, DIM, generator=chance)).reshape(-1, DIM)
    gallery = torch.cat([crowd, crowd[::3], torch.randn(3000, DIM, generator=chance, dtype=torch.float64)])
    return queries, gallery[torch.randperm(len(gallery), generator=chance)]


def by_definition(queries, gallery, count):
    return cosines(queries, gallery).sort(dim=1, descending=True, stable=True).indices[:, :count]


@pytest.fixture
def chance():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("share", [1.0, 0.0, module.SHARE_BY_PAIR])
def test_pair_by_pair_or_all_at_once_the_lists_are_the_same(chance, monkeypatch, share):
    queries, gallery = hard_to_tell(chance)
    monkeypatch.setattr(module, "SHARE_BY_PAIR", share)
    assert torch.equal(ranked(queries, gallery, 5), by_definition(queries, gallery, 5))


def test_float32_alone_would_have_found_others(chance):
    """Or the tests here would show nothing."""
    queries, gallery = hard_to_tell(chance)
    rough = torch.nn.functional.normalize(queries).float() @ torch.nn.functional.normalize(gallery).float().T
    assert not torch.equal(rough.sort(dim=1, descending=True, stable=True).indices[:, :5], by_definition(queries, gallery, 5))


def test_a_product_in_float32_is_never_further_off_than_is_allowed_for(chance):
    """Vectors of one sign and of equal numbers, whose rounding errors add up, among them."""
    worst = 0.0
    for make in (torch.randn, torch.rand, torch.ones):
        options = {} if make is torch.ones else {"generator": chance}
        vectors = module._unit(make(64, 5000, **options) + 1e-3 * torch.rand(64, 5000, generator=chance))
        worst = max(worst, float((vectors.float() @ vectors.float().T - vectors @ vectors.T).abs().max()))
    assert 0 < worst <= module.off(5000)


def test_where_float32_is_not_float32_it_is_not_used(chance):
    queries, gallery = hard_to_tell(chance)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(ranked(queries, gallery, 5), by_definition(queries, gallery, 5))
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("block", [1, 64, 512, 10_000])
@pytest.mark.parametrize("kept", [0, module.MOST_KEPT, 10_000])
def test_both_ways_at_once_are_the_two_ways(chance, monkeypatch, block, kept):
    queries, gallery = hard_to_tell(chance)
    gallery = gallery[:: 1 if block > 1 else 10]
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", block)
    monkeypatch.setattr(module, "MOST_KEPT", kept)
    for one, other in ((queries, gallery), (gallery, queries), (queries[:3], gallery)):
        there, back = ranked_both_ways(one, other, 5)
        assert torch.equal(there, by_definition(one, other, 5))
        assert torch.equal(back, by_definition(other, one, 5))
