"""Layers at a finer size."""

from __future__ import annotations

import torch

from runtime.xray.enlarging import enlarge_frames


def test_enlarged_frames_say_where_they_have_values():
    frames = torch.zeros(1, 2, 8, 8, 8)
    frames[:, :, 7] = -5
    frames[:, 0, 7, 2:6, 2:6] = 5
    frames[:, 0, 0] = -0.25
    fine, known = enlarge_frames(frames, 32)
    assert fine.shape == (1, 2, 8, 32, 32)
    torch.testing.assert_close(fine[0, 0, 0, 8:24, 8:24], torch.full((16, 16), -0.25))
    assert known[0, 0].all()  # within the reach of the values' spreading
    assert not known[0, 1].any()
    assert ((fine[0, 0, 7] > 0).float().mean() - 0.25).abs() < 0.03
