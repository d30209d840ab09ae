"""The volume renderer of RenderDiffusion against scenes whose pictures can be written down."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from runtime.renderdiffusion.networks import RenderDiffusion, RenderDiffusionConfig
from runtime.renderdiffusion.occupancy import Occupancy
from runtime.renderdiffusion.renderer import (
    importance_edges,
    render_rays,
    weights_of,
)
from runtime.renderdiffusion.triplane import AXES, plane_features
from runtime.torch_helpers.memory import Chunks
from runtime.torch_helpers.rays import box_span, camera_rays
from xray_addon import Camera, XRayError

BOX = 0.5
RED, BLUE, WHITE = (torch.eye(3)[0], torch.eye(3)[2], torch.ones(3))
SMALL = {"image_size": 16, "channels": (32, 32), "blocks": (1, 1), "plane_channels": 4, "hidden": 8}


def camera(azimuth=0.3, elevation=0.4, size=12, distance=2.0):
    eye = np.array(
        [
            math.cos(elevation) * math.sin(azimuth),
            -math.cos(elevation) * math.cos(azimuth),
            math.sin(elevation),
        ]
    )
    return Camera.look_at(distance * eye, fov_x=math.radians(40), width=size, height=size)


def constant(density, color=RED):
    """A field of one density and colour."""

    def field(points):
        return points.new_full(points.shape[:2], density), color.expand(points.shape)

    return field


def ball(density, radius):
    def field(points):
        inside = points.norm(dim=-1) < radius
        return density * inside, RED.expand(points.shape)

    return field


def blob_model(seed=0):
    """A model whose field is one blob, with nothing in most of the box, and its planes."""
    torch.manual_seed(seed)
    model = RenderDiffusion(RenderDiffusionConfig(**SMALL)).eval().requires_grad_(False)
    axis = torch.linspace(-1, 1, 16)
    bump = torch.exp(-8 * (axis[:, None] ** 2 + axis**2))
    planes = 0.1 * torch.randn(1, 3, 4, 16, 16)
    planes[:, :, 0] = bump
    model.decoder.first.weight[0] = torch.tensor([1.0, 0, 0, 0])
    model.decoder.first.bias[0] = -1.2
    model.decoder.second.weight[0] = functional.one_hot(torch.tensor(0), 8) * 30.0
    model.decoder.second.bias[0] = -12.0
    return model, planes


def test_a_box_of_one_density_lets_through_what_the_law_says():
    origins, directions = camera_rays([camera()], 12, torch.device("cpu"))
    near, far = box_span(origins, directions, BOX)
    for density in (0.5, 20.0):
        seen = render_rays(
            constant(density), origins, directions, box=BOX, background=WHITE, samples=512
        )
        length = far - near
        passed = torch.exp(-density * length)
        torch.testing.assert_close(seen.alpha, 1 - passed, rtol=0, atol=1e-4)
        wanted = (1 - passed)[..., None] * RED + passed[..., None] * WHITE
        torch.testing.assert_close(seen.color, wanted, rtol=0, atol=1e-4)
        hit = length > 0.1
        depth = near + 1 / density - length * passed / (1 - passed).clamp(min=1e-6)
        torch.testing.assert_close(seen.depth[hit], depth[hit], rtol=0, atol=1e-3)
    assert hit.any()
    assert not hit.all()
    assert (seen.depth[length == 0] == 0).all()


@pytest.mark.parametrize(("samples", "fine"), [(2048, 0), (128, 2048)])
def test_a_ball_of_one_density_does_so_with_even_and_with_importance_samples(samples, fine):
    radius, density = 0.3, 4.0
    origins, directions = camera_rays([camera()], 12, torch.device("cpu"))
    seen = render_rays(
        ball(density, radius),
        origins,
        directions,
        box=BOX,
        background=WHITE,
        samples=samples,
        fine_samples=fine,
    )
    middle = -(origins * directions).sum(dim=-1)
    aside = (origins + middle[..., None] * directions).norm(dim=-1)
    half = (radius**2 - aside.square()).clamp(min=0).sqrt()
    passed = torch.exp(-2 * density * half)
    torch.testing.assert_close(seen.alpha, 1 - passed, rtol=0, atol=1e-3)
    wanted = (1 - passed)[..., None] * RED + passed[..., None] * WHITE
    torch.testing.assert_close(seen.color, wanted, rtol=0, atol=1e-3)
    hit = half > 0.05
    depth = middle - half + 1 / density - 2 * half * passed / (1 - passed).clamp(min=1e-6)
    torch.testing.assert_close(seen.depth[hit], depth[hit], rtol=0, atol=1e-3)


def test_what_is_in_front_hides_what_is_behind():
    def halves(points):
        front = (points[..., 1] < 0)[..., None]
        return torch.full(points.shape[:2], 50.0), torch.where(front, RED, BLUE)

    for azimuth, color in ((0.0, RED), (math.pi, BLUE)):
        origins, directions = camera_rays([camera(azimuth, 0.0)], 3, torch.device("cpu"))
        seen = render_rays(halves, origins, directions, box=BOX, background=WHITE, samples=64)
        torch.testing.assert_close(seen.color[0, 4], color, rtol=0, atol=1e-3)


def test_the_background_shows_where_nothing_is():
    origins, directions = camera_rays([camera(size=4)], 4, torch.device("cpu"))
    seen = render_rays(constant(0.0), origins, directions, box=BOX, background=BLUE, samples=8)
    torch.testing.assert_close(seen.color, BLUE.expand(seen.color.shape))
    assert (seen.alpha == 0).all()


def test_opacity_is_between_0_and_1_at_any_density():
    origins, directions = camera_rays([camera(size=8)], 8, torch.device("cpu"))
    for density in (0.0, 1e-6, 1.0, 1e6):
        seen = render_rays(
            constant(density),
            origins,
            directions,
            box=BOX,
            background=WHITE,
            samples=16,
            fine_samples=16,
            random=torch.Generator().manual_seed(1),
        )
        for part in (seen.alpha, seen.color):
            assert part.isfinite().all()
            assert 0 <= float(part.min()) <= float(part.max()) <= 1 + 1e-6


def test_shares_and_what_passes_add_up_to_1():
    torch.manual_seed(0)
    weights, passed = weights_of(10 * torch.rand(2, 5, 9), torch.rand(2, 5, 9))
    torch.testing.assert_close(weights.sum(dim=-1) + passed, torch.ones(2, 5))
    assert (weights >= 0).all()


def test_gradients_are_those_of_the_formula():
    torch.manual_seed(0)
    density = torch.rand(1, 2, 4, dtype=torch.float64, requires_grad=True)
    length = torch.rand(1, 2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda d: weights_of(d, length), (density,))
    planes = torch.randn(1, 3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    points = torch.rand(1, 6, 3, dtype=torch.float64) - 0.5
    assert torch.autograd.gradcheck(lambda p: plane_features(p, points, BOX), (planes,))


def test_the_lookup_is_the_sum_of_three_bilinear_ones():
    torch.manual_seed(0)
    planes = torch.randn(2, 3, 4, 8, 8)
    points = (torch.rand(2, 50, 3) * 2 - 1) * BOX
    wanted = torch.zeros(2, 50, 4)
    for plane, (a, b) in enumerate(AXES):
        # The last axis of a grid is (column, row).
        grid = points[:, :, [b, a]][:, None] / BOX
        found = functional.grid_sample(
            planes[:, plane], grid, padding_mode="border", align_corners=False
        )
        wanted += found[:, :, 0].mT
    torch.testing.assert_close(plane_features(planes, points, BOX), wanted)


def test_random_places_stay_in_their_stretches_and_a_seed_repeats_them():
    origins, directions = camera_rays([camera(size=4)], 4, torch.device("cpu"))
    density = lambda points: 3 + 2 * torch.sin(40 * points).sum(dim=-1)  # noqa: E731

    def seen(seed):
        random = None if seed is None else torch.Generator().manual_seed(seed)
        return render_rays(
            lambda points: (density(points), RED.expand(points.shape)),
            origins,
            directions,
            box=BOX,
            background=WHITE,
            samples=32,
            random=random,
        ).alpha

    assert torch.equal(seen(1), seen(1))
    assert not torch.equal(seen(1), seen(2))
    torch.testing.assert_close(seen(1), seen(None), rtol=0, atol=0.05)


def test_importance_puts_stretches_where_the_weight_is():
    edges = torch.linspace(0, 1, 11).expand(1, 1, 11)
    weights = torch.zeros(1, 1, 10)
    weights[..., 3] = 1
    fine = importance_edges(edges, weights, 100)[0, 0]
    assert fine[0] == 0
    assert fine[-1] == 1
    assert (fine.diff() >= 0).all()
    inside = ((fine >= 0.2 - 1e-6) & (fine <= 0.5 + 1e-6)).float().mean()
    assert inside > 0.9


def test_rays_that_miss_the_box_or_look_away_have_no_length():
    origins = torch.tensor([[[0.0, -2, 0], [0.0, -2, 0], [0.0, -2, 0]]])
    directions = torch.tensor([[[0.0, 1, 0], [0.0, -1, 0], [1.0, 0, 0]]])
    near, far = box_span(origins, directions, BOX)
    torch.testing.assert_close(near[0, 0], torch.tensor(1.5), rtol=0, atol=1e-5)
    torch.testing.assert_close(far[0, 0], torch.tensor(2.5), rtol=0, atol=1e-5)
    assert (far - near)[0, 1:].abs().max() == 0


def test_a_picture_is_the_same_in_chunks_of_any_size():
    model, planes = blob_model()
    whole = model.render(planes, [camera()], 12)
    assert 0.5 < float(whole.alpha.max()) <= 1
    for size in (1, 7, 10_000):
        chunks = Chunks(size)
        part = model.render(planes, [camera()], 12, chunks=chunks)
        for name in ("color", "alpha", "depth"):
            torch.testing.assert_close(getattr(part, name), getattr(whole, name), rtol=0, atol=1e-5)


def test_empty_space_is_skipped_without_a_difference(monkeypatch):
    model, planes = blob_model()
    whole = model.render(planes, [camera()], 12)
    asked = []
    field = model.field
    occupied = model.occupancy(planes)
    monkeypatch.setattr(model, "occupancy", lambda _planes: occupied)
    monkeypatch.setattr(model, "field", lambda p, x: asked.append(x.shape[1]) or field(p, x))
    part = model.render(planes, [camera()], 12, skip_empty=True)
    config = model.config
    assert 0 < sum(asked) < 0.5 * 12 * 12 * (config.samples + config.fine_samples)
    torch.testing.assert_close(part.color, whole.color, rtol=0, atol=2e-3)
    torch.testing.assert_close(part.alpha, whole.alpha, rtol=0, atol=2e-3)


def test_occupancy_keeps_all_of_a_field_and_little_else():
    there = Occupancy.of(
        lambda points: (points.norm(dim=-1) < 0.2).float(), BOX, torch.device("cpu")
    )
    torch.manual_seed(0)
    points = (torch.rand(4000, 3) * 2 - 1) * BOX
    distance = points.norm(dim=-1)
    found = there(points)
    assert found[distance < 0.2].all()
    assert not found[distance > 0.3].any()


def test_several_cameras_see_one_scene_and_several_scenes_one_each():
    model, planes = blob_model()
    cameras = [camera(0.0), camera(2.0)]
    both = model.render(planes, cameras, 12)
    each = model.render(planes.expand(2, -1, -1, -1, -1), cameras, 12)
    assert both.color.shape == (2, 3, 12, 12)
    torch.testing.assert_close(both.color, each.color)
    assert model.render(planes, cameras[:1]).color.shape[-1] == model.config.image_size


def test_a_camera_inside_the_object_is_refused():
    model, planes = blob_model()
    with pytest.raises(XRayError) as caught:
        model.render(planes, [camera(distance=0.3)], 12)
    assert caught.value.code == "camera_inside"


def test_nothing_is_outside_the_box():
    model, planes = blob_model()
    points = torch.tensor([[[0.0, 0, 0], [0.0, 0, 0.7], [5.0, 0, 0]]])
    density, color = model.field(planes, points)
    assert density[0, 0] > 1
    assert (density[0, 1:] == 0).all()
    assert ((color >= 0) & (color <= 1)).all()
