import dataclasses

import numpy as np
import pytest
import torch

from trainer.card import PointInput
from trainer.clouds import NONE, OPENSHAPE, UNI3D, Augment, about, augmented, prepared

RAW = PointInput(normalisation="none")


@pytest.fixture
def clouds(rng):
    """Three clouds of 500 points away from the origin, their colours, and that the second has none."""
    xyz = torch.from_numpy(rng.normal((0.3, -0.2, 0.1), (0.5, 0.2, 0.3), (3, 500, 3)).astype(np.float16))
    rgb = torch.from_numpy(rng.integers(0, 256, (3, 500, 3), dtype=np.uint8))
    return xyz, rgb, torch.tensor([True, False, True])


def seeds(*numbers):
    return torch.tensor(numbers)


# ---------------------------------------------------------------------------------------------------------------- as declared


def test_the_canonical_frame_stays_as_it_is(clouds):
    xyz, _ = prepared(*clouds, RAW)
    assert xyz.dtype == torch.float32
    torch.testing.assert_close(xyz, clouds[0].float(), rtol=0, atol=0)


def test_yz_swapped_is_a_mirror_that_exchanges_y_and_z(clouds):
    xyz, _ = prepared(*clouds, dataclasses.replace(RAW, frame="yz-swapped"))
    torch.testing.assert_close(xyz, clouds[0].float()[..., [0, 2, 1]], rtol=0, atol=0)
    axes = prepared(torch.eye(3)[None], None, None, dataclasses.replace(RAW, frame="yz-swapped"))[0][0]
    assert torch.linalg.det(axes) == -1  # no rotation does this


@pytest.mark.parametrize("frame", ["canonical", "yz-swapped"])
@pytest.mark.parametrize("way", ["mean", "box"])
def test_normalised_clouds_are_centred_and_reach_to_one(clouds, way, frame):
    xyz, _ = prepared(*clouds, PointInput(normalisation=way, frame=frame))
    middle = xyz.mean(dim=1) if way == "mean" else (xyz.amin(dim=1) + xyz.amax(dim=1)) / 2
    torch.testing.assert_close(middle, torch.zeros(3, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(xyz.norm(dim=-1).amax(dim=1), torch.ones(3), rtol=0, atol=1e-6)
    other = prepared(*clouds, PointInput(normalisation="box" if way == "mean" else "mean", frame=frame))[0]
    assert (xyz - other).abs().max() > 0.02


@pytest.mark.parametrize("way", ["mean", "box"])
def test_a_cloud_in_one_point_becomes_zeros_and_its_neighbours_in_the_batch_do_not(clouds, way):
    xyz, rgb, has_color = clouds
    xyz[1] = xyz[1, 0]
    made, _ = prepared(xyz, rgb, has_color, PointInput(normalisation=way))
    assert (made[1] == 0).all()
    torch.testing.assert_close(made[[0, 2]].norm(dim=-1).amax(dim=1), torch.ones(2))


def test_a_tiny_cloud_is_a_cloud_if_it_is_not_tinier_than_openshapes_guard():
    ball = torch.tensor([[[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]])
    assert prepared(ball * 1e-5, None, None, PointInput())[0].norm(dim=-1).amax() == pytest.approx(1)
    assert prepared(ball * 1e-7, None, None, PointInput())[0].abs().amax() == 0


def test_colours_are_shares_of_255_and_the_fill_where_there_are_none(clouds):
    _, rgb = prepared(*clouds, PointInput())
    torch.testing.assert_close(rgb[[0, 2]], clouds[1][[0, 2]] / 255, rtol=0, atol=0)
    assert (rgb[1] == torch.tensor(0.4)).all()
    assert (prepared(*clouds, PointInput(fill=100 / 255))[1][1] == torch.tensor(100 / 255)).all()
    assert (prepared(clouds[0], None, None, PointInput())[1] == torch.tensor(0.4)).all()
    torch.testing.assert_close(prepared(clouds[0], clouds[1], None, PointInput())[1], clouds[1] / 255, rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------------------------- augmented


def one_by_one(clouds, seeds, augment):
    xyz, rgb = prepared(*clouds, PointInput())
    parts = [augmented(xyz[i : i + 1], rgb[i : i + 1], seeds[i : i + 1], augment) for i in range(len(xyz))]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


@pytest.mark.parametrize("augment", [OPENSHAPE, UNI3D])
def test_a_cloud_is_augmented_by_its_seed_alone(clouds, augment):
    own = seeds(4, 5, 6)
    whole = augmented(*prepared(*clouds, PointInput()), own, augment)
    for together, alone in zip(whole, one_by_one(clouds, own, augment), strict=True):
        torch.testing.assert_close(together, alone, rtol=0, atol=0)
    other = augmented(*prepared(*clouds, PointInput()), seeds(7, 8, 9), augment)
    assert all((one[i] - two[i]).abs().max() > 0.01 for i in range(3) for one, two in [(whole[0], other[0])])


def test_without_augmentation_nothing_changes(clouds):
    before = prepared(*clouds, PointInput())
    for one, two in zip(augmented(*before, seeds(1, 2, 3), NONE), before, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_shuffled_points_keep_their_colours(clouds):
    xyz, rgb = prepared(*clouds, PointInput())
    both = torch.cat(augmented(xyz, rgb, seeds(1, 2, 3), Augment(shuffle=True)), dim=-1)
    for before, after in zip(torch.cat([xyz, rgb], dim=-1), both, strict=True):
        assert not torch.equal(before, after)
        assert sorted(map(tuple, before.tolist())) == sorted(map(tuple, after.tolist()))


@pytest.mark.parametrize("shuffle", [False, True])
def test_dropped_points_become_the_first_point_with_its_colour(clouds, shuffle):
    xyz, rgb = (values[:1].expand(200, -1, -1) for values in prepared(*clouds, PointInput()))
    both = torch.cat(augmented(xyz, rgb, torch.arange(200), Augment(dropout=0.875, shuffle=shuffle)), dim=-1)
    original = set(map(tuple, torch.cat([xyz, rgb], dim=-1)[0].tolist()))
    assert set(map(tuple, both.flatten(0, 1).tolist())) <= original  # no point with another's colour
    dropped = (both == both[:, :1]).all(dim=-1).float().mean(dim=1)
    assert dropped.max() < 0.95 and dropped.min() < 0.05
    assert dropped.mean() == pytest.approx(0.4375, abs=0.06)
    firsts = (both[:, 0] == torch.cat([xyz, rgb], dim=-1)[:, 0]).all(dim=-1)
    assert firsts.float().mean() < 0.05 if shuffle else firsts.all()


def test_one_factor_and_one_shift_a_cloud_within_their_bounds(clouds):
    xyz, rgb = (values[:1].expand(400, -1, -1) for values in prepared(*clouds, PointInput()))
    made, _ = augmented(xyz, rgb, torch.arange(400), Augment(scale=(0.8, 1.25), shift=0.1))
    factor = made.sub(made.mean(dim=1, keepdim=True)).norm(dim=-1).amax(dim=1)  # of a cloud that is centred and reaches to 1
    assert 0.8 - 1e-5 <= factor.min() < 0.82 and 1.23 < factor.max() <= 1.25 + 1e-5
    assert factor.mean() == pytest.approx(1.025, abs=0.03)
    shift = made.mean(dim=1)
    assert shift.amin() < -0.098 and shift.amax() > 0.098 and shift.abs().amax() < 0.1 + 1e-5
    drawn = torch.cat([factor[None], shift.T])  # each coordinate its own
    assert (torch.corrcoef(drawn) - torch.eye(4)).abs().max() < 0.2
    torch.testing.assert_close(made, xyz * factor[:, None, None] + shift[:, None], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("axis", "kept"), [("y", 1), ("z", 2)])
def test_the_turn_keeps_its_axis_and_reaches_all_around(clouds, axis, kept):
    xyz, rgb = (values[:1].expand(400, -1, -1) for values in prepared(*clouds, PointInput()))
    made, _ = augmented(xyz, rgb, torch.arange(400), Augment(turn=axis))
    torch.testing.assert_close(made[..., kept], xyz[..., kept], rtol=0, atol=1e-6)
    a, b = [i for i in range(3) if i != kept]
    torch.testing.assert_close(made[..., [a, b]].norm(dim=-1), xyz[..., [a, b]].norm(dim=-1), rtol=0, atol=1e-5)
    angle = torch.atan2(made[:, 0, b], made[:, 0, a])
    assert torch.histc(angle, 8, -torch.pi, torch.pi).min() > 20
    orientation = torch.linalg.det(made[:, :3]) / torch.linalg.det(xyz[:, :3])
    torch.testing.assert_close(orientation, torch.ones(400), rtol=0, atol=1e-3)  # no mirror


def test_the_jitter_is_a_small_rotation_about_all_three_axes(clouds):
    xyz, rgb = (values[:1].expand(2000, -1, -1) for values in (torch.eye(3)[None], torch.eye(3)[None]))
    turned, _ = augmented(xyz, rgb, torch.arange(2000), Augment(jitter=(0.06, 0.18)))
    torch.testing.assert_close(turned @ turned.mT, xyz, rtol=0, atol=1e-5)
    assert (torch.linalg.det(turned) > 0).all()
    small = torch.stack([turned[:, 1, 2], turned[:, 0, 2], turned[:, 0, 1]])  # the angles, nearly
    assert small.abs().max() < 0.18 * 1.2
    torch.testing.assert_close(small.std(dim=1), torch.full((3,), 0.06), rtol=0.1, atol=0)
    clipped, _ = augmented(xyz, rgb, torch.arange(2000), Augment(jitter=(10.0, 0.18)))
    angle = ((clipped.diagonal(dim1=1, dim2=2).sum(dim=1) - 1) / 2).arccos()
    assert 0.25 < angle.max() < 0.18 * 3**0.5 + 0.02


def test_rotations_are_right_handed():
    quarter = torch.tensor([torch.pi / 2])
    for axis, start, end in (("x", 1, 2), ("y", 2, 0), ("z", 0, 1)):
        torch.testing.assert_close(about(axis, quarter)[0] @ torch.eye(3)[start], torch.eye(3)[end], rtol=0, atol=1e-6)


def test_half_of_the_clouds_lose_their_colours_all_of_them_to_the_fill(clouds):
    xyz, rgb = (values[:1].expand(400, -1, -1) for values in prepared(*clouds, PointInput()))
    _, made = augmented(xyz, rgb, torch.arange(400), Augment(color_drop=0.5), fill=0.25)
    grey = (made == 0.25).all(dim=(1, 2))
    assert 160 < grey.sum() < 240
    torch.testing.assert_close(made[~grey], rgb[~grey], rtol=0, atol=0)


def test_openshape_turns_about_what_was_up_before_the_swap(clouds):
    up = clouds[0].float()[..., 1]
    swapped, rgb = prepared(*clouds, dataclasses.replace(RAW, frame="yz-swapped"))
    kept = dataclasses.replace(OPENSHAPE, shuffle=False, dropout=0.0, scale=(1.0, 1.0), shift=0.0, jitter=(0.0, 0.0))
    torch.testing.assert_close(augmented(swapped, rgb, seeds(1, 2, 3), kept)[0][..., 2], up, rtol=0, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("augment", [OPENSHAPE, UNI3D])
def test_a_gpu_makes_the_same_clouds(clouds, augment):
    wanted = PointInput(frame="yz-swapped")
    here = augmented(*prepared(*clouds, wanted), seeds(1, 2, 3), augment)
    there = augmented(*prepared(*(values.cuda() for values in clouds), wanted), seeds(1, 2, 3).cuda(), augment)
    for one, two in zip(here, there, strict=True):
        torch.testing.assert_close(one, two.cpu(), rtol=0, atol=1e-5)
