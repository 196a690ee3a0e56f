import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from pipeline.points import farthest_first
from trainer import neighbours
from trainer.neighbours import ball, farthest_points, gathered, nearest


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def clouds(generator):
    """Five clouds of 700 points in the unit ball."""
    xyz = torch.randn(5, 700, 3, generator=generator)
    return xyz / xyz.norm(dim=-1, keepdim=True) * torch.rand(5, 700, 1, generator=generator) ** (1 / 3)


@pytest.fixture
def lattice(generator):
    """Five clouds of 400 points on a grid of halves, exact in every float: full of points in one place and of equal distances."""
    return torch.randint(-3, 4, (5, 400, 3), generator=generator) / 2


def squared(xyz, center):
    """By definition, in float64."""
    return ((xyz.numpy().astype(np.float64) - center.numpy().astype(np.float64)) ** 2).sum(axis=-1)


# ------------------------------------------------------------------------------------------------------- farthest points


@pytest.mark.parametrize("start", [None, [0, 699, 3, 41, 350]])
def test_farthest_points_are_those_of_the_definition(clouds, start):
    order = farthest_points(clouds, 60, start=None if start is None else torch.tensor(start))
    assert order.dtype == torch.int64
    for cloud, taken, first in zip(clouds, order.tolist(), start or [0] * 5, strict=True):
        assert taken[0] == first
        to_taken = squared(cloud, cloud[first])
        for one in taken[1:]:
            assert to_taken[one] == pytest.approx(to_taken.max(), rel=1e-6)
            to_taken = np.minimum(to_taken, squared(cloud, cloud[one]))
        assert len(set(taken)) == 60


@pytest.mark.parametrize("kind", ["clouds", "lattice"])
def test_farthest_points_are_those_that_the_points_were_stored_by(kind, request):
    """Also among equals, of which the first counts."""
    xyz = request.getfixturevalue(kind)
    order = farthest_points(xyz, 200)
    for cloud, ours in zip(xyz, order, strict=True):
        np.testing.assert_array_equal(ours, farthest_first(cloud.numpy(), 200))


@pytest.mark.parametrize("kind", ["clouds", "lattice"])
def test_of_stored_points_the_first_are_the_farthest(kind, request):
    xyz = request.getfixturevalue(kind).half()
    first = torch.stack([torch.from_numpy(farthest_first(cloud.numpy(), 128)) for cloud in xyz])
    rest = torch.stack([torch.from_numpy(np.setdiff1d(np.arange(xyz.shape[1]), one)) for one in first])
    stored = gathered(xyz, torch.cat([first, rest], dim=1))
    assert torch.equal(farthest_points(stored, 128), torch.arange(128).expand(5, -1))
    assert torch.equal(farthest_points(stored, 100), torch.arange(100).expand(5, -1))


@pytest.mark.parametrize("at_once", [1, 5 * 700 * 7, 10**7])
@pytest.mark.parametrize("skip_origin", [False, True])
@pytest.mark.parametrize("kind", ["clouds", "lattice"])
def test_points_that_come_farthest_first_need_no_loop(kind, skip_origin, at_once, request, monkeypatch):
    """Clouds in order among others: where the order is checked the answer is the same, and the loop is only run for the others."""
    xyz = request.getfixturevalue(kind).clone()
    stored = gathered(xyz, farthest_points(xyz, xyz.shape[1], skip_origin=skip_origin))
    for place, moved in ((0, 1), (1, 2), (3, 63), (4, 64)):  # cloud 2, and 4 up to its 64th point, stay in order
        stored[place, moved] = xyz[place].mean(dim=0) + 0.1
    plain = {count: farthest_points(stored, count, skip_origin=skip_origin) for count in (1, 2, 64, 100)}
    assert [bool((order == torch.arange(64)).all()) for order in plain[64]] == [False, False, True, False, True]

    looped = []
    loop = neighbours._farthest
    monkeypatch.setattr(neighbours, "_farthest", lambda axes, *rest: looped.append(axes.shape[1]) or loop(axes, *rest))
    monkeypatch.setattr(neighbours, "ORDER_IS_CHECKED_ON", ("cpu",))
    monkeypatch.setattr(neighbours, "DISTANCES_ON_CPU", at_once)
    for count, expected in plain.items():
        assert torch.equal(farthest_points(stored, count, skip_origin=skip_origin), expected)
    assert looped == [1, 3, 4]  # of 1 point none, of 2 points the first cloud, of 64 three, of 100 four
    assert torch.equal(
        farthest_points(stored, 50, start=torch.arange(5), skip_origin=skip_origin),
        torch.cat([loop_alone(stored[i], 50, i, skip_origin) for i in range(5)]),
    )


def loop_alone(cloud, count, start, skip_origin):
    return farthest_points(cloud[None], count, start=torch.tensor([start]), skip_origin=skip_origin)


def test_all_points_are_taken_once_where_as_many_are_wanted(clouds):
    assert torch.equal(farthest_points(clouds, 700).sort(dim=1).values, torch.arange(700).expand(5, -1))


def test_points_near_the_origin_are_passed_over_as_if_they_were_not_there(clouds):
    clouds[:, 50:90] *= 0.01  # well inside a ball of radius sqrt(0.001)
    far = clouds.square().sum(dim=-1) > 1e-3
    taken = farthest_points(clouds, 80, skip_origin=True)
    for cloud, kept, ours in zip(clouds, far, taken, strict=True):
        assert kept[0]
        alone = farthest_points(cloud[kept][None], 80)[0]
        assert torch.equal(ours, kept.nonzero().flatten()[alone])
    everywhere = farthest_points(clouds, 600)
    assert (~far.gather(1, everywhere)).any()  # which the plain rule does take


def test_the_start_is_taken_though_it_lies_at_the_origin(clouds):
    clouds[:, 0] = 0
    taken = farthest_points(clouds, 50, skip_origin=True)
    assert (taken[:, 0] == 0).all()
    assert torch.equal(taken, farthest_points(clouds, 50, skip_origin=True, start=torch.zeros(5, dtype=torch.int64)))


def test_where_all_points_are_near_the_origin_the_first_is_repeated(clouds):
    assert (farthest_points(clouds * 0.01, 20, skip_origin=True) == 0).all()
    start = torch.full((5,), 7)
    assert farthest_points(clouds * 0.01, 4, skip_origin=True, start=start).tolist() == [[7, 0, 0, 0]] * 5


def test_near_the_origin_means_a_squared_norm_of_a_thousandth_at_most():
    """The limit is a double: the float32 just above it, which is what 1e-3 rounds to, is outside."""
    limit = np.float32(1e-3)
    inside, outside = np.sqrt(np.nextafter(limit, np.float32(0))), np.sqrt(limit)
    while inside * inside >= limit:
        inside = np.nextafter(inside, np.float32(0))
    while outside * outside < limit:
        outside = np.nextafter(outside, np.float32(1))
    for x, expected in ((inside, 0), (outside, 1)):
        xyz = torch.tensor([[[1.0, 0, 0], [float(x), 0, 0]]])
        assert farthest_points(xyz, 2, skip_origin=True).tolist() == [[0, expected]]


def test_more_points_than_there_are_cannot_be_taken(clouds):
    with pytest.raises(ValueError, match="701 farthest points of clouds of 700 points"):
        farthest_points(clouds, 701)
    with pytest.raises(ValueError, match="701 neighbours in clouds of 700 points"):
        nearest(clouds, clouds[:, :2], 701)


# ------------------------------------------------------------------------------------------------------- neighbourhoods


@pytest.mark.parametrize("kind", ["clouds", "lattice"])
@pytest.mark.parametrize("count", [1, 9, 64])
def test_a_ball_is_filled_in_the_order_of_the_indices(kind, count, request):
    """On the lattice many points lie exactly at the radius: they belong to it."""
    xyz = request.getfixturevalue(kind)
    centers = gathered(xyz, farthest_points(xyz, 30))
    index = ball(xyz, centers, 0.5, count)
    short = 0
    for cloud, middles, groups in zip(xyz, centers, index.numpy(), strict=True):
        for middle, group in zip(middles, groups, strict=True):
            within = np.flatnonzero(squared(cloud, middle) <= 0.25)[:count]
            short += len(within) < count
            np.testing.assert_array_equal(group, np.concatenate([within, np.full(count - len(within), within[0])]))
    assert short > 0 or count < 64


def test_the_nearest_are_the_nearest_and_the_nearest_comes_first(clouds):
    centers = clouds[:, :40]
    index = nearest(clouds, centers, 16)
    for cloud, middles, ours in zip(clouds, centers, index.numpy(), strict=True):
        theirs = cKDTree(cloud.numpy()).query(middles.numpy(), 16)[1]
        np.testing.assert_array_equal(ours, theirs)


def test_the_nearest_of_equals_are_as_near(lattice):
    index = nearest(lattice, lattice[:, :40], 20)
    for cloud, middles, ours in zip(lattice, lattice[:, :40], index.numpy(), strict=True):
        for middle, group in zip(middles, ours, strict=True):
            distance = squared(cloud, middle)
            assert len(set(group)) == 20
            np.testing.assert_array_equal(np.sort(distance[group]), np.sort(distance)[:20])


def test_far_from_the_origin_small_distances_are_still_told_apart(generator):
    """|a|^2 + |b|^2 - 2ab, rounded to float32, is off by 1 here, and takes any point for any other."""
    xyz = 4096 + torch.randint(0, 64, (2, 300, 3), generator=generator) / 64
    index = nearest(xyz, xyz[:, :30], 8)
    first = farthest_points(xyz, 30)
    for cloud, groups, taken in zip(xyz, index.numpy(), first, strict=True):
        np.testing.assert_array_equal(taken, farthest_first(cloud.numpy() - 4096, 30))
        for middle, group in zip(cloud[:30], groups, strict=True):
            distance = squared(cloud, middle)
            np.testing.assert_array_equal(distance[group], np.sort(distance)[:8])


@pytest.mark.parametrize("at_once", [1, 701, 5000, 10**7])
def test_however_many_are_done_at_once(clouds, monkeypatch, at_once):
    centers = clouds[:, :33]
    groups, near, first = ball(clouds, centers, 0.4, 12), nearest(clouds, centers, 12), farthest_points(clouds, 40)
    monkeypatch.setattr(neighbours, "DISTANCES_ON_CPU", at_once)
    assert torch.equal(ball(clouds, centers, 0.4, 12), groups)
    assert torch.equal(nearest(clouds, centers, 12), near)
    assert torch.equal(farthest_points(clouds, 40), first)
    for one in range(5):
        alone = slice(one, one + 1)
        assert torch.equal(ball(clouds[alone], centers[alone], 0.4, 12), groups[alone])
        assert torch.equal(nearest(clouds[alone], centers[alone], 12), near[alone])
        assert torch.equal(farthest_points(clouds[alone], 40), first[alone])


def test_centers_need_not_be_points(clouds):
    centers = torch.tensor([[5.0, 0, 0], [0, 0, 0]]).expand(5, -1, -1)
    index = ball(clouds, centers, 0.3, 4)
    assert (index[:, 0] == 0).all()  # nothing is there
    assert (gathered(clouds, index[:, 1]).norm(dim=-1) <= 0.3).all()


def test_half_precision_is_read_exactly(clouds):
    half = clouds.half()
    assert torch.equal(farthest_points(half, 30), farthest_points(half.float(), 30))
    assert torch.equal(ball(half, half[:, :9], 0.3, 5), ball(half.float(), half[:, :9].float(), 0.3, 5))
    assert torch.equal(nearest(half, half[:, :9], 5), nearest(half.float(), half[:, :9].float(), 5))


def test_autocast_changes_nothing(clouds):
    plain = farthest_points(clouds, 30), ball(clouds, clouds[:, :9], 0.3, 5), nearest(clouds, clouds[:, :9], 5)
    with torch.autocast("cpu", torch.bfloat16):
        cast = farthest_points(clouds, 30), ball(clouds, clouds[:, :9], 0.3, 5), nearest(clouds, clouds[:, :9], 5)
    assert all(map(torch.equal, plain, cast))


@pytest.mark.parametrize("shape", [(5, 9), (5, 3, 4)])
def test_gathered_takes_the_rows_of_each_cloud_and_hands_their_gradient_back(clouds, generator, shape):
    index = torch.randint(0, 700, shape, generator=generator)
    clouds.requires_grad_()
    rows = gathered(clouds, index)
    assert rows.shape == (*index.shape, 3)
    for cloud, some, ours in zip(clouds, index, rows, strict=True):
        assert torch.equal(ours, cloud[some])
    rows.sum().backward()
    counts = torch.stack([torch.bincount(some.flatten(), minlength=700) for some in index])
    assert torch.equal(clouds.grad, counts[..., None].expand(-1, -1, 3).float())


def test_no_gradient_is_asked_of_indices(clouds):
    clouds.requires_grad_()
    for index in (farthest_points(clouds, 9), ball(clouds, clouds[:, :3], 0.3, 4), nearest(clouds, clouds[:, :3], 4)):
        assert not index.requires_grad


@pytest.mark.gpu
def test_a_gpu_takes_the_same_points(lattice):
    """On the lattice every distance is exact, so that equals are equal on both."""
    there = lattice.cuda()
    assert torch.equal(farthest_points(there, 100).cpu(), farthest_points(lattice, 100))
    assert torch.equal(ball(there, there[:, :30], 0.5, 20).cpu(), ball(lattice, lattice[:, :30], 0.5, 20))
