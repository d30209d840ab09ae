"""Slice3D's networks, their files and their training, at a size that a test can afford."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trimesh

from runtime.slice3d.data import SliceData, SliceDataset
from runtime.slice3d.diffusion import Schedule, SliceDiffusion
from runtime.slice3d.networks import GTSliceNet, NetworkConfig, SliceNet, project
from runtime.slice3d.perceptual import SliceLoss, load_slice_loss
from runtime.slice3d.training import Trainer, TrainingConfig, train
from runtime.slice3d.unet import DiffusionConfig, from_grid, to_grid
from runtime.slice3d.weights import load_diffusion, load_field, load_regression, save_network
from runtime.torch_helpers.tensors import read_pickle
from xray_addon import Surface, XRayError
from xray_addon.files.png import write_png
from xray_addon.pictures.shading import shade_surface
from xray_addon.slices.layout import (
    IMAGES,
    SDFS,
    SLICES,
    Views,
    distance_samples,
    write_distances,
    write_slices,
    write_splits,
)
from xray_addon.slices.slicing import slice_surface
from xray_addon.systems.slice3d import Slice3DSettings

SMALL_CONFIG = NetworkConfig(32, (8, 8, 16, 16, 16), 16, 4, 32, 2)
SMALL = {n: list(v) if isinstance(v, tuple) else v for n, v in vars(SMALL_CONFIG).items()}
SMALL_DIFFUSION = {
    "image_size": 32,
    "channels": 32,
    "multipliers": [1, 1, 1, 2, 2],
    "heads": 2,
    "vgg_channels": [8, 8, 16, 16, 16],
    "first_stage": [32, 32, 32, 32],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two objects from two sides in the published layout."""
    folder = tmp_path_factory.mktemp("data")
    shapes = {"ball": trimesh.creation.icosphere(2), "box": trimesh.creation.box((1, 0.6, 0.8))}
    for uid, mesh in shapes.items():
        surface = Surface(mesh.vertices, mesh.faces)
        views = Views.drawn(2, seed=len(uid), size=64)
        placed = surface.transformed(views.placed(surface))
        for number, camera in enumerate(views.cameras):
            write_png(folder / IMAGES / uid / f"{number:03d}.png", shade_surface(placed, camera))
            pictures = slice_surface(placed, camera).pictures()
            write_slices(folder / SLICES / uid / f"{number:03d}", pictures)
        views.write(folder / IMAGES / uid)
        write_distances(folder / SDFS / f"{uid}.npy", distance_samples(surface, 0, 500))
    write_splits(folder, {"train": list(shapes), "val": ["box"]})
    return folder


@pytest.mark.parametrize("network", [SliceNet, GTSliceNet])
def test_features_can_go_through_the_first_layer_before_or_after_they_are_sampled(network):
    torch.manual_seed(0)
    model = network(SMALL_CONFIG).eval()
    points = torch.rand(2, 50, 3) - 0.5
    with torch.no_grad():
        if network is SliceNet:
            maps, slices = model.encode(torch.rand(2, 3, 32, 32))
            assert slices.shape == (2, 12, 3, 32, 32)
        else:
            maps = model.encode(torch.rand(2, 12, 3, 32, 32))
        direct = model.distance(maps, points)
        assert direct.shape == (2, 50)
        tables = model.distance_by_tables(model.tables(maps), points)
    torch.testing.assert_close(tables, direct, rtol=1e-4, atol=1e-5)


def test_only_a_network_without_dropout_repeats_itself_in_training():
    images, points = torch.rand(1, 3, 32, 32), torch.rand(1, 50, 3) - 0.5
    for dropout in (0.0, 0.5):
        torch.manual_seed(0)
        model = SliceNet(replace(SMALL_CONFIG, dropout=dropout))
        maps, _ = model.encode(images)
        first, again = model.distance(maps, points), model.distance(maps, points)
        assert torch.equal(first, again) == (dropout == 0)
    with pytest.raises(ValueError, match="dropout"):
        replace(SMALL_CONFIG, dropout=1.0)


def test_networks_are_made_without_torchvision_or_a_connection(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delattr(socket, "socket")
    for network in (SliceNet, GTSliceNet):
        network(SMALL_CONFIG)
    SliceDiffusion(DiffusionConfig(**tupled(SMALL_DIFFUSION)))
    SliceLoss()


def test_points_are_projected_as_the_published_camera_sees_them():
    # The image's right border is 32/35 x 1.2 / 2 off the middle, at the middle's distance.
    edge = 1.2 / (2 * 35 / 32)
    points = torch.tensor([[0, 0, 0], [edge, 0, 0], [0, edge / 2, 0], [9, 0, 0]], dtype=torch.float)
    wanted = torch.tensor([[0, 0], [1, 0], [0, 0.5], [1, 0]], dtype=torch.float)
    torch.testing.assert_close(project(points), wanted)


def test_a_grid_of_latents_has_rows_x_z_y_and_an_empty_one():
    latents = torch.arange(12.0).view(1, 12, 1, 1, 1).expand(1, 12, 4, 2, 2)
    grid = to_grid(latents)
    assert grid.shape == (1, 4, 8, 8)
    rows = grid[0, 0, ::2, ::2].tolist()
    assert rows == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [0, 0, 0, 0]]
    assert torch.equal(from_grid(grid), latents)


@pytest.mark.parametrize("steps", [2, 7, 126, 167, 200, 334, 500])
def test_schedules_run_from_noise_to_the_first_step(steps):
    schedule = Schedule.of(steps)
    assert len(schedule.steps) == steps
    assert schedule.steps[0] == 1
    assert schedule.steps[-1] == 996  # the noisiest of the published 200
    assert schedule.steps.diff().max() - schedule.steps.diff().min() <= 1
    assert (schedule.alphas.diff() < 0).all()
    # Without noise a step keeps the spread: alphas and what is left add up to one.
    assert (1 - schedule.alphas_before - schedule.sigmas**2 >= -1e-7).all()


def test_a_single_step_is_the_noisiest():
    assert Schedule.of(1).steps.tolist() == [996]


def test_too_many_steps_are_refused():
    with pytest.raises(XRayError, match="500"):
        Slice3DSettings(branch="generation", steps=501)
    with pytest.raises(ValueError, match="steps"):
        Schedule.of(501)


def test_the_sampler_finds_the_picture_that_a_perfect_denoiser_knows():
    wanted = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    model = SliceDiffusion(DiffusionConfig(**tupled(SMALL_DIFFUSION)))
    schedule = Schedule.of(25)

    def perfect(grid, steps, *_):
        alpha = schedule.alphas[schedule.steps == steps[0]]
        return (grid - alpha.sqrt() * wanted) / (1 - alpha).sqrt()

    model.unet.forward = perfect
    random = torch.Generator().manual_seed(1)
    told = []
    made = model.sample(
        (None, []),
        schedule,
        lambda _: torch.randn(wanted.shape, generator=random),
        report=lambda done, expected: told.append((done, expected)),
    )
    assert [done for done, _ in told] == list(range(1, 26))
    torch.testing.assert_close(told[-1][1], wanted, atol=1e-4, rtol=1e-4)
    assert (made - wanted).abs().mean() < 0.1


def tupled(size: dict) -> dict:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in size.items()}


def test_samples_repeat_and_go_through_all_objects(data, monkeypatch):
    objects = SliceData(data, "train", size=32, background="black")
    dataset = SliceDataset(objects, 100, seed=5)
    sample = dataset.sample(3)
    assert {name: tuple(t.shape) for name, t in sample.items()} == {
        "image": (3, 32, 32),
        "slices": (12, 3, 32, 32),
        "points": (100, 3),
        "distances": (100,),
    }
    again = SliceDataset(objects, 100, seed=5).sample(3)
    assert all(torch.equal(sample[name], again[name]) for name in sample)
    assert sample["image"].min() == -1  # black behind the object
    monkeypatch.setattr(objects, "sample", lambda uid, *_: uid)
    for epoch in range(4):
        assert {dataset.sample(2 * epoch), dataset.sample(2 * epoch + 1)} == {"ball", "box"}


def test_a_broken_data_set_is_told(data, tmp_path):
    with pytest.raises(XRayError) as caught:
        SliceData(tmp_path, "train", size=32, background="black")
    assert caught.value.code == "no_data"
    write_splits(tmp_path, {"train": ["lost"]})
    with pytest.raises(XRayError) as caught:
        SliceDataset(SliceData(tmp_path, "train", size=32, background="black"), 8, seed=0).sample(0)
    assert caught.value.code == "bad_dataset"


@pytest.mark.parametrize("network", ["regression", "gt_to_3d"])
def test_training_learns_saves_and_resumes(data, tmp_path, network):
    config = TrainingConfig(network=network, size=SMALL, batch=2, queries=64, epochs=30, workers=0)
    trainer = train(config, data, tmp_path)
    assert trainer.samples == 60
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["distance"] < 0.2
    path = tmp_path / f"{network}.safetensors"
    loaded = (load_regression if network == "regression" else load_field)(path)
    assert loaded.config == SMALL_CONFIG
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    longer = TrainingConfig(**{**vars(config), "epochs": 40})
    assert train(longer, data, tmp_path, resume=True).samples == 80
    with pytest.raises(XRayError) as caught:
        train(config, data, tmp_path)
    assert caught.value.code == "bad_settings"


def test_weights_without_their_checkpoint_are_neither_overwritten_nor_resumed(data, tmp_path):
    config = TrainingConfig(size=SMALL, batch=2, queries=8, epochs=1, workers=0)
    Trainer(config, "cpu").save(tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    before = (tmp_path / "regression.safetensors").read_bytes()
    with pytest.raises(XRayError) as caught:
        train(config, data, tmp_path)
    assert caught.value.code == "bad_settings"
    with pytest.raises(XRayError, match=r"without checkpoint\.pt") as caught:
        train(config, data, tmp_path, resume=True)
    assert caught.value.code == "bad_checkpoint"
    assert (tmp_path / "regression.safetensors").read_bytes() == before


@pytest.mark.parametrize("network", ["regression", "gt_to_3d", "diffusion", "autoencoder"])
def test_settings_that_no_network_uses_are_refused(network):
    for name in ("warmup", "final_rate", "weight_decay"):
        if (network, name) == ("diffusion", "weight_decay"):
            assert TrainingConfig(network=network, weight_decay=0.5).weight_decay == 0.5
            continue
        with pytest.raises(ValueError, match=name):
            TrainingConfig(network=network, **{name: 0.5})


def test_the_learning_rate_is_halved_as_published():
    config = TrainingConfig.read(Path("runtime/slice3d/gt_to_3d.json"))
    assert (config.batch, config.queries, config.learning_rate) == (16, 256, 3e-4)
    small = TrainingConfig(**{**vars(config), "size": SMALL})
    trainer = Trainer(small, "cpu")
    trainer.objects = 10
    rates = []
    for epoch in (0, 99, 100, 250):
        trainer.samples = epoch * 10
        rates.append(trainer.learning_rate())
    assert rates == [3e-4, 3e-4, 1.5e-4, 0.75e-4]


def test_slices_can_weigh_more_than_distances():
    terms = {"distance": torch.tensor(0.2), "slices": torch.tensor(0.1)}
    for options, wanted in (({}, 0.3), ({"slices_weight": 30.0}, 3.2)):
        trainer = Trainer(TrainingConfig(size=SMALL, **options), "cpu")
        assert float(trainer.total(terms)) == pytest.approx(wanted)


def test_the_diffusion_trains_on_its_own_autoencoder(data, tmp_path):
    options = {"size": SMALL_DIFFUSION, "batch": 1, "queries": 1, "epochs": 1, "workers": 0}
    options["split"] = "val"
    train(TrainingConfig(network="autoencoder", **options), data, tmp_path / "first")
    first = str(tmp_path / "first" / "autoencoder.safetensors")
    config = TrainingConfig(network="diffusion", first_stage=first, **options)
    trainer = train(config, data, tmp_path / "second")
    model = load_diffusion(tmp_path / "second" / "diffusion.safetensors")
    # What is kept are the averaged weights, with the autoencoder and its scale.
    for name, tensor in trainer.averaged.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert float(model.scale) != 1
    encoded = model.encode(torch.rand(4, 3, 32, 32) * 2 - 1)
    assert encoded.shape == (4, 4, 4, 4)


@pytest.mark.parametrize("size", [32, 64])
def test_smaller_pictures_can_be_sampled(size):
    torch.manual_seed(0)
    model = SliceDiffusion(DiffusionConfig(**tupled(SMALL_DIFFUSION | {"image_size": size})))
    grid = torch.zeros(model.grid_shape())
    with torch.inference_mode():
        condition = model.condition(torch.zeros(1, 3, size, size))
        assert model.unet(grid, torch.tensor([5]), *condition).shape == grid.shape
        assert model.decode(grid).shape == (1, 12, 3, size, size)


@pytest.mark.parametrize("size", [0, -128, 16, 96, 200])
def test_sizes_that_no_grid_of_tiles_has_are_refused(size):
    with pytest.raises(ValueError, match="multiple of 128"):
        DiffusionConfig(size)
    with pytest.raises(ValueError, match="64 channels"):
        DiffusionConfig(32, 32, (1, 1, 1, 1, 2))


def test_the_diffusion_says_that_it_needs_an_autoencoder(data, tmp_path):
    config = TrainingConfig(network="diffusion", size=SMALL_DIFFUSION, workers=0)
    with pytest.raises(XRayError, match="autoencoder") as caught:
        train(config, data, tmp_path)
    assert caught.value.code == "bad_config"
    config.first_stage = str(tmp_path / "none.ckpt")
    with pytest.raises(XRayError) as caught:
        train(config, data, tmp_path)
    assert caught.value.code == "missing_weights"


def test_the_published_loss_compares_by_weights_of_a_published_checkpoint(tmp_path):
    torch.manual_seed(0)
    state = {f"vggptlossfunc.vgg.{n}": t for n, t in SliceLoss().state_dict().items()}
    torch.save({"model": state | {"fc_p.bias": torch.zeros(1)}}, tmp_path / "reg.ckpt")
    loss = load_slice_loss(tmp_path / "reg.ckpt")
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    assert loss(picture, picture) == 0
    assert loss(picture, -picture) > 0
    torch.save({"model": {"fc_p.bias": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(XRayError, match="VGG19"):
        load_slice_loss(tmp_path / "other.ckpt")


def published(network: torch.nn.Module, extra: dict, path: Path) -> Path:
    torch.save({"model": network.state_dict() | extra, "opt": {}, "n_epoch": 1, "n_iter": 2}, path)
    return path


def test_a_checkpoint_of_another_branch_is_told_apart(tmp_path):
    save_network(tmp_path / "r.safetensors", SliceNet(SMALL_CONFIG), {})
    save_network(tmp_path / "f.safetensors", GTSliceNet(SMALL_CONFIG), {})
    assert load_regression(tmp_path / "r.safetensors").config == SMALL_CONFIG
    for load, name in ((load_regression, "f"), (load_field, "r"), (load_diffusion, "f")):
        with pytest.raises(XRayError, match="needed are") as caught:
            load(tmp_path / f"{name}.safetensors")
        assert caught.value.code == "other_weights"
    with pytest.raises(XRayError) as caught:
        load_regression(tmp_path / "none.ckpt")
    assert caught.value.code == "missing_weights"
    torch.save({"model": {"layer.weight": torch.zeros(1)}}, tmp_path / "x.ckpt")
    with pytest.raises(XRayError, match="another model") as caught:
        load_regression(tmp_path / "x.ckpt")
    assert caught.value.code == "bad_weights"


def test_published_names_must_fit_but_for_what_only_training_used(tmp_path):
    with torch.device("meta"):
        shapes = GTSliceNet().state_dict()
    state = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in shapes.items()}
    unused = {"fc_global.0.weight": torch.zeros(128, 256), "att_layer.norm1.bias": torch.zeros(128)}
    torch.save({"model": state | unused, "opt": {}}, tmp_path / "good.ckpt")
    assert "fc_global.0.weight" not in load_field(tmp_path / "good.ckpt").state_dict()
    for change, told in (
        ({"fc_out.1.weight": torch.zeros(1)}, "1 unexpected"),
        ({"fc_out.0.weight": torch.zeros(1, 7)}, "1 of another shape"),
    ):
        torch.save({"model": state | change}, tmp_path / "bad.ckpt")
        with pytest.raises(XRayError, match=told) as caught:
            load_field(tmp_path / "bad.ckpt")
        assert caught.value.code == "bad_weights"
    state.pop("fc_out.0.bias")
    torch.save({"model": state}, tmp_path / "bad.ckpt")
    with pytest.raises(XRayError, match="1 missing"):
        load_field(tmp_path / "bad.ckpt")


def test_lightning_classes_in_a_checkpoint_are_not_needed_and_not_run(tmp_path):
    module = type(torch)("pytorch_lightning.callbacks.model_checkpoint")
    kind = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = kind
    names = ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__)
    sys.modules.update(dict.fromkeys(names, module))
    try:
        content = {"state_dict": {"a": torch.ones(2)}, "callbacks": {kind: {"best": 1.0}}}
        torch.save(content, tmp_path / "l.ckpt")
    finally:
        for name in names:
            del sys.modules[name]
    assert torch.equal(read_pickle(tmp_path / "l.ckpt")["state_dict"]["a"], torch.ones(2))


def test_lack_of_memory_is_not_told_as_a_bad_file(tmp_path, monkeypatch):
    def out_of_memory(*_arguments, **_options):
        raise MemoryError

    save_network(tmp_path / "f.safetensors", GTSliceNet(SMALL_CONFIG), {})
    monkeypatch.setattr("runtime.slice3d.weights.safe_open", out_of_memory)
    with pytest.raises(MemoryError):
        load_field(tmp_path / "f.safetensors", "cpu")
