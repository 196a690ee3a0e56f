import numpy as np
import pytest

from pipeline.quality import measures, view_variance


def picture(side=20):
    return np.zeros((side, side, 4), np.uint8)


def test_nothing_seen_leaves_nothing_to_say_of_the_object():
    assert measures(picture()) == {
        "alpha_coverage": 0,
        "border_coverage": 0,
        "dark_share": None,
        "bright_share": None,
        "luminance": None,
        "color_spread": None,
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


def test_colour_spread_is_the_distance_of_the_objects_colours_from_their_mean():
    rgba = picture()
    rgba[5:15, 5:15] = (70, 80, 90, 255)
    rgba[0:4] = (255, 0, 0, 100)  # less than half covered: not the object
    assert measures(rgba)["color_spread"] == pytest.approx(0, abs=1e-12)
    rgba[5:15, 10:15, :3] += np.array([30, 0, 40], np.uint8)  # halves 50 apart
    assert measures(rgba)["color_spread"] == pytest.approx(25 / 255)


def test_views_that_are_one_picture_do_not_vary(rng):
    one = rng.integers(0, 256, (20, 20, 4), dtype=np.uint8)
    assert view_variance([one] * 12) < 1e-12


def test_views_vary_by_what_is_seen_and_not_by_how_much_of_the_picture_that_fills(rng):
    small, large = np.zeros((2, 2, 20, 20, 4), np.uint8)
    small[:, 8:12, 8:12] = rng.integers(0, 256, (2, 4, 4, 4))
    for row in range(5):
        for column in range(5):
            large[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = small[:, 8:12, 8:12]
    assert view_variance(small) == pytest.approx(view_variance(large)) and view_variance(small) > 0.01


def test_outlines_count_as_colours_do_and_colours_count_where_they_are_seen():
    black, shifted = picture(), picture()
    black[:, :10, 3] = shifted[:, 10:, 3] = 255
    assert view_variance([black, shifted]) == pytest.approx(0.25 / 4)  # alpha is 0 and 255 all over, colour is black
    behind_nothing = shifted.copy()
    behind_nothing[:, :10, :3] = 200
    assert view_variance([black, behind_nothing]) == view_variance([black, shifted])


def test_a_single_view_or_views_of_nothing_have_no_variance_to_tell(rng):
    assert view_variance([rng.integers(0, 256, (20, 20, 4), dtype=np.uint8)]) is None
    assert view_variance([picture()] * 12) is None
