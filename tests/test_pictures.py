import dataclasses

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

from trainer.card import ViewInput
from trainer.pictures import crop_offset, pixels, squared

SMALL = ViewInput(size=40, crop=8)


@pytest.fixture
def pictures(rng):
    return torch.from_numpy(rng.integers(0, 256, (2, 3, 3, 40, 40), dtype=np.uint8))


def as_open_clip(picture: Image.Image, wanted: ViewInput) -> torch.Tensor:
    return image_transform_v2(PreprocessCfg(size=wanted.size, mean=wanted.mean, std=wanted.std), is_train=False)(picture)


def test_without_a_crop_pixels_are_what_open_clip_makes_of_a_picture_of_that_size(pictures):
    made = pixels(pictures, dataclasses.replace(SMALL, crop=0))
    assert made.shape == pictures.shape and made.dtype == torch.float32
    prepare = Compose([ToTensor(), Normalize(SMALL.mean, SMALL.std)])
    for one, picture in zip(made.flatten(0, 1), pictures.flatten(0, 1), strict=True):
        torch.testing.assert_close(one, prepare(Image.fromarray(picture.permute(1, 2, 0).numpy())), rtol=0, atol=0)


def test_each_field_of_the_card_changes_the_pixels(pictures):
    whole = pixels(pictures, SMALL)
    for changed in ({"crop": 0}, {"crop": 10}, {"mean": (0.0, 0.0, 0.0)}, {"std": (1.0, 1.0, 1.0)}):
        assert (pixels(pictures, dataclasses.replace(SMALL, **changed)) - whole).abs().max() > 0.1, changed
    plain = ViewInput(size=40, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    torch.testing.assert_close(pixels(pictures, plain), pictures / 255, rtol=0, atol=0)


def test_the_crop_is_where_it_was_asked_for_and_in_the_middle_otherwise(pictures):
    assert torch.equal(pixels(pictures, SMALL), pixels(pictures, SMALL, (4, 4)))
    plain = dataclasses.replace(SMALL, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    for top, left in ((0, 0), (0, 8), (8, 3)):
        marked = torch.zeros_like(pictures)
        marked[..., top : top + 32, left : left + 32] = 255
        assert (pixels(marked, plain, (top, left)) == 1).all()
        assert not all(
            (pixels(marked, plain, (top + y, left + x)) == 1).all()
            for y in (0, 1, -1)
            for x in (0, 1, -1)
            if _fits(top + y, left + x)
        )


def _fits(top: int, left: int) -> bool:
    return 0 <= top <= SMALL.crop and 0 <= left <= SMALL.crop


def test_pictures_are_treated_one_by_one(pictures):
    whole = pixels(pictures, SMALL, (1, 5))
    parts = torch.stack([torch.cat([pixels(one[None, None], SMALL, (1, 5))[0] for one in views]) for views in pictures])
    torch.testing.assert_close(whole, parts, rtol=0, atol=0)
    assert pictures.dtype == torch.uint8 and (pixels(pictures, SMALL, (1, 5)) == whole).all()  # they are left as they were


@pytest.mark.parametrize("offset", [(9, 0), (0, 9), (-1, 0), (0, -1)])
def test_a_crop_beyond_the_picture_is_refused(pictures, offset):
    with pytest.raises(ValueError, match=r"a crop at .* does not fit: with 8 pixels cut off, 0..8 is possible"):
        pixels(pictures, SMALL, offset)


def test_pictures_of_another_size_are_refused(pictures):
    with pytest.raises(ValueError, match="pictures of 39 x 39 pixels, but the encoder wants 40 x 40"):
        pixels(pictures[..., :39, :39], SMALL)


def test_drawn_corners_cover_all_that_fit_and_depend_on_the_seed_alone():
    drawn = [crop_offset(torch.tensor([seed]), SMALL) for seed in range(3000)]
    assert drawn == [crop_offset(torch.tensor([seed]), SMALL) for seed in range(3000)]
    counts = np.zeros((9, 9), int)
    np.add.at(counts, tuple(np.array(drawn).T), 1)
    assert counts.shape == (9, 9) and counts.min() > 10
    assert crop_offset(torch.tensor([1]), dataclasses.replace(SMALL, crop=0)) == (0, 0)


@pytest.mark.parametrize("shape", [(40, 40), (100, 60), (60, 100), (20, 30), (41, 97)])
def test_other_sizes_are_brought_to_size_as_open_clip_does(rng, shape):
    picture = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    wanted = ViewInput(size=40)
    made = pixels(squared(picture, wanted)[None, None], wanted)[0, 0]
    torch.testing.assert_close(made, as_open_clip(picture, wanted), rtol=0, atol=0)


def test_what_is_transparent_shows_the_background(rng):
    rgba = rng.integers(0, 256, (40, 40, 4), dtype=np.uint8)
    rgba[:20, :, 3], rgba[20:30, :, 3] = 0, 255
    for background in ((255, 255, 255), (10, 200, 30)):
        made = squared(Image.fromarray(rgba), dataclasses.replace(SMALL, background=background)).permute(1, 2, 0).numpy()
        assert (made[:20] == background).all()
        np.testing.assert_array_equal(made[20:30], rgba[20:30, :, :3])
        alpha = rgba[30:, :, 3:] / 255
        np.testing.assert_allclose(made[30:], alpha * rgba[30:, :, :3] + (1 - alpha) * background, atol=1)


def test_grey_palette_and_sixteen_bit_pictures_are_pictures(rng):
    grey = rng.integers(0, 256, (40, 40), dtype=np.uint8)
    expected = torch.from_numpy(grey).expand(3, 40, 40)
    for picture in (
        Image.fromarray(grey),
        Image.fromarray(grey).convert("P"),
        Image.fromarray(grey.astype(np.uint16) * 257),
        Image.fromarray(grey.astype(np.int32) * 257),
        Image.merge("LA", [Image.fromarray(grey), Image.new("L", (40, 40), 255)]),
    ):
        assert torch.equal(squared(picture, SMALL), expected), picture.mode
