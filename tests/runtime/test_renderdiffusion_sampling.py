"""The schedule and the sampling of RenderDiffusion, with models whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from runtime.renderdiffusion import schedule
from runtime.renderdiffusion.cameras import find_camera
from runtime.renderdiffusion.networks import RenderDiffusion, RenderDiffusionConfig, Rendered
from runtime.renderdiffusion.sampling import sample
from xray_addon import XRayError
from xray_addon.systems.renderdiffusion import FRAME, NOISE_STEPS

SMALL = RenderDiffusionConfig(
    image_size=16, channels=(32, 32), blocks=(1, 1), plane_channels=4, hidden=8, samples=8
)


class Oracle(RenderDiffusion):
    """A model that sees one picture in whatever it is given, and keeps what it was given."""

    def __init__(self, picture, config=SMALL):
        super().__init__(config)
        self.picture = picture
        self.times = []
        self.given = []
        self.last = []

    def planes(self, noisy, time, self_condition=None):
        self.times.append(int(time[0]))
        self.given.append(noisy)
        self.last.append(self_condition)
        return torch.zeros(len(noisy), 3, 4, 16, 16)

    def render(self, planes, *_, **__):
        alpha = torch.ones(len(planes), 1, 16, 16)
        return Rendered(self.picture.expand(len(planes), -1, -1, -1), alpha, alpha)


def noise(seed=0):
    random = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=random)


@pytest.fixture
def oracle():
    torch.manual_seed(0)
    return Oracle(torch.rand(1, 3, 16, 16))


@pytest.fixture
def image():
    torch.manual_seed(1)
    return torch.rand(1, 3, 16, 16)


@pytest.fixture
def cameras():
    return [SMALL.camera(0.5, 0.3)]


def test_the_picture_fades_from_all_to_nothing():
    signal = schedule.SIGNAL
    assert signal[0] == 1
    assert len(signal) == NOISE_STEPS + 1
    assert (signal.diff() < 0).all()
    assert signal[-1] < 1e-4
    assert signal[NOISE_STEPS // 2] == pytest.approx(0.5, abs=0.02)


def test_noised_pictures_keep_their_variance_and_give_their_noise_back():
    torch.manual_seed(0)
    clean, added = torch.randn(2, 8, 3, 32, 32)
    for step in (1, 40, 500, 1000):
        time = torch.full((8,), step)
        noisy = schedule.noised(clean, added, time)
        assert float(noisy.std()) == pytest.approx(1, abs=0.02)
        if step >= 40:
            torch.testing.assert_close(
                schedule.noise_in(noisy, clean, time), added, rtol=0, atol=1e-3
            )
    assert torch.equal(schedule.noised(clean, added, torch.zeros(8)), clean)


def test_little_noise_counts_fully_and_much_by_its_signal():
    weight = schedule.loss_weight(torch.tensor([0, 1, 500, 1000]), 5.0)
    signal = float(schedule.SIGNAL[500])
    assert weight[:2].tolist() == [1, 1]
    assert float(weight[2]) == pytest.approx(signal / (1 - signal) / 5, rel=1e-4)
    assert 0 <= float(weight[3]) < 1e-4


@pytest.mark.parametrize(("first", "steps"), [(1000, 50), (1000, 1), (40, 25), (40, 100), (1, 9)])
def test_sampling_times_fall_from_the_first_without_repeating(first, steps):
    times = schedule.sampling_times(first, steps)
    assert times[0] == first
    assert len(times) == len(set(times)) == min(first, steps)
    assert times == sorted(times, reverse=True)
    assert times[-1] >= 1


def test_generation_ends_at_what_the_model_sees(oracle, cameras):
    told = []
    sampled = sample(
        oracle, cameras, steps=25, noise=noise(), report=lambda *report: told.append(report)
    )
    torch.testing.assert_close(sampled.picture, oracle.picture, rtol=0, atol=1e-6)
    assert oracle.times[0] == NOISE_STEPS
    assert len(oracle.times) == 25
    assert [step for step, _, _ in told] == list(range(1, 26))
    assert all(of == 25 and picture.shape == (1, 3, 16, 16) for _, of, picture in told)
    # What a perfect model is given last is the picture and hardly any noise.
    last = schedule.SIGNAL[oracle.times[-1]].sqrt() * (oracle.picture * 2 - 1)
    spread = float((1 - schedule.SIGNAL[oracle.times[-1]]).sqrt())
    assert float((oracle.given[-1] - last).std()) == pytest.approx(spread, rel=0.2)


def test_with_t_r_0_an_image_is_seen_once_without_noise(oracle, image, cameras):
    def never(_shape):
        raise AssertionError

    told = []
    sample(oracle, cameras, image=image, noise=never, report=lambda *r: told.append(r[:2]))
    assert oracle.times == [0]
    torch.testing.assert_close(oracle.given[0], image * 2 - 1)
    assert told == [(0, 1), (1, 1)]


def test_with_a_higher_t_r_it_is_denoised_from_there(oracle, image, cameras):
    sample(oracle, cameras, image=image, t_r=40, steps=10, noise=noise(3))
    assert oracle.times[0] == 40
    assert len(oracle.times) == 10
    wanted = schedule.noised(image * 2 - 1, noise(3)(image.shape), torch.tensor([40]))
    torch.testing.assert_close(oracle.given[0], wanted)


def test_known_pixels_are_given_at_every_step_and_come_back_as_they_were(oracle, image, cameras):
    known = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    known[..., :8] = True
    sampled = sample(oracle, cameras, image=image, known=known, steps=20, noise=noise())
    assert torch.equal(sampled.picture[..., :8], image[..., :8])
    torch.testing.assert_close(sampled.picture[..., 8:], oracle.picture[..., 8:], rtol=0, atol=1e-6)
    for time, given in zip(oracle.times, oracle.given, strict=True):
        kept, spread = (float(part) for part in schedule.amounts(torch.tensor([time])))
        off = given[..., :8] - kept * (image[..., :8] * 2 - 1)
        assert float(off.std()) == pytest.approx(spread, rel=0.2)


def test_inpainting_lets_go_of_known_pixels_below_t_r(oracle, image, cameras):
    known = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    sampled = sample(oracle, cameras, image=image, known=known, t_r=500, steps=20, noise=noise())
    torch.testing.assert_close(sampled.picture, oracle.picture, rtol=0, atol=1e-6)
    assert oracle.times[0] == NOISE_STEPS  # and not 500


def test_a_mask_that_keeps_nothing_generates_and_one_that_keeps_all_returns_the_image(
    oracle, image, cameras
):
    nothing = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    made = sample(oracle, cameras, image=image, known=nothing, steps=5, noise=noise(4))
    first = oracle.given[0]
    generated = sample(oracle, cameras, steps=5, noise=noise(4))
    assert torch.equal(first, oracle.given[5])
    assert torch.equal(made.picture, generated.picture)
    whole = sample(oracle, cameras, image=image, known=~nothing, steps=5, noise=noise(4))
    assert torch.equal(whole.picture, image)


@pytest.mark.parametrize("values", [{"t_r": -1}, {"t_r": 1001}, {"steps": 0}])
def test_settings_out_of_range_are_told(oracle, image, cameras, values):
    with pytest.raises(XRayError) as caught:
        sample(oracle, cameras, image=image, noise=noise(), **values)
    assert caught.value.code == "bad_settings"
    assert not oracle.times


def test_a_report_may_stop_it(oracle, cameras):
    def stop(step, *_):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(oracle, cameras, steps=50, noise=noise(), report=stop)
    assert len(oracle.times) == 3


def test_the_last_estimate_is_handed_on(oracle, cameras):
    sample(oracle, cameras, steps=3, noise=noise())
    assert oracle.last[0] is None
    torch.testing.assert_close(oracle.last[1], oracle.picture * 2 - 1)


def test_a_seed_repeats_a_sample_and_several_cameras_take_one_each():
    torch.manual_seed(0)
    model = RenderDiffusion(SMALL).eval()
    cameras = [SMALL.camera(a, 0.3) for a in (0.0, 1.0)]
    first = sample(model, cameras, steps=3, noise=noise(1))
    again = sample(model, cameras, steps=3, noise=noise(1))
    other = sample(model, cameras, steps=3, noise=noise(2))
    assert torch.equal(first.picture, again.picture)
    assert not torch.equal(first.picture, other.picture)
    assert first.planes.shape == (2, 3, 4, 16, 16)
    assert first.picture.isfinite().all()
    torch.testing.assert_close(first.picture, model.render(first.planes, cameras).color)


def test_an_images_camera_is_found_by_what_its_field_looks_like(monkeypatch):
    """The field is a bar to one side: its picture tells the azimuth."""
    torch.manual_seed(0)
    model = RenderDiffusion(SMALL).eval()

    def field(_planes, points):
        x, y, z = points.unbind(-1)
        there = (x > 0.1) & (x < 0.5) & (y.abs() < 0.12) & (z.abs() < 0.12)
        there |= (y < -0.2) & (y > -0.4) & (x.abs() < 0.05) & (z > 0.1) & (z < 0.5)
        return 100.0 * there, torch.zeros_like(points)

    monkeypatch.setattr(model, "field", field)
    planes = torch.zeros(1, 3, 4, 16, 16)
    calls = []
    for azimuth, elevation in ((0.6, 0.3), (-2.2, 0.1)):
        wanted = SMALL.camera(azimuth, elevation)
        image = model.render(planes, [wanted]).color[0]
        found = find_camera(model, image, lambda: calls.append(1))
        cosine = wanted.position @ found.position / (FRAME.distance**2)
        assert math.degrees(math.acos(min(1, cosine))) < 12
    assert len(calls) > 4
