import pytest
import torch
import torch.distributed as dist

from ranks import on_ranks
from trainer.losses.gathering import gathered, rank_and_ranks, unit

RANKS = 2


def _rows(rank: int) -> torch.Tensor:
    """Four rows of 3, given as every second column of 6, hence not contiguous."""
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(rank))[:, ::2]


def _weights(rank: int) -> torch.Tensor:
    return torch.randn(4 * RANKS, 3, generator=torch.Generator().manual_seed(100 + rank))


def _gather_all() -> dict:
    rank = dist.get_rank()
    rows = _rows(rank).requires_grad_()
    everyone = gathered(rows)
    (everyone * _weights(rank)).sum().backward()
    return {
        "rank_and_ranks": list(rank_and_ranks()),
        "rows": everyone.detach(),
        "gradient": rows.grad,
        "published": gathered(rows, "published uni3d").requires_grad,
        "bools": gathered(_rows(rank)[:, 0] > 0),
        "halves": gathered(_rows(rank).half()),
        "blocks": gathered(_rows(rank)[:, None]).detach(),
    }


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory):
    return on_ranks(RANKS, tmp_path_factory.mktemp("group"), _gather_all)


def test_every_rank_gets_the_rows_of_all_in_rank_order(of_ranks):
    expected = torch.cat([_rows(rank) for rank in range(RANKS)])
    for rank, result in enumerate(of_ranks):
        assert result["rank_and_ranks"] == [rank, RANKS]
        assert torch.equal(result["rows"], expected)
        assert torch.equal(result["bools"], expected[:, 0] > 0)
        assert torch.equal(result["halves"], expected.half())
        assert torch.equal(result["blocks"], expected[:, None])


def test_a_row_gets_the_gradients_that_all_ranks_ask_of_it(of_ranks):
    expected = sum(_weights(rank) for rank in range(RANKS)).chunk(RANKS)
    for rank, result in enumerate(of_ranks):
        torch.testing.assert_close(result["gradient"], expected[rank])


def test_uni3ds_way_has_no_gradient(of_ranks):
    assert not any(result["published"] for result in of_ranks)


@pytest.mark.parametrize("way", ["with gradient", "published uni3d"])
def test_without_a_group_the_rows_are_the_own_ones(way):
    rows = _rows(0).requires_grad_()
    assert gathered(rows, way) is rows
    assert rank_and_ranks() == (0, 1)


def test_unit_rows_are_in_float32_at_least():
    rows = 1000 * _rows(0)
    for dtype, wanted in ((torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        made = unit(rows.to(dtype))
        assert made.dtype == wanted
        torch.testing.assert_close(made.norm(dim=1), torch.ones(4, dtype=wanted))


def test_a_row_of_zeros_stays_so_and_has_a_finite_gradient():
    rows = torch.zeros(2, 3, requires_grad=True)
    made = unit(rows)
    made.sum().backward()
    assert not made.any() and rows.grad.isfinite().all()
