"""TripoSR's meshes, orientation and behaviour on bad input, with tiny networks."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from safetensors.torch import save_file
from skimage.measure import marching_cubes

import runtime
from runtime.meshes.extraction import Sparse, TooIntricate, march, sample_surface, strides_for
from runtime.meshes.unwrapping import unwrap
from runtime.torch_helpers.memory import LEAST, Chunks
from runtime.triposr import field
from runtime.triposr.config import TripoSRConfig, VitConfig
from runtime.triposr.extraction import GridField
from runtime.triposr.generator import TO_WORLD, TripoSRGenerator
from runtime.triposr.model import TripoSR
from runtime.triposr.preparation import prepare
from runtime.triposr.weights import load_weights, save_weights
from xray_addon import Camera, GenerateSettings, XRayError, cast
from xray_addon.casting.texels import cast_uvs
from xray_addon.progress import Cancelled

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
TINY = TripoSRConfig(
    image_size=32,
    plane_size=4,
    channels=32,
    heads=2,
    head_size=16,
    layers=1,
    plane_channels=4,
    neurons=8,
    hidden_layers=2,
    ray_samples=16,
    vit=VitConfig(32, 1, 2, 32, 8, 32),
)


@pytest.fixture
def model() -> TripoSR:
    torch.manual_seed(0)
    return TripoSR(TINY).eval().requires_grad_(False)


@pytest.fixture
def folder(model: TripoSR, tmp_path: Path) -> Path:
    save_weights(tmp_path / "tiny", model, {})
    return tmp_path / "tiny"


class Ball(torch.nn.Module):
    """Stands for a network: whatever it sees is a ball at (0.3, 0, 0), coloured by position."""

    config = TINY
    decoder = None

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(image), 3, 4, 8, 8)


@pytest.fixture
def ball(monkeypatch) -> TripoSRGenerator:
    def query(_planes, _decoder, points, radius):
        distance = (points - torch.tensor([0.3, 0.0, 0.0])).norm(dim=1)
        raw = (400 * (0.3 - distance) + 4.2189).clamp(-20, 20)
        return torch.cat([raw[:, None], 8 * points], dim=1)

    class Grid:
        def __init__(self, _planes, _decoder, resolution, _chunks, _alive):
            self.axis = torch.linspace(-1, 1, resolution) * TINY.radius
            self.count = resolution

        def __call__(self, index):
            n = self.count
            where = torch.stack([index // (n * n), index // n % n, index % n], dim=1)
            return query(None, None, self.axis[where], TINY.radius)[:, 0]

    monkeypatch.setattr("runtime.triposr.field.query", query)
    monkeypatch.setattr("runtime.triposr.generator.GridField", Grid)
    return TripoSRGenerator(Ball(), "cpu")  # type: ignore[arg-type]


def picture() -> np.ndarray:
    rgba = np.zeros((48, 48, 4), np.uint8)
    rgba[8:40, 16:32] = (200, 90, 30, 255)
    return rgba


def settings(**values) -> GenerateSettings:
    return GenerateSettings(generator="triposr", **{"grid_resolution": 64} | values)


# ------------------------------------------------------------------------------ orientation


def test_the_mesh_is_upright_with_the_viewer_on_the_minus_y_side(ball):
    result = ball.generate(picture(), settings())
    surface = result.surface
    # Towards the viewer is +x in the field and -y in Blender.
    np.testing.assert_allclose(surface.bounds.mean(axis=0), [0, -0.3, 0], atol=0.01)
    np.testing.assert_allclose(np.ptp(surface.bounds, axis=0), 0.6, atol=0.01)
    assert surface.is_watertight
    assert result.xray is None
    # Outside out: faces and normals point away from the middle.
    corners = surface.vertices[surface.faces] - [0, -0.3, 0]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("ij,ij->i", facing, corners.mean(axis=1)) > 0).mean() > 0.999
    assert np.einsum("ijk,ijk->ij", surface.corner_normals, corners).min() > 0
    # Colours by position: red grows towards the viewer, green to the right, blue upwards.
    center, color = corners.reshape(-1, 3), surface.corner_colors.reshape(-1, 3)
    for channel, axis in ((0, [0, -1, 0]), (1, [1, 0, 0]), (2, [0, 0, 1])):
        assert np.corrcoef(center @ axis, color[:, channel])[0, 1] > 0.9


def test_the_camera_sees_the_mesh_as_the_first_picture_of_the_orbit(ball):
    result = ball.generate(picture(), settings())
    np.testing.assert_allclose(result.camera.position, [0, -field.DISTANCE, 0], atol=1e-12)
    planes = ball.encode(picture())
    first = ball.orbit(planes, 4, 32)[0, ..., 3] > 127
    seen = cast(result.surface, result.camera.resized(32, 32), 1).hit[0]
    assert (first == seen).mean() > 0.98
    camera = field.orbit_camera(0.0, 0.0, 32).camera_to_world
    np.testing.assert_allclose(TO_WORLD @ camera, result.camera.camera_to_world, atol=1e-6)


# ------------------------------------------------------------------------------ meshes


def dense(evaluate, resolution: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The published procedure: every point of the grid, then marching cubes."""
    values = evaluate(torch.arange(resolution**3)).view(3 * (resolution,)) - level
    vertices, faces, _, _ = marching_cubes(values.numpy(), 0.0, gradient_direction="ascent")
    return vertices / (resolution - 1) * 2 - 1, faces


def shapes(resolution: int):
    """Thin rods, a thin plate, a ball and a speck, as values of a grid."""
    axis = torch.linspace(-1, 1, resolution)
    step = 2 / (resolution - 1)

    def evaluate(index: torch.Tensor) -> torch.Tensor:
        n = resolution
        x, y, z = axis[index // (n * n)], axis[index // n % n], axis[index % n]
        rod = 1.2 * step - ((x - 0.5) ** 2 + (y - 0.51 - 0.2 * z) ** 2).sqrt()
        plate = torch.minimum(0.7 * step - (z - 0.313).abs(), 0.6 - torch.maximum(x.abs(), y.abs()))
        ball = 0.3 - ((x + 0.4) ** 2 + y**2 + (z + 0.4) ** 2).sqrt()
        return torch.stack([rod, plate, ball]).amax(dim=0)

    return evaluate


@pytest.mark.parametrize("resolution", [33, 64, 97])
def test_coarse_to_fine_gives_the_mesh_of_dense_sampling(resolution: int):
    evaluate = shapes(resolution)
    sparse = sample_surface(evaluate, resolution, 0.0, CPU)
    vertices, faces = march(sparse, 1.0)
    wanted, wanted_faces = dense(evaluate, resolution, 0.0)
    np.testing.assert_array_equal(faces, wanted_faces)
    np.testing.assert_allclose(vertices, wanted, atol=1e-5)
    assert sparse.evaluated < resolution**3


def test_a_surface_is_followed_where_no_coarse_point_sees_it():
    """A rod far thinner than the first stride, but for one thick end."""
    n = 65
    axis = torch.linspace(-1, 1, n)

    def evaluate(index: torch.Tensor) -> torch.Tensor:
        x, y, z = axis[index // (n * n)], axis[index // n % n], axis[index % n]
        rod = torch.minimum(0.02 - ((y - 0.05) ** 2 + (z - 0.05) ** 2).sqrt(), 0.9 - x.abs())
        knob = 0.15 - ((x + 0.8) ** 2 + y**2 + z**2).sqrt()
        # Flat away from the surface, so that nothing is to be guessed from afar.
        return torch.maximum(rod, knob).clamp(-0.02, 0.02)

    vertices, _ = march(sample_surface(evaluate, n, 0.0, CPU), 1.0)
    wanted, _ = dense(evaluate, n, 0.0)
    assert np.ptp(vertices[:, 0]) > 1.7
    assert len(vertices) == len(wanted)


def test_the_first_stride_skips_no_pixel_of_the_planes():
    assert strides_for(256, 64) == strides_for(512, 64) == (4, 2, 1)
    assert strides_for(255, 64) == strides_for(128, 64) == (2, 1)
    assert strides_for(127, 64) == strides_for(32, 64) == (1,)


def test_a_coarse_grid_misses_no_speck(folder: Path):
    """Noise, in which each pixel of the planes may have a piece of surface of its own."""
    generator = runtime.load("triposr", str(folder), "cpu")
    planes = 3 * torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    raw = GridField(planes, generator.model.decoder, 31, Chunks(4096))(torch.arange(31**3))
    level = float(raw.quantile(0.995))
    surface = generator.surface(planes, 31, math.exp(level + TINY.density_bias))
    wanted, wanted_faces = dense(lambda _: raw, 31, level)
    assert len(surface.vertices) == len(wanted)
    assert len(surface.faces) == len(wanted_faces)
    found, _ = march(sample_surface(lambda i: raw[i], 31, level, CPU), 1.0)
    assert len(found) < len(wanted)  # which the longest stride would miss


def test_few_points_are_computed_where_the_surface_is_small():
    axis = torch.linspace(-1, 1, 129)

    def evaluate(index: torch.Tensor) -> torch.Tensor:
        n = 129
        where = torch.stack([index // (n * n), index // n % n, index % n], dim=1)
        return 0.5 - axis[where].norm(dim=1)

    sparse = sample_surface(evaluate, 129, 0.0, CPU)
    assert sparse.evaluated < 0.2 * 129**3


def noise(resolution: int):
    """Another random value at each point of a grid: nearly all cells are crossed."""
    values = torch.randn(resolution**3, generator=torch.Generator().manual_seed(0))
    return lambda index: values[index]


def test_a_surface_of_too_many_triangles_is_told_before_all_is_computed():
    computed = []

    def evaluate(index: torch.Tensor) -> torch.Tensor:
        computed.append(len(index))
        return noise(65)(index)

    with pytest.raises(TooIntricate) as caught:
        sample_surface(evaluate, 65, 0.0, CPU, most=10_000)
    assert sum(computed) == 17**3
    assert caught.value.cells > 10_000
    assert caught.value.fewer(65) < 65
    # Few enough at the coarse points, too many where all are known.
    with pytest.raises(TooIntricate) as caught:
        sample_surface(noise(65), 65, 0.0, CPU, most=100_000)
    assert 100_000 < caught.value.cells <= 64**3


@pytest.mark.parametrize(
    ("name", "texture_size"), [("MOST_CELLS", 0), ("MOST_UNWRAPPED_CELLS", 64)]
)
def test_noise_is_meshed_at_fewer_points_and_says_so(
    folder: Path, monkeypatch, caplog, name: str, texture_size: int
):
    generator = runtime.load("triposr", str(folder), "cpu")
    planes = 3 * torch.randn(3, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    threshold = float(generator.query(planes, points)[0].median())
    whole = generator.surface(planes, 64, threshold)
    monkeypatch.setattr(f"runtime.meshes.meshing.{name}", 3000)
    reports = []
    surface = generator.surface(
        planes, 64, threshold, texture_size=texture_size, progress=reports.append
    )
    assert 0 < len(surface.faces) < 9000 < len(whole.faces)
    np.testing.assert_allclose(surface.bounds, whole.bounds, atol=0.1)
    assert any("Too intricate for 64 points a side" in report.message for report in reports)
    assert "triangles" in caplog.text


def test_a_grid_field_is_the_field_on_a_grid(model: TripoSR):
    planes = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    size = 12
    grid = GridField(planes, model.decoder, size, Chunks(100))
    axis = torch.linspace(-1, 1, size) * TINY.radius
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    wanted = field.query(planes, model.decoder, points, TINY.radius)[:, 0]
    torch.testing.assert_close(grid(torch.arange(size**3)), wanted, rtol=1e-4, atol=1e-5)
    where = torch.tensor([5, 700, 31])
    torch.testing.assert_close(grid(where), wanted[where], rtol=1e-4, atol=1e-5)


def test_no_surface_no_faces():
    values = torch.ones(4, 4, 4)
    empty = Sparse(values, torch.zeros(3, 3, 3, dtype=torch.bool), 0)
    vertices, faces = march(empty, 1.0)
    assert vertices.shape == faces.shape == (0, 3)


def test_an_object_fainter_than_the_threshold_is_meshed_where_it_is_densest(ball):
    whole = ball.generate(picture(), settings()).surface.bounds
    faint = ball.generate(picture(), settings(density_threshold=10_000.0)).surface.bounds
    assert np.ptp(faint, axis=0).max() < np.ptp(whole, axis=0).max()
    ball.model.config = replace(TINY, density_bias=-19.0)  # at most exp(20 - 19)
    rescued = ball.generate(picture(), settings()).surface
    assert len(rescued.faces)
    ball.model.config = replace(TINY, density_bias=-60.0)
    with pytest.raises(XRayError, match="greatest density") as caught:
        ball.generate(picture(), settings())
    assert caught.value.code == "nothing_predicted"


def test_seeking_and_following_the_surface_can_be_cancelled(model):
    """Also within one pass over many points, which takes a slow machine minutes."""
    pieces = []

    def alive():
        pieces.append(1)
        if len(pieces) == 3:
            raise Cancelled

    planes = torch.randn(3, TINY.plane_channels, 8, 8)
    field = GridField(planes, model.decoder, 33, Chunks(10_000), alive)
    with pytest.raises(Cancelled):
        field(torch.arange(33**3))
    assert len(pieces) == 3

    def ball_with_a_thread(index):
        x, y, z = index // 33**2, index // 33 % 33, index % 33
        ball = (x - 8) ** 2 + (y - 8) ** 2 + (z - 8) ** 2 < 10
        return (ball | ((y == 9) & (z == 9) & (x > 8))).float() - 0.5

    asked = []
    sample_surface(ball_with_a_thread, 33, 0.0, planes.device, lambda step, _of: asked.append(step))
    assert asked.count(3) > 3  # each time that it is followed further


def test_the_generators_work_on_points_hears_of_a_cancel(model, folder):
    generator = TripoSRGenerator.load(str(folder), "cpu")
    generator.chunks = Chunks(1024)
    planes = torch.randn(3, TINY.plane_channels, 8, 8)
    reports = []
    with contextlib.suppress(XRayError):  # noise may have no surface
        generator.surface(planes, 32, 1e-6, progress=reports.append)
    assert len([r for r in reports if r.message == "Seeking the surface"]) > 6


@pytest.mark.parametrize("stage", ["image", "predict", "mesh"])
def test_it_can_be_cancelled_at_every_stage(ball, stage: str):
    def stop(progress):
        if progress.stage == stage:
            raise Cancelled

    with pytest.raises(Cancelled):
        ball.generate(picture(), settings(), stop)


def test_the_network_the_colours_and_the_unwrapping_can_be_cancelled(folder, monkeypatch):
    """Each takes a slow machine long, and is seen of more than once."""
    monkeypatch.setattr("runtime.torch_helpers.interrupting.INTERVAL", 0.0)
    monkeypatch.setattr("runtime.triposr.generator._COLORED_AT_ONCE", 100)
    generator = TripoSRGenerator.load(str(folder), "cpu")
    planes = 3 * torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def ended_by(message: str, count: int, work) -> None:
        seen = []

        def stop(progress) -> None:
            seen.append(progress.message == message)
            if sum(seen) == count:
                raise Cancelled

        with pytest.raises(Cancelled):
            work(stop)

    ended_by("Predicting the field", 3, lambda p: generator.encode(picture(), progress=p))
    ended_by("Colouring the mesh", 3, lambda p: generator.surface(planes, 32, 0.3, progress=p))
    ended_by(
        "Unwrapping the mesh and baking its texture",
        3,
        lambda p: generator.surface(planes, 32, 0.3, texture_size=64, progress=p),
    )
    assert not any(module._forward_pre_hooks for module in generator.model.modules())


def test_of_another_systems_settings_it_takes_what_it_has_and_refuses_the_rest(ball):
    usual = ball.generate(picture(), settings(grid_resolution=256)).surface
    other = ball.generate(picture(), GenerateSettings(seed=1)).surface
    np.testing.assert_array_equal(usual.vertices, other.vertices)
    with pytest.raises(XRayError, match="variation is a setting of X-Ray, not of TripoSR"):
        ball.generate(picture(), GenerateSettings(variation=1.0))


def test_a_transparent_image_is_told(ball):
    with pytest.raises(XRayError) as caught:
        ball.generate(np.zeros((32, 32, 4), np.uint8), settings())
    assert caught.value.code == "no_object"
    line = np.zeros((32, 32, 4), np.uint8)
    line[16, 4:28] = 255
    with pytest.raises(XRayError, match="a line") as caught:
        ball.generate(line, settings())
    assert caught.value.code == "no_object"


def test_a_prepared_picture_is_square_grey_and_filled_by_the_object():
    rgb = prepare(picture())
    assert rgb.shape[0] == rgb.shape[1]
    assert (rgb[0] == 127).all()
    rows = np.flatnonzero((rgb != 127).any(axis=(1, 2)))
    assert len(rows) / len(rgb) == pytest.approx(0.85, abs=0.03)


# ------------------------------------------------------------------------------ textures


def test_a_baked_texture_shows_the_colours_of_the_field(ball):
    baked = ball.generate(picture(), settings(grid_resolution=40, texture_size=256)).surface
    plain = ball.generate(picture(), settings(grid_resolution=40)).surface
    np.testing.assert_array_equal(baked.faces, plain.faces)
    assert baked.corner_colors is None
    assert baked.materials[0].texture.shape == (256, 256, 3)
    camera = Camera.look_at((1, -2, 1), fov_x=0.5, width=64, height=64)
    seen, wanted = cast(baked, camera, 1), cast(plain, camera, 1)
    np.testing.assert_array_equal(seen.hit, wanted.hit)
    assert np.abs(seen.hit_color - wanted.hit_color).mean() < 0.01


def test_charts_do_not_overlap_and_keep_the_faces_order():
    torus = trimesh.creation.torus(0.6, 0.2, 24, 12)
    uvs = unwrap(np.asarray(torus.vertices, np.float32), np.asarray(torus.faces), 128)
    assert uvs.shape == (len(torus.faces), 3, 2)
    assert uvs.min() >= 0
    assert uvs.max() <= 1
    layers = cast_uvs(uvs, 128, 2).hits_per_layer
    assert layers[0] > 0.3 * 128**2
    assert layers[1] == 0
    # Each face's shape in the atlas is like its own: edges keep their order.
    edges = np.linalg.norm(np.diff(torus.vertices[torus.faces], axis=1), axis=2)
    flat = np.linalg.norm(np.diff(uvs, axis=1), axis=2)
    assert np.corrcoef(edges.ravel(), flat.ravel())[0, 1] > 0.9


# ------------------------------------------------------------------------------ files


def test_weights_come_back_from_both_formats(model: TripoSR, folder: Path):
    torch.save(model.state_dict(), folder / "model.ckpt")
    for path in (folder, folder / "model.ckpt", folder / "model.safetensors"):
        loaded = load_weights(path)
        assert loaded.config == TINY
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)
    (folder / "model.safetensors").unlink()
    assert load_weights(folder).config == TINY


def refused(path: Path) -> XRayError:
    with pytest.raises(XRayError) as caught:
        runtime.load("triposr", str(path), "cpu")
    assert caught.value.remedy
    return caught.value


def test_missing_files_are_named(folder: Path):
    (folder / "config.yaml").rename(folder / "other.yaml")
    error = refused(folder)
    assert error.code == "missing_weights"
    assert "lacks config.yaml" in error.message
    (folder / "other.yaml").rename(folder / "config.yaml")
    (folder / "model.safetensors").unlink()
    error = refused(folder)
    assert error.code == "missing_weights"
    assert "lacks model.ckpt or model.safetensors" in error.message
    assert refused(folder / "nowhere").code == "missing_weights"


def test_without_weights_it_is_said_which_files_to_get_and_where(tmp_path, monkeypatch):
    monkeypatch.setenv("XRAY_CHECKPOINTS", str(tmp_path))
    with pytest.raises(XRayError) as caught:
        runtime.load("triposr", None, "cpu")
    assert caught.value.code == "missing_weights"
    for wanted in ("model.ckpt", "config.yaml", str(tmp_path)):
        assert wanted in str(caught.value)


def test_the_weights_of_another_model(folder: Path):
    save_file({"unet.conv.weight": torch.zeros(3)}, folder / "model.safetensors")
    error = refused(folder)
    assert "another model" in error.message
    assert "unet.conv.weight" in error.message


def test_missing_and_extra_keys_are_named(model: TripoSR, folder: Path):
    state = model.state_dict()
    del state["tokenizer.embeddings"]
    save_file(state, folder / "model.safetensors")
    assert "1 missing (tokenizer.embeddings)" in refused(folder).message
    state = model.state_dict() | {"surplus.weight": torch.zeros(1)}
    save_file(state, folder / "model.safetensors")
    assert "1 unexpected (surplus.weight)" in refused(folder).message
    state = model.state_dict() | {"tokenizer.embeddings": torch.zeros(3, 32, 5, 5)}
    save_file(state, folder / "model.safetensors")
    assert "tokenizer.embeddings is (3, 32, 5, 5), not (3, 32, 4, 4)" in refused(folder).message


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_told(model: TripoSR, folder: Path, name: str, kept: float):
    torch.save(model.state_dict(), folder / "model.ckpt")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(kept * len(content))])
    error = refused(folder / name)
    assert error.code == "bad_weights"
    assert "damaged or incomplete" in error.message


class Attack:
    """A pickle of it runs a command when it is read without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"echo run > {self.target}",)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_unrun(folder: Path, tmp_path, container: str):
    target = tmp_path / "ran"
    path = folder / "model.ckpt"
    if container == "torch":
        torch.save({"a": Attack(target)}, path)
    else:
        path.write_bytes(pickle.dumps({"a": Attack(target)}, protocol=2))
    error = refused(path)
    assert error.code == "unsafe_weights"
    assert "run code" in error.message
    assert not target.exists()


def test_a_trainings_checkpoint_is_no_table_of_tensors(model: TripoSR, folder: Path):
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, folder / "model.ckpt")
    assert "not a plain table of tensors" in refused(folder / "model.ckpt").message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tsr.models.nerf_renderer.TriplaneNeRFRenderer", "sf3d.Renderer", "renderer_cls"),
        ("in_channels: 12", "in_channels: 13", "decoder.in_channels is 13"),
        ("density_activation: exp", "density_activation: softplus", "density_activation"),
        ("num_layers: 1", "layer_count: 1", "num_layers"),
        ("activation: silu", "activation: tanh", "tanh"),
    ],
)
def test_the_configuration_of_another_model(folder: Path, old: str, new: str, message: str):
    path = folder / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    error = refused(folder)
    assert error.code == "bad_weights"
    assert "another model" in error.message
    assert message in error.message


@pytest.mark.parametrize("content", [b"", b"a: [", b"\xff\xfe\x00", b"- 1"])
def test_a_configuration_that_cannot_be_read(folder: Path, content: bytes):
    (folder / "config.yaml").write_bytes(content)
    error = refused(folder)
    assert error.code == "bad_weights"
    assert "cannot be read" in error.message


def test_an_unknown_image_encoder_needs_its_configuration(folder: Path):
    (folder / "dino" / "config.json").unlink()
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("facebook/dino-vitb16", "somebody/vit"))
    assert "dino/config.json" in refused(folder).message


def test_importing_it_is_quick_and_quiet():
    code = (
        "import sys, runtime.triposr.generator; "
        "assert not {'diffusers', 'transformers', 'rembg', 'onnxruntime', 'huggingface_hub'} "
        "& set(sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# ------------------------------------------------------------------------------ memory


def limited(most: int, calls: list[int]):
    def work(items: torch.Tensor) -> torch.Tensor:
        calls.append(len(items))
        if len(items) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return items * 2

    return work


def test_chunks_shrink_until_they_fit_and_stay_so():
    calls: list[int] = []
    chunks = Chunks(100_000)
    items = torch.arange(50_000)
    assert torch.equal(chunks(limited(7000, calls), items), items * 2)
    assert chunks.size <= 7000
    calls.clear()
    chunks(limited(7000, calls), items)
    assert max(calls) <= 7000


def test_chunks_that_never_fit_say_what_to_do():
    calls: list[int] = []
    with pytest.raises(XRayError, match="mesh resolution") as caught:
        Chunks(100_000)(limited(0, calls), torch.arange(50_000))
    assert caught.value.code == "out_of_memory"
    assert min(calls) == LEAST


def test_other_errors_are_no_lack_of_memory():
    def broken(_items):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        Chunks(100)(broken, torch.arange(10))


def test_a_mesh_is_made_with_little_memory(folder: Path, monkeypatch):
    """The whole generator, on a device where a field query of more than 5000 points fails."""
    generator = runtime.load("triposr", str(folder), "cpu")
    planes = 3 * torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    threshold = float(generator.query(planes, points)[0].median())
    wanted = generator.surface(planes, 40, threshold)
    real = GridField._evaluate

    def evaluate(self, index):
        if len(index) > 5000:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, index)

    monkeypatch.setattr(GridField, "_evaluate", evaluate)
    got = generator.surface(planes, 40, threshold)
    np.testing.assert_array_equal(got.faces, wanted.faces)
    np.testing.assert_allclose(got.vertices, wanted.vertices, atol=1e-6)


def test_a_grid_that_does_not_fit_says_what_to_do(ball, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("runtime.triposr.generator.GridField", fail)
    with pytest.raises(XRayError, match="mesh resolution") as caught:
        ball.generate(picture(), settings())
    assert caught.value.code == "out_of_memory"


def test_a_network_that_does_not_fit_says_what_it_needs(folder: Path, monkeypatch):
    generator = runtime.load("triposr", str(folder), "cpu")

    def fail(_image):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(generator.model, "forward", fail)
    with pytest.raises(XRayError, match="6 GB") as caught:
        generator.generate(picture(), settings())
    assert caught.value.code == "out_of_memory"


def test_density_is_never_negative_and_grows_with_the_raw_value():
    raw = torch.tensor([-50.0, 0.0, 3.0])
    values = field.density(raw, -1.0)
    assert values[1] == pytest.approx(math.exp(-1))
    assert (values >= 0).all()
    assert (values.diff() > 0).all()
