import numpy as np
import pytest

from pipeline.quality import measures


def picture(side=20):
    return np.zeros((side, side, 4), np.uint8)


def test_nothing_seen_leaves_nothing_to_say_of_the_object():
    assert measures(picture()) == {
        "alpha_coverage": 0,
        "border_coverage": 0,
        "dark_share": None,
        "bright_share": None,
        "luminance": None,
    }


def test_coverage_is_mean_alpha():
    rgba = picture()
    rgba[5:15, 5:15] = 255
    rgba[0, 0, 3] = 51
    assert measures(rgba)["alpha_coverage"] == pytest.approx((100 + 0.2) / 400)


def test_border_counts_each_outermost_pixel_once():
    rgba = picture()
    rgba[3:17, 3:17] = 255
    assert measures(rgba)["border_coverage"] == 0
    rgba[0, :, 3] = 255
    assert measures(rgba)["border_coverage"] == pytest.approx(20 / 76)


def test_dark_and_bright_are_shares_of_the_objects_own_pixels():
    rgba = picture()
    rgba[4:8, 4:8] = (0, 0, 0, 255)
    rgba[8:12, 4:8] = (255, 255, 255, 255)
    rgba[12:16, 4:12] = (128, 128, 128, 255)
    rgba[0:4] = (255, 255, 255, 100)  # less than half covered: not the object
    found = measures(rgba)
    assert (found["dark_share"], found["bright_share"]) == (0.25, 0.25)
    assert found["luminance"] == pytest.approx((0 + 1 + 2 * 128 / 255) / 4)


def test_luminance_weighs_green_most():
    red, green, blue = (measures(np.full((2, 2, 4), [*color, 255], np.uint8))["luminance"] for color in np.eye(3, dtype=int) * 255)
    assert green > red > blue and red + green + blue == pytest.approx(1)
