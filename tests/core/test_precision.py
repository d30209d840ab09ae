"""Rounding far from the origin is measured in pixels."""

from __future__ import annotations

import numpy as np
import pytest

from xray_addon import Camera, Surface
from xray_addon.dataset.precision import check_step, pixel_size, precision
from xray_addon.errors import XRayError, error_code


def square(size: float) -> Surface:
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]) - (0.5, 0.5, 0)
    return Surface(size * corners, np.array([[0, 1, 2], [0, 2, 3]]))


def test_a_pixel_is_as_wide_as_what_it_shows():
    near, far = (Camera.look_at((0, 0, z), fov_x=np.pi / 2, width=100) for z in (5, 10))
    assert pixel_size([near], square(1)) == pytest.approx(0.1)
    assert pixel_size([far, near], square(1)) == pytest.approx(0.1)


def test_more_than_a_pixel_is_refused_and_not_tried_again():
    check_step(0.1, 0.1)
    with pytest.raises(XRayError, match=r"rounded to 0\.5, which is 5 pixels") as caught:
        check_step(0.5, 0.1)
    assert error_code(caught.value.code).rejects
    assert precision(0.5, 0.1) in caught.value.message
