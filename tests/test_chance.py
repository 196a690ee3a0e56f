import itertools

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from trainer.chance import Stream, normal, permutation, uniform

SEEDS = torch.tensor([0, 1, 2, -1, 2**62, -(2**63), 123_456_789_012])
LEAST_P = 1e-4  # the draws are the same in every run: a test that passes once passes always


@pytest.mark.parametrize("draw", [uniform, normal, permutation])
def test_a_sample_draws_the_same_in_any_batch(draw):
    whole = draw(SEEDS, 3, 50)
    for parts in ([1] * 7, [4, 3], [2, 5]):
        torch.testing.assert_close(torch.cat([draw(part, 3, 50) for part in SEEDS.split(parts)]), whole, rtol=0, atol=0)
    torch.testing.assert_close(draw(SEEDS.flip(0), 3, 50), whole.flip(0), rtol=0, atol=0)


@pytest.mark.parametrize("draw", [uniform, normal])
def test_the_first_numbers_do_not_depend_on_how_many_are_drawn(draw):
    torch.testing.assert_close(draw(SEEDS, 3, 7), draw(SEEDS, 3, 1000)[:, :7], rtol=0, atol=0)


def test_the_hash_is_splitmix64():
    """The published generator, counted in Python's integers, which do not wrap around."""

    def mixed(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    step = 0x9E3779B97F4A7C15
    for seed, stream in ((0, 0), (5, 3), (-7, 11), (2**63 - 1, 1)):
        key = mixed(mixed((seed + step) % 2**64) + stream * step & (2**64 - 1))
        expected = [(mixed((key + n * step) % 2**64) >> 40) * 2.0**-24 for n in range(1, 9)]
        assert uniform(torch.tensor([seed]), stream, 8)[0].tolist() == expected


@pytest.mark.parametrize(("draw", "law"), [(uniform, "uniform"), (normal, "norm")])
def test_numbers_are_spread_as_their_law_says(draw, law):
    along = draw(torch.tensor([7]), 5, 200_000)[0].double().numpy()
    across = draw(torch.arange(200_000), 5, 1)[:, 0].double().numpy()
    for numbers in (along, across):
        assert kstest(numbers, law).pvalue > LEAST_P
    assert uniform(SEEDS, 5, 10_000).min() >= 0
    assert uniform(SEEDS, 5, 100_000).max() < 1


def test_neighbouring_seeds_streams_and_positions_are_independent():
    count = 100_000
    of = {
        (seed, stream): uniform(torch.tensor([seed]), stream, count)[0].double().numpy()
        for seed in (0, 1, 2)
        for stream in (1, 2, 3)
    }
    for one, other in itertools.combinations(of, 2):
        assert abs(np.corrcoef(of[one], of[other])[0, 1]) < 4 / count**0.5, (one, other)
        assert np.mean(of[one] == of[other]) < 1e-4
    numbers = of[0, 1]
    for lag in (1, 2, 3, 7):
        assert abs(np.corrcoef(numbers[:-lag], numbers[lag:])[0, 1]) < 4 / count**0.5


def test_a_permutation_has_each_number_once_and_no_favourite_place():
    orders = permutation(torch.arange(4000), 1, 12)
    assert (orders.sort(dim=1).values == torch.arange(12)).all()
    places = torch.stack([(orders == number).float().mean(dim=0) for number in range(12)])
    assert (places - 1 / 12).abs().max() < 5 * (1 / 12 / 4000) ** 0.5


def test_what_is_drawn_for_has_a_number_of_its_own():
    assert len({int(stream) for stream in Stream}) == len(Stream.__members__)


@pytest.mark.gpu
def test_a_gpu_draws_the_same():
    for draw in (uniform, permutation):
        assert torch.equal(draw(SEEDS.cuda(), 3, 1000).cpu(), draw(SEEDS, 3, 1000))
    torch.testing.assert_close(normal(SEEDS.cuda(), 3, 1000).cpu(), normal(SEEDS, 3, 1000), rtol=0, atol=1e-5)
