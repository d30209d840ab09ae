"""TripoSR's training: samples, loss, checkpoints."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import runtime
from runtime.meshes.collection import list_meshes
from runtime.training import trainer_module
from runtime.triposr.data import PairConfig, PairDataset, place
from runtime.triposr.perceptual import LINEAR_FILE, VGG_FILE, PerceptualDistance
from runtime.triposr.preparation import prepare
from runtime.triposr.training import Trainer, TrainingConfig, train
from xray_addon import GenerateSettings, XRayError
from xray_addon.progress import Cancelled
from xray_addon.surface import Surface

TINY = {
    "image_size": 32,
    "plane_size": 4,
    "channels": 32,
    "heads": 2,
    "head_size": 16,
    "layers": 1,
    "plane_channels": 4,
    "neurons": 16,
    "hidden_layers": 2,
    "ray_samples": 16,
    "vit": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "patch_size": 8,
        "image_size": 32,
    },
}


@pytest.fixture
def config() -> TrainingConfig:
    return TrainingConfig(
        network=TINY,
        batch=2,
        samples=12,
        warmup=0.3,
        learning_rate=3e-3,
        views=2,
        view_size=16,
        patch_size=8,
        workers=0,
    )


def samples(meshes: Path, count: int, seed: int = 0, first: int = 0) -> list[dict]:
    pairs = PairDataset(list_meshes(meshes), PairConfig(32, 2, 32, 16), seed=seed)
    return [pairs.sample(first + number) for number in range(count)]


def batch_of(items: list[dict]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def test_samples_depend_on_seed_and_number_alone(meshes: Path):
    (first, second), (again,) = samples(meshes, 2), samples(meshes, 1, first=1)
    (other,) = samples(meshes, 1, seed=1)
    assert all(torch.equal(second[name], again[name]) for name in second)
    assert not torch.equal(first["image"], other["image"])


def test_rays_meet_the_object_where_the_views_show_it(meshes: Path):
    """A ball's silhouette and its rays are known: pose and picture must belong together."""
    ball = meshes / "ball.glb"
    pairs = PairDataset(list_meshes(meshes), PairConfig(32, 3, 32, 32), seed=0)
    pairs.meshes.files[:] = [f for f in pairs.meshes.files if f.path == ball] * 3
    sample = pairs.sample(0)
    origins, directions = sample["origins"], sample["directions"]
    along = -(origins * directions).sum(-1, keepdim=True)
    distance = (origins + along * directions).norm(dim=-1)
    radius = 0.55
    inside, outside = distance < radius - 0.05, distance > radius + 0.05
    assert inside.any()
    assert sample["alpha"][inside].min() == 1
    assert sample["alpha"][outside].max() == 0
    assert sample["color"][outside].min() == 1


def test_the_object_is_turned_and_fits_the_box(meshes: Path):
    corners = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 0.2, 0], [0, 0, 0.1]])
    placed = place(Surface(corners, np.array([[0, 1, 2], [0, 1, 3]])), math.pi / 2)
    assert placed.vertices[0] @ [0, 1, 0] == pytest.approx(0.55)
    assert np.abs(placed.vertices).max() < 0.87


def test_a_model_learns_one_batch(config: TrainingConfig, meshes: Path):
    trainer = Trainer(replace(config, samples=1000, warmup=0.004), "cpu")
    batch = batch_of(samples(meshes, 2))
    first = trainer.step(batch)
    for _ in range(40):
        last = trainer.step(batch)
    assert last["color"] < 0.7 * first["color"]
    assert last["mask"] < 0.8 * first["mask"]


def test_the_loss_is_zero_only_for_the_truth(config: TrainingConfig, meshes: Path, monkeypatch):
    trainer = Trainer(config, "cpu")
    batch = batch_of(samples(meshes, 2))
    truth = batch["color"], batch["alpha"]
    monkeypatch.setattr(trainer, "render", lambda _: truth)
    exact = trainer.losses(batch)
    assert float(exact["color"]) == 0
    monkeypatch.setattr(trainer, "render", lambda _: (truth[0] * 0.9, truth[1] * 0.9))
    worse = trainer.losses(batch)
    assert float(worse["color"]) > 0
    assert float(worse["mask"]) > float(exact["mask"])


def test_a_run_leaves_a_folder_that_generates_and_resumes(config, meshes, tmp_path: Path):
    whole = train(config, meshes, tmp_path / "whole")
    part = train(replace(config), meshes, tmp_path / "part", minutes=0.0)
    assert part.samples == config.batch
    resumed = train(config, meshes, tmp_path / "part", resume=True)
    assert resumed.samples == whole.samples == config.samples
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    generator = runtime.load("triposr", str(tmp_path / "whole"), "cpu")
    assert generator.model.config == config.model_config()
    picture = np.zeros((40, 40, 4), np.uint8)
    picture[10:30, 12:28] = 200
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    density, _ = generator.query(generator.predict(prepare(picture)), points)
    settings = GenerateSettings(
        generator="triposr", grid_resolution=32, density_threshold=float(density.median())
    )
    assert len(generator.generate(picture, settings).surface.faces)
    warm = Trainer(replace(config, start_from=str(tmp_path / "whole")), "cpu")
    for a, b in zip(whole.model.parameters(), warm.model.parameters(), strict=True):
        assert torch.equal(a, b)
        assert b.requires_grad
    with pytest.raises(XRayError, match="--resume"):
        train(config, meshes, tmp_path / "whole")
    with pytest.raises(XRayError) as caught:
        train(config, meshes, tmp_path / "none", resume=True)
    assert caught.value.code == "bad_checkpoint"


def test_published_weights_to_start_from_are_those_that_were_downloaded(
    config, tmp_path, monkeypatch
):
    monkeypatch.setenv("XRAY_CHECKPOINTS", str(tmp_path))
    with pytest.raises(XRayError) as caught:
        Trainer(replace(config, start_from="triposr"), "cpu")
    assert "runtime download triposr" in caught.value.remedy


def test_training_stops_when_told_and_leaves_a_checkpoint(config, meshes, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "log_steps", 1)

    def stop(_progress):
        raise Cancelled

    with pytest.raises(Cancelled):
        train(config, meshes, tmp_path, progress=stop)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *("checkpoint.pt", "config.yaml", "dino", "metrics.jsonl", "model.safetensors"),
        "tensorboard",
    }
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert {"loss", "color", "mask", "samples", "rate"} <= line.keys()


def test_configurations_are_checked(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(asdict(TrainingConfig(batch=3, network=TINY))))
    assert TrainingConfig.read(path).model_config().vit.hidden_size == 32
    for content in (
        "",
        "[]",
        '{"bach": 4}',
        '{"network": {"chanels": 4}}',
        '{"batch": "8"}',
        '{"samples": 0}',
        '{"patch_size": 65}',
    ):
        path.write_text(content)
        with pytest.raises(XRayError) as caught:
            TrainingConfig.read(path)
        assert caught.value.code == "bad_config"


def test_the_shipped_configuration_is_sound():
    shipped = Path(runtime.__file__).parent / "triposr" / "config.json"
    assert trainer_module(shipped).TrainingConfig is TrainingConfig
    Trainer(TrainingConfig.read(shipped), "cpu")


def test_a_configuration_names_its_generator(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text('{"generator": "magic"}')
    with pytest.raises(XRayError) as caught:
        trainer_module(path)
    assert caught.value.code == "unknown_generator"
    path.write_text('{"batch": 3}')
    assert trainer_module(path).__name__ == "runtime.xray.training"


def lpips_files(folder: Path, seed: int = 0) -> PerceptualDistance:
    """Random weights in the published files, and the model they make."""
    torch.manual_seed(seed)
    model = PerceptualDistance()
    vgg = {f"features.{name}": t for name, t in model.features.state_dict().items()}
    torch.save(vgg | {"classifier.0.weight": torch.zeros(1)}, folder / VGG_FILE)
    linear = {f"lin{i}.model.1.weight": torch.rand_like(w) for i, w in enumerate(model.linear)}
    torch.save(linear, folder / LINEAR_FILE)
    return model


def test_lpips_counts_where_its_weights_are_there(config, meshes, tmp_path: Path):
    lpips_files(tmp_path)
    distance = PerceptualDistance.load(tmp_path)
    first, second = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert float(distance(first, first)) == 0
    assert float(distance(first, second)) == float(distance(second, first)) > 0
    with pytest.raises(XRayError, match="patch_size"):
        Trainer(replace(config, lpips_folder=str(tmp_path)), "cpu")
    trainer = Trainer(
        replace(config, lpips_folder=str(tmp_path), patch_size=16, view_size=16), "cpu"
    )
    assert trainer.step(batch_of(samples(meshes, 1)))["lpips"] > 0
    (tmp_path / LINEAR_FILE).write_bytes(b"no weights")
    with pytest.raises(XRayError) as caught:
        PerceptualDistance.load(tmp_path)
    assert caught.value.code == "bad_weights"
    (tmp_path / LINEAR_FILE).unlink()
    with pytest.raises(XRayError, match="train without") as caught:
        PerceptualDistance.load(tmp_path)
    assert caught.value.code == "missing_weights"


def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(config, tmp_path, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full to stand for a full disk")
    trainer = Trainer(config, "cpu")
    trainer.save(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    class Full:
        """Everything written through it meets the end of the disk, with the system's own error."""

        def __init__(self, path):
            self.path = path

        def __enter__(self):
            return Path("/dev/full")

        def __exit__(self, *_):
            return None

    for module in ("training.trainer", "triposr.weights"):
        with monkeypatch.context() as patch:
            patch.setattr(f"runtime.{module}.replacing", Full)
            with pytest.raises(XRayError, match="full") as caught:
                trainer.save(tmp_path)
            assert caught.value.code == "no_space"
        if module == "training.trainer":
            assert {p: p.read_bytes() for p in before} == before
