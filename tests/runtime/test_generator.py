"""The embedded generator, with a tiny model and with the weights that ship."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import runtime
from runtime.images.framing import frame_sized
from runtime.xray.decoding import decode, frame_from
from runtime.xray.generator import XRayGenerator, closed_surface, open_surface
from runtime.xray.networks.base import Prediction
from runtime.xray.sampling import both_ways
from runtime.xray.weights import DEFAULT_WEIGHTS, save_weights
from xray_addon import GenerateSettings, XRayError, cast
from xray_addon.camera import Camera
from xray_addon.canonical import CANONICAL, DISTANCE, FAR, FILL, FOV_X, NEAR, canonical_camera
from xray_addon.progress import Cancelled
from xray_addon.systems.xray import FARTHEST, GUESSED_DISTANCE, XRaySettings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests/demo/toadstool.png"
CAMERA = canonical_camera(256, 0.3)


def ball(size: int = 64, layers: int = 4) -> tuple[Prediction, torch.Tensor]:
    """What a perfect network says of a red ball, and its picture."""
    frames = torch.zeros(1, layers, 8, size, size)
    frames[:, :, 7] = -8
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-axis, axis, indexing="ij")
    inside = 0.64 - x**2 - y**2
    half = 0.45 * inside.clamp(min=0).sqrt()
    for layer, sign in ((0, -1), (1, 1)):
        depth = DISTANCE + sign * half
        frames[:, layer, 0] = (depth - NEAR) / (FAR - NEAR) * 2 - 1
        normal = torch.stack([x, y, -sign * inside.clamp(min=0).sqrt()])
        frames[:, layer, 1:4] = normal / normal.norm(dim=0).clamp(min=1e-6)
        frames[:, layer, 4] = 1.0
        frames[:, layer, 5:7] = -1.0
        frames[:, layer, 7] = inside * 10
    fine = (torch.arange(256) + 0.5) / 128 - 1
    alpha = (fine[:, None] ** 2 + fine**2 < 0.64).float()
    picture = alpha * torch.tensor([0.9, 0.1, 0.1, 1.0])[:, None, None]
    return Prediction(frames, torch.tensor([[0.3, 0.0]])), picture[None]


def test_layers_decode_to_the_object_they_describe():
    prediction, picture = ball()
    layers = decode(prediction, picture[0, 3], CAMERA)
    assert layers.closed
    xray = layers.xray()
    assert xray.shape == (4, 256, 256)
    near, far = xray.depth[:2, 128, 128]
    assert near == pytest.approx(DISTANCE - 0.36, abs=0.01)
    assert far == pytest.approx(DISTANCE + 0.36, abs=0.01)
    assert xray.hits_per_layer[2:].tolist() == [0, 0]
    assert (np.diff(xray.depth, axis=0)[xray.hit[1:]] >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(xray.hit_normal, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("distance", "times"),
    [(0.5, 1.0), (4.0, 3.1085), (FARTHEST, 7.771), (1000, 7.771)],
)
def test_the_same_object_is_made_from_farther_away(distance: float, times: float):
    prediction, picture = ball()
    camera = frame_from(distance).camera(256, 0.3)
    assert camera.distance == pytest.approx(times * DISTANCE, rel=1e-3)
    assert (camera.position / camera.distance) @ CAMERA.position == pytest.approx(DISTANCE)
    layers = decode(prediction, picture[0, 3], camera)
    near, far = layers.xray().depth[:2, 128, 128]
    assert near == pytest.approx(camera.distance - 0.36, abs=0.01)
    assert far == pytest.approx(camera.distance + 0.36, abs=0.01)
    image = (picture[0].movedim(0, -1).numpy() * 255).astype(np.uint8)
    surface, xray = closed_surface(layers, image, camera)
    # The outline is 0.8 of the image at the ball's middle, whatever the lens.
    wide = 0.8 * DISTANCE * math.tan(FOV_X / 2)
    assert np.ptp(surface.vertices[:, 0]) / 2 == pytest.approx(wide, rel=0.04 if times > 1 else 0.2)
    assert (xray.hit[0] & layers.outline).sum() > 0.97 * layers.outline.sum()


def test_front_and_back_of_a_closed_object_share_their_outline():
    prediction, picture = ball()
    # A back that is seen a little less well, as networks do.
    prediction.frames[:, 1, 7] -= 1.0
    xray = decode(prediction, picture[0, 3], CAMERA).xray()
    assert xray.hits_per_layer[0] == xray.hits_per_layer[1] > 0


def test_the_outline_is_the_images_own():
    prediction, picture = ball()
    picture[..., :20] = 0
    picture[..., 120:124, 4:24] = 1  # a thin part that the frames are too coarse to show
    xray = decode(prediction, picture[0, 3], CAMERA).xray()
    np.testing.assert_array_equal(xray.hit[0], picture[0, 3].numpy() > 0.5)
    assert np.isfinite(xray.hit_depth).all()
    assert xray.hit_depth.min() > NEAR + 0.3


def test_a_sheet_stays_a_sheet():
    prediction, picture = ball()
    prediction.frames[:, 1, 7] = -8
    layers = decode(prediction, picture[0, 3], CAMERA)
    assert not layers.closed
    image = (picture[0].movedim(0, -1).numpy() * 255).astype(np.uint8)
    surface, xray = open_surface(layers, image, CAMERA)
    assert xray.hits_per_layer[0] > 0 == xray.hits_per_layer[1]
    assert not surface.is_watertight
    assert surface.corner_colors is not None


def test_from_farther_away_the_back_of_the_same_layers_is_smaller_and_the_front_stays():
    generator = runtime.load("xray", device="cpu")
    # A network that is not told the lens predicts the same layers.
    generator.model.config = replace(generator.model.config, lens=False)
    near, far = (generator.generate(REFERENCE, XRaySettings(distance=d)) for d in (1.0, 5.0))
    assert far.camera.distance == pytest.approx(5.0 / CANONICAL.distance_in_lengths * DISTANCE)
    # The base is cut flat, elsewhere for each; all above it stays.
    for rows, share in ((slice(0, 192), 0.99), (slice(0, 256), 0.95)):
        before, after = near.xray.hit[0][rows], far.xray.hit[0][rows]
        assert (before & after).sum() > share * before.sum()

    def spread(made) -> float:
        """How much wider the farther half is than the nearer one."""
        seen = (made.surface.vertices - made.camera.position) @ made.camera.camera_to_world[:3, :3]
        back = -seen[:, 2] > np.median(-seen[:, 2])
        return float(seen[back, 0].std() / seen[~back, 0].std())

    assert spread(far) < 0.97 * spread(near)


def test_a_jump_in_depth_is_not_smeared():
    prediction, picture = ball()
    prediction.frames[:, :2, 0, :, 32:] += 0.5
    depth = decode(prediction, picture[0, 3], CAMERA).depth[0, 128]
    jump = np.abs(np.diff(depth[60:196]))
    assert (jump > 0.2).sum() == 1
    assert jump[jump <= 0.2].max() < 0.06


def test_a_leaning_object_is_put_upright():
    prediction, picture = ball()
    layers = decode(prediction, picture[0, 3], CAMERA)
    image = (picture[0].movedim(0, -1).numpy() * 255).astype(np.uint8)
    upright, _ = closed_surface(layers, image, CAMERA)
    camera = canonical_camera(256, 0.3, 0.2)
    turned, _ = closed_surface(layers, image, camera)
    # The same rays see the same solid, but for where its base is.
    first = cast(upright, CAMERA, 1).depth[0, 60:128, 128]
    np.testing.assert_allclose(cast(turned, camera, 1).depth[0, 60:128, 128], first, atol=0.02)


def tiny(config, tmp_path: Path, **record) -> Path:
    torch.manual_seed(1)
    model = config.model()
    with torch.no_grad():  # an untrained model says nothing; make it sure of a surface
        model.frame_out.weight.normal_(std=0.02)
        model.frame_out.bias.view(-1, 8, 4)[:, 7] = 2.0
    save_weights(tmp_path / "tiny.safetensors", model, asdict(config) | record)
    return tmp_path / "tiny.safetensors"


def test_the_whole_way_from_image_to_mesh(config, tmp_path: Path):
    generator = runtime.load("xray", str(tiny(config, tmp_path)), "cpu")
    seen = []
    result = generator.generate(REFERENCE, GenerateSettings(), seen.append)
    assert len(result.surface.faces) > 0
    assert result.xray.shape == (4, 256, 256)
    assert seen[0].stage == "image"
    assert {p.stage for p in seen} == {"image", "predict", "mesh"}
    again = generator.generate(Image.open(REFERENCE), GenerateSettings())
    np.testing.assert_array_equal(again.surface.vertices, result.surface.vertices)


@pytest.mark.parametrize("stage", ["image", "predict", "mesh"])
def test_it_can_be_cancelled_at_every_stage(config, tmp_path: Path, stage: str):
    generator = runtime.load("xray", str(tiny(config, tmp_path)), "cpu")

    def stop(progress):
        if progress.stage == stage:
            raise Cancelled

    with pytest.raises(Cancelled):
        generator.generate(REFERENCE, GenerateSettings(), stop)


def test_one_pass_weights_say_that_they_cannot_sample(config, tmp_path: Path):
    generator = runtime.load("xray", str(tiny(config, tmp_path)), "cpu")
    with pytest.raises(XRayError, match="one pass"):
        generator.generate(REFERENCE, GenerateSettings(steps=4))
    with pytest.raises(XRayError, match="variation to 0"):
        generator.generate(REFERENCE, XRaySettings(variation=0.5))
    assert len(generator.generate(REFERENCE, GenerateSettings(steps=1)).surface.faces)
    sampler = runtime.load("xray", str(tiny(config, tmp_path, denoise_share=0.5)), "cpu")
    assert len(sampler.generate(REFERENCE, GenerateSettings(steps=3)).surface.faces)


def test_variation_is_how_far_seeds_go_apart():
    generator = runtime.load("xray", device="cpu")

    def hidden(variation: float, seed: int) -> np.ndarray:
        settings = GenerateSettings(variation=variation, seed=seed, steps=4)
        return generator.generate(REFERENCE, settings).xray.depth.max(axis=0)  # the back

    def apart(variation: float) -> float:
        one, other = hidden(variation, 0), hidden(variation, 1)
        return float(np.abs(one - other)[(one > 0) & (other > 0)].mean())

    assert apart(0.0) == 0
    assert 0 < apart(0.3) < apart(1.0)


def test_a_photo_says_from_how_far_away_it_was_taken(tmp_path: Path):
    generator = runtime.load("xray", device="cpu")
    picture = Image.new("RGBA", (900, 1200))
    with Image.open(REFERENCE) as reference:
        picture.paste(reference.convert("RGBA").resize((500, 500)), (200, 300))
    _, side = frame_sized(picture, 512, fill=FILL)
    exif = Image.Exif()
    exif[0x0112] = 1  # without it nothing would be saved
    exif.get_ifd(0x8769)[0xA405] = 52
    picture.save(tmp_path / "photo.png", exif=exif)
    picture.save(tmp_path / "picture.png")
    distance = 52 / 43.27 * 1500 / side
    photo, picture, told, guessed = (
        generator.generate(tmp_path / name, XRaySettings(distance=distance))
        for name, distance in (
            ("photo.png", 0),
            ("picture.png", 0),
            ("picture.png", distance),
            ("photo.png", GUESSED_DISTANCE),
        )
    )
    np.testing.assert_array_equal(photo.surface.vertices, told.surface.vertices)
    np.testing.assert_array_equal(picture.surface.vertices, guessed.surface.vertices)
    assert photo.camera.distance > 1.5 * picture.camera.distance
    assert photo.chosen == {"distance": pytest.approx(distance), "upright": "never"}
    assert told.chosen == {"upright": "never"}
    assert picture.chosen["distance"] == GUESSED_DISTANCE
    exif.get_ifd(0x8769)[0xA405] = 600
    with Image.open(tmp_path / "picture.png") as from_afar:
        from_afar.save(tmp_path / "photo.png", exif=exif)
    assert generator.generate(tmp_path / "photo.png").chosen["distance"] == FARTHEST


@pytest.fixture
def leaning(monkeypatch):
    """A generator whose layers lean by `.angle`, those of an outline alone by `.outline` of it."""
    generator = runtime.load("xray", device="cpu")
    generator.angle, generator.outline = -0.6, 0.0
    share = [1.0]

    def predict(model, image: torch.Tensor, **given) -> Prediction:
        one_color = bool((image[:, :3].amax(dim=1) == image[:, :3].amin(dim=1)).all())
        share[0] = generator.outline if one_color else 1.0
        return both_ways(model, image, **given)

    monkeypatch.setattr("runtime.xray.generator.both_ways", predict)
    monkeypatch.setattr(
        "runtime.xray.generator.righting_angle", lambda *_: generator.angle * share[0]
    )
    return generator


def test_what_leans_is_told_and_set_upright(leaning):
    """Layers that lean back, as they often do for photos of figures."""
    told, silent = (
        leaning.generate(REFERENCE, XRaySettings(upright=up, steps=1)) for up in ("never", "always")
    )
    assert any("leans back by about 34 degrees" in note for note in told.notes)
    assert not silent.notes
    # The head, above the middle, comes forward; the outline stays.
    seen = told.xray.hit[0] & silent.xray.hit[0]
    assert seen.sum() > 0.98 * told.xray.hit[0].sum()
    nearer = np.where(seen, told.xray.depth[0] - silent.xray.depth[0], 0)
    assert nearer[:80].sum() > 0 > nearer[176:].sum()


def test_what_is_set_upright_stands_on_the_ground(leaning, monkeypatch):
    def made(upright: str) -> np.ndarray:
        return leaning.generate(REFERENCE, XRaySettings(upright=upright, steps=1)).surface.vertices

    def on_the_ground(vertices: np.ndarray) -> int:
        return int((vertices[:, 2] < vertices[:, 2].min() + 0.001).sum())

    righted, left = made("always"), made("never")
    monkeypatch.setattr("runtime.xray.generator.FOOT", 0.0)
    assert on_the_ground(righted) > 1.2 * on_the_ground(made("always"))
    np.testing.assert_array_equal(left, made("never"))


@pytest.mark.parametrize(
    ("angle", "outline", "same_as"),
    [
        (-0.4, 0.3, "always"),
        (-0.2, 0.3, "always"),
        (-0.4, 0.8, "never"),
        (-0.4, -0.5, "never"),
        (-0.6, 0.3, "never"),
    ],
)
def test_what_leans_is_set_upright_by_itself_if_its_outline_does_not_lean(
    leaning, angle: float, outline: float, same_as: str
):
    leaning.angle, leaning.outline = angle, outline
    by_itself, other = (
        leaning.generate(REFERENCE, XRaySettings(upright=up, steps=1)) for up in ("auto", same_as)
    )
    np.testing.assert_array_equal(by_itself.surface.vertices, other.surface.vertices)
    (note,) = by_itself.notes
    assert ("was set upright" in note) == (same_as == "always")
    assert by_itself.chosen["upright"] == same_as
    assert "upright" not in other.chosen


def test_what_leans_a_little_stays_and_is_not_told(leaning):
    leaning.angle, leaning.outline = -0.2, 0.8
    made = leaning.generate(REFERENCE, XRaySettings(steps=1))
    assert made.chosen["upright"] == "never"
    assert not made.notes


@pytest.mark.parametrize("steps", [0, 1])
def test_no_gradients_are_kept(monkeypatch, steps: int):
    seen = []

    def spy(prediction: Prediction, alpha: torch.Tensor, camera: Camera):
        seen.append(prediction.frames.requires_grad)
        return decode(prediction, alpha, camera)

    monkeypatch.setattr("runtime.xray.generator.decode", spy)
    generator = XRayGenerator.load(device="cpu")
    with Image.open(REFERENCE) as image:
        generator.generate(image, XRaySettings(steps=steps))
    assert seen == [False]


def test_no_surface_is_an_error_not_an_empty_mesh(config):
    model = config.model()
    with torch.no_grad():
        model.frame_out.bias.fill_(-5.0)
    generator = XRayGenerator(model.eval(), "cpu", {})
    with pytest.raises(XRayError) as caught:
        generator.generate(REFERENCE, GenerateSettings())
    assert caught.value.code == "nothing_predicted"


def test_unknown_names_and_devices_are_refused():
    with pytest.raises(XRayError, match="Choose one of") as caught:
        runtime.load("magic")
    assert caught.value.code == "unknown_generator"
    if not torch.cuda.is_available():
        with pytest.raises(XRayError) as caught:
            runtime.load("xray", device="cuda")
        assert caught.value.code == "no_device"


@pytest.mark.parametrize("system", ["xray", "renderdiffusion"])
def test_a_checkpoint_may_lie_in_the_home_folder_and_is_on_no_hub(system, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shipped = DEFAULT_WEIGHTS.with_name(f"{system}.safetensors")
    (tmp_path / "mine.safetensors").symlink_to(shipped)
    assert runtime.load(system, "~/mine.safetensors", "cpu").device == "cpu"
    for missing in ("~/gone.safetensors", "owner/repo"):
        with pytest.raises(XRayError, match="on no hub") as caught:
            runtime.load(system, missing, "cpu")
        assert caught.value.code == "missing_weights"


def test_an_object_of_few_pixels_is_told():
    generator = runtime.load(device="cpu")
    large = np.zeros((200, 200, 4), np.uint8)
    large[50:150, 70:130] = 200
    (note,) = generator.generate(Image.fromarray(large[::4, ::4]), GenerateSettings()).notes
    assert "only 25 pixels long" in note
    assert not generator.generate(Image.fromarray(large), GenerateSettings()).notes


def test_a_large_image_gives_a_large_texture_of_the_same_mesh():
    generator = runtime.load(device="cpu")
    with Image.open(REFERENCE) as picture:
        made = [generator.generate(picture.resize((n, n))).surface for n in (512, 1200)]
    assert [m.materials[0].texture.shape for m in made] == [(512, 1024, 3), (1024, 2048, 3)]
    small, large = (m.vertices for m in made)
    np.testing.assert_allclose(np.ptp(large, axis=0), np.ptp(small, axis=0), atol=0.02)
    # The same colours, in four times as many pixels.
    fine = made[1].materials[0].texture.reshape(512, 2, 1024, 2, 3).mean(axis=(1, 3))
    assert np.abs(fine - made[0].materials[0].texture).mean() < 3


def test_back_says_what_the_hidden_side_shows():
    generator = runtime.load(device="cpu")
    blended, mirrored = (
        generator.generate(REFERENCE, XRaySettings(back=back)).surface
        for back in ("blended", "mirrored")
    )
    np.testing.assert_array_equal(blended.vertices, mirrored.vertices)
    before, after = blended.materials[0].texture, mirrored.materials[0].texture
    np.testing.assert_array_equal(before[:, :512], after[:, :512])
    np.testing.assert_array_equal(after[:, :512], after[:, 512:])
    assert np.abs(before[:, 512:].astype(int) - after[:, 512:]).mean() > 5


def test_the_weights_that_ship_make_a_closed_mesh_the_size_of_the_image():
    assert DEFAULT_WEIGHTS.stat().st_size < 24e6
    result = runtime.load(device="cpu").generate(REFERENCE, GenerateSettings())
    assert result.surface.is_watertight
    assert result.surface.materials[0].texture.shape == (512, 1024, 3)
    assert 10_000 < len(result.surface.faces) < 30_000
    # The cap is red: seen from the front, above the middle.
    points = result.xray.points(result.camera)
    top = points.positions[:, 2] > 0.2
    front = top & (points.positions[:, 1] < np.median(points.positions[:, 1]))
    red, green, _ = np.median(points.colors[front], axis=0)
    assert red > 2 * green
    # As far away as its lens needs, from somewhere between below and above.
    across = result.camera.distance * math.tan(result.camera.fov_x / 2)
    assert across == pytest.approx(DISTANCE * math.tan(FOV_X / 2))
    assert abs(math.asin(result.camera.position[2] / result.camera.distance)) < math.radians(70)
    # The silhouette is the image's.
    alpha = np.asarray(Image.open(REFERENCE))[..., 3] > 127
    covered = result.xray.hit[0].mean()
    row, column = np.nonzero(alpha)
    box = max(np.ptp(row), np.ptp(column)) + 1
    assert covered == pytest.approx(alpha.sum() / box**2 * 0.85**2, rel=0.1)


def test_nothing_is_compiled_for_the_first_mesh():
    code = (
        "import sys, runtime; from PIL import Image; from xray_addon import GenerateSettings; "
        "image = Image.new('RGBA', (128, 128)); image.paste('red', (32, 32, 96, 96)); "
        "made = runtime.load('xray').generate(image, GenerateSettings()); "
        "assert len(made.surface.faces); "
        "assert not {'numba', 'torch._dynamo'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
