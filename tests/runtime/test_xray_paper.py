"""X-Ray at paper scale with networks small enough for a test: loading, generating, training."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from safetensors.torch import load_file, save_file

import runtime
from runtime.__main__ import main
from runtime.xray_paper import conditioning, training
from runtime.xray_paper import data as data_module
from runtime.xray_paper import generator as generating
from runtime.xray_paper import parts as loading
from runtime.xray_paper.data import ShuffledViews, Views, list_views
from runtime.xray_paper.denoiser import Denoiser
from runtime.xray_paper.generator import XRayPaperGenerator, published_camera
from runtime.xray_paper.parts import Parts, find_part
from runtime.xray_paper.training import (
    Trainer,
    TrainingConfig,
    diffusion_loss,
    train,
    upsampler_loss,
)
from xray_addon import GenerateSettings, Surface, XRayError, cast
from xray_addon.camera import Camera
from xray_addon.progress import Cancelled
from xray_addon.published import FAR, NEAR
from xray_addon.systems.xray_paper import XRayPaperSettings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests/demo/toadstool.png"

UNET = loading.FULL_UNET | {
    "block_out_channels": [32, 64],
    "cross_attention_dim": 16,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
    "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
    "num_attention_heads": [2, 4],
    "sample_size": 16,
}
UPSAMPLER = loading.FULL_UPSAMPLER | {"block_out_channels": [32, 32, 32], "layers_per_block": 1}
VAE = {
    "block_out_channels": [32, 32, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "out_channels": 3,
}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 56,
    "projection_dim": 16,
}
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}


def write_part(folder: Path, config: dict, model, name=loading.WEIGHTS, prefix="") -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    state = {prefix + key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / f"{name}.safetensors")


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """All parts in the published layout, tiny and with random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("published")
    unet = loading.new_unet(UNET)
    for parameter in unet.parameters():  # diffusers begins with steps that change nothing
        if parameter.ndim > 1:
            torch.nn.init.kaiming_uniform_(parameter, a=2)
    write_part(root / "Output/exp_diffusion/checkpoint-7/unet", UNET, unet)
    upsampler = loading.make_upsampler(UPSAMPLER)
    write_part(
        root / "Output/exp_upsampler/checkpoint-3/vae", UPSAMPLER, upsampler, prefix="decoder."
    )
    for folder, kind in (
        ("svd/vae", diffusers.AutoencoderKLTemporalDecoder),
        ("sdxl_vae", diffusers.AutoencoderKL),
    ):
        config = dict(VAE)
        if kind is diffusers.AutoencoderKL:
            config["up_block_types"] = ["UpDecoderBlock2D"] * 4
        named = config | {"_class_name": kind.__name__}
        write_part(root / folder, named, kind(**config))
    clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP))
    write_part(root / "svd/image_encoder", CLIP, clip, name="model")
    for folder, name, config in (
        ("scheduler", "scheduler_config.json", SCHEDULER),
        (
            "feature_extractor",
            "preprocessor_config.json",
            {"image_mean": [0.5] * 3, "image_std": [0.25] * 3},
        ),
    ):
        (root / "svd" / folder).mkdir()
        (root / "svd" / folder / name).write_text(json.dumps(config))
    return root


@pytest.fixture(autouse=True)
def _small_images(monkeypatch):
    for module in (conditioning, data_module, generating):
        monkeypatch.setattr(module, "IMAGE_SIZE", 128)


@pytest.fixture
def copy(published, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(published, tmp_path / "copy"))


@pytest.fixture(scope="session")
def generator(published) -> XRayPaperGenerator:
    return XRayPaperGenerator.load(str(published), "cpu")


def refused(code: str, work, *arguments, **options) -> XRayError:
    with pytest.raises(XRayError) as caught:
        work(*arguments, **options)
    assert caught.value.code == code, caught.value
    assert caught.value.remedy
    return caught.value


# ------------------------------------------------------------------------------------- generating


def test_the_whole_way_from_image_to_mesh(generator):
    seen = []
    result = generator.generate(REFERENCE, GenerateSettings(steps=2, seed=3), seen.append)
    assert len(result.surface.faces) > 0
    assert result.xray.shape == (8, 64, 64)
    assert (result.camera.width, result.camera.pixel_offset) == (64, 0)
    assert [p.stage for p in seen if p.step == p.of > 0] == ["sample", "mesh"]
    assert {p.stage for p in seen} == {"image", "condition", "sample", "upsample", "mesh"}
    again = generator.generate(REFERENCE, GenerateSettings(steps=2, seed=3))
    np.testing.assert_array_equal(again.xray.hit_depth, result.xray.hit_depth)
    other = generator.generate(REFERENCE, GenerateSettings(steps=2, seed=4))
    assert other.xray.hit_depth.shape != result.xray.hit_depth.shape or not np.array_equal(
        other.xray.hit_depth, result.xray.hit_depth
    )


def test_one_step_stands_for_the_usual_twenty_five(generator, monkeypatch):
    asked = []

    def sample(_conditions, noise, *, steps, progress):
        asked.append(steps)
        return noise[0]

    monkeypatch.setattr(generator, "sample", sample)
    monkeypatch.setattr(generator, "condition", lambda _: None)
    monkeypatch.setattr(generator, "upsampler", None)
    image = np.zeros((32, 32, 3), np.uint8)
    generator.generate_framed(image, XRayPaperSettings())
    generator.generate_framed(image, XRayPaperSettings(steps=9))
    generator.generate_framed(image, XRayPaperSettings(steps=1))  # a number is taken as it is
    assert asked == [25, 9, 1]


@pytest.mark.parametrize("stage", ["image", "condition", "sample", "upsample", "mesh"])
def test_it_can_be_cancelled_at_every_stage(generator, stage):
    def stop(progress):
        if progress.stage == stage:
            raise Cancelled

    with pytest.raises(Cancelled):
        generator.generate(REFERENCE, GenerateSettings(steps=2), stop)


@pytest.mark.parametrize("stage", ["condition", "sample", "upsample"])
def test_it_can_be_cancelled_within_a_pass_through_a_network(generator, stage, monkeypatch):
    """On a slow machine each takes minutes."""
    monkeypatch.setattr("runtime.torch_helpers.interrupting.INTERVAL", 0.0)
    seen = []

    def stop(progress):
        seen.append((progress.stage, progress.step) == (stage, 0))
        if sum(seen) == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        generator.generate(REFERENCE, GenerateSettings(steps=1), stop)


def test_the_command_line_takes_it(published, tmp_path, capsys):
    out = tmp_path / "out.glb"
    where = ["--checkpoint", str(published), "--xray", str(tmp_path / "x.npz"), "--device", "cpu"]
    how = ["--generator", "xray-paper", "--steps", "2", "--batch-order", "published", "--json"]
    code = main(["generate", str(REFERENCE), "-o", str(out), *where, *how])
    assert code == 0, capsys.readouterr().err
    assert out.read_bytes()[:4] == b"glTF"
    assert json.loads(capsys.readouterr().out)["settings"]["batch_order"] == "published"


def test_it_stands_upright():
    camera = published_camera(64)
    up = camera.camera_to_world[:3, 1]
    assert up[2] > 0.9  # the image's up is nearly the world's
    assert camera.position[1] < 0 < camera.position[2]
    assert np.linalg.norm(camera.position) == pytest.approx(1.2)


@torch.no_grad()
def test_the_faster_denoiser_has_the_same_numbers(published):
    plain = loading.load_unet(find_part(published, "unet"))
    fast = Denoiser(loading.load_unet(find_part(published, "unet")))
    random = torch.Generator().manual_seed(0)
    frames = torch.randn(2, 8, 8, 16, 16, generator=random)
    image = torch.randn(2, 4, 16, 16, generator=random)
    tokens = torch.randn(2, 1, 16, generator=random)
    time = torch.tensor(0.3)
    fast.condition(tokens, image)
    x = torch.cat([frames, image[:, None].expand(-1, 8, -1, -1, -1)], dim=2)
    want = plain(x, time, tokens, torch.tensor([[6.0, 127.0, 0.0]] * 2)).sample
    assert want.std() > 0.1
    torch.testing.assert_close(fast(frames, time), want, rtol=0, atol=1e-4)
    torch.testing.assert_close(fast.one_by_one(frames, time), want, rtol=0, atol=1e-4)
    fast.condition(tokens.flip(0), image)
    assert not torch.allclose(fast(frames, time), want, atol=1e-2)


# -------------------------------------------------------------------------------------- memory


def fails(times: int, real, error=torch.cuda.OutOfMemoryError):
    """`real`, out of memory the first `times` times."""
    left = [times]

    def work(*arguments, **options):
        if left[0] > 0:
            left[0] -= 1
            raise error("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(*arguments, **options)

    return work


def frames_of(generator, steps=2):
    conditions = generator.condition(np.full((64, 64, 3), 99, np.uint8))
    noise = torch.randn(generator.noise_shape, generator=torch.Generator().manual_seed(1))
    return generator.sample(conditions, noise, steps=steps)


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, RuntimeError])
def test_short_memory_makes_smaller_pieces(generator, monkeypatch, error):
    want = frames_of(generator)
    monkeypatch.setattr(Denoiser, "forward", fails(1, Denoiser.forward, error))
    pieces = []
    real = Denoiser.one_by_one
    monkeypatch.setattr(Denoiser, "one_by_one", lambda *a: pieces.append(1) or real(*a))
    torch.testing.assert_close(
        frames_of(generator), want, rtol=0, atol=5e-4 * float(want.abs().max())
    )
    assert len(pieces) == 2
    image = np.full((64, 64, 3), 99, np.uint8)
    low = want.clamp(-1, 1)
    high = generator.upsample(low, image)
    monkeypatch.setattr(
        generator.upsampler, "forward", fails(1, generator.upsampler.forward, error)
    )
    torch.testing.assert_close(generator.upsample(low, image), high)
    monkeypatch.setattr(generating, "embed", fails(1, generating.embed, error))
    assert generator.condition(image).embedding.shape == (1, 1, 16)
    # An encoder that was moved off the device may not fit back onto it.
    monkeypatch.setattr(generator, "_placed", fails(1, generator._placed, error))
    assert generator.condition(image).embedding.shape == (1, 1, 16)


def test_no_memory_says_what_to_do(generator, monkeypatch):
    monkeypatch.setattr(Denoiser, "_pass", fails(99, None))
    error = refused("out_of_memory", frames_of, generator)
    assert "without an upsampler" in error.remedy
    monkeypatch.setattr(generator.upsampler, "forward", fails(99, None))
    refused(
        "out_of_memory",
        generator.upsample,
        torch.zeros(8, 8, 16, 16),
        np.zeros((8, 8, 3), np.uint8),
    )


def test_other_errors_are_not_taken_for_short_memory(generator, monkeypatch):
    monkeypatch.setattr(Denoiser, "forward", fails(1, None, lambda _: RuntimeError("shapes")))
    with pytest.raises(RuntimeError, match="shapes"):
        frames_of(generator)


# -------------------------------------------------------------------------------- finding the parts


def test_the_highest_step_is_taken(copy):
    experiment = copy / "Output/exp_diffusion"
    for step in ("10", "9", "x"):
        shutil.copytree(experiment / "checkpoint-7", experiment / f"checkpoint-{step}")
    assert Parts.find(str(copy)).unet == experiment / "checkpoint-10/unet"
    assert Parts.find(str(experiment / "checkpoint-9")).unet == experiment / "checkpoint-9/unet"


def test_parts_can_be_named_in_a_file(copy, tmp_path):
    moved = copy / "svd"
    moved.rename(copy / "stable")
    file = copy / "mine.json"
    file.write_text(json.dumps({"unet": "Output/exp_diffusion", "svd": str(copy / "stable")}))
    parts = Parts.find(str(file))
    assert parts.svd == copy / "stable"
    assert parts.upsampler is None
    for content in ("[", "[1]", '{"svd": "x"}', '{"unet": "Output", "vae": "x"}'):
        file.write_text(content)
        refused("bad_weights", Parts.find, str(file))
    file.write_text('{"unet": "svd"}')
    refused("missing_weights", Parts.find, str(file))


def test_what_is_not_there_is_named(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("XRAY_CHECKPOINTS", str(tmp_path / "none"))
    assert "no trained weights" in refused("missing_weights", runtime.load, "xray-paper").message
    refused("missing_weights", Parts.find, str(tmp_path / "nothing"))
    assert (
        "checkpoint-<step>/unet"
        in refused("missing_weights", Parts.find, str(copy / "svd")).message
    )
    refused("bad_weights", Parts.find, str(copy / "svd/vae/config.json"))
    shutil.copytree(copy / "Output/exp_diffusion", copy / "Output/other")
    assert "exp_diffusion, other" in refused("bad_weights", Parts.find, str(copy)).message
    shutil.rmtree(copy / "Output/other")
    # Without the pretrained folders beside it, they must have been downloaded.
    shutil.rmtree(copy / "svd")
    error = refused("missing_weights", Parts.find, str(copy))
    assert "python -m runtime download svd" in error.remedy
    assert "image_encoder/model.fp16.safetensors" in error.remedy


# ------------------------------------------------------------------------------------ bad weights


def unet_of(copy: Path) -> Path:
    return copy / "Output/exp_diffusion/checkpoint-7/unet"


def changed(copy: Path, change) -> None:
    path = unet_of(copy) / f"{loading.WEIGHTS}.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)


def load(copy: Path) -> XRayPaperGenerator:
    return XRayPaperGenerator.load(str(copy), "cpu")


def test_a_missing_key_is_named(copy):
    changed(copy, lambda state: state.pop("conv_in.weight"))
    assert "1 missing (conv_in.weight)" in refused("bad_weights", load, copy).message


def test_an_extra_key_is_named(copy):
    changed(copy, lambda state: state.update(more=torch.zeros(1)))
    assert "1 unexpected (more)" in refused("bad_weights", load, copy).message


def test_another_shape_is_named(copy):
    changed(copy, lambda state: state.update({"conv_in.bias": torch.zeros(3)}))
    assert "conv_in.bias is (3,), not (32,)" in refused("bad_weights", load, copy).message


def test_a_wrong_checkpoint_does_not_fit(copy):
    shutil.copy(copy / f"sdxl_vae/{loading.WEIGHTS}.safetensors", unet_of(copy))
    assert "another model (" in refused("bad_weights", load, copy).message


def test_the_configuration_of_another_model_is_named(copy):
    shutil.copy(copy / "sdxl_vae/config.json", unet_of(copy))
    message = refused("bad_weights", load, copy).message
    assert "a AutoencoderKL, not of a UNetSpatioTemporalConditionModel" in message


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_broken_configuration_is_named(copy, content):
    (unet_of(copy) / "config.json").write_text(content, encoding="latin-1")
    assert "config.json" in refused("bad_weights", load, copy).message


def test_an_impossible_configuration_is_named(copy):
    config = UNET | {"down_block_types": ["NoSuchBlock", "DownBlockSpatioTemporal"]}
    (unet_of(copy) / "config.json").write_text(json.dumps(config))
    assert "NoSuchBlock" in refused("bad_weights", load, copy).message


def test_a_truncated_file_is_named(copy):
    path = unet_of(copy) / f"{loading.WEIGHTS}.safetensors"
    for size in (path.stat().st_size - 9, 100, 0):
        os.truncate(path, size)
        assert "damaged or incomplete" in refused("bad_weights", load, copy).message


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


def test_a_pickle_that_would_run_code_is_not_opened(copy, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = unet_of(copy) / f"{loading.WEIGHTS}.safetensors"
    state = load_file(path)
    path.unlink()
    torch.save(state, unet_of(copy) / f"{loading.WEIGHTS}.bin")
    assert load(copy).denoiser.size == 16  # one of nothing but tensors is fine
    torch.save({"conv_in.weight": Bomb()}, unet_of(copy) / f"{loading.WEIGHTS}.bin")
    assert "run code" in refused("unsafe_weights", load, copy).message
    assert not (tmp_path / "exploded").exists()
    torch.save([1], unet_of(copy) / f"{loading.WEIGHTS}.bin")
    assert "not a table of tensors" in refused("bad_weights", load, copy).message


def test_half_a_download_is_named(copy):
    path = copy / "svd/image_encoder/model.safetensors"
    path.rename(path.with_name("model.safetensors.0123456789ab.partial"))
    error = refused("incomplete_download", load, copy)
    assert "image_encoder" in error.message
    next(path.parent.glob("*.partial")).unlink()
    assert "no weights" in refused("missing_weights", load, copy).message
    (path.parent / "config.json").unlink()
    assert "config.json" in refused("missing_weights", load, copy).message


def test_half_precision_files_load(copy):
    folder = copy / "svd/image_encoder"
    state = {k: v.half() for k, v in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    save_file(state, folder / "model.fp16.safetensors")
    encoder = loading.load_image_encoder(copy / "svd")
    assert next(encoder.parameters()).dtype == torch.float32


# --------------------------------------------------------------------------------------- training


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A dataset of two views in the published layout."""
    folder = tmp_path_factory.mktemp("data")
    for number, shape in enumerate(
        (trimesh.creation.icosphere(2, 0.4), trimesh.creation.box([0.5] * 3))
    ):
        surface = Surface(shape.vertices, shape.faces)
        xray = cast(surface, published_camera(64), 16)
        xray.save(folder / f"xrays/shape{number}/000.npz")
        rgba = np.zeros((64, 64, 4), np.uint8)
        rgba[xray.hit[0]] = (200, 100, 50, 255)
        (folder / f"images/shape{number}").mkdir(parents=True)
        Image.fromarray(rgba).save(folder / f"images/shape{number}/000.png")
    return folder


def tiny(published: Path, **more) -> TrainingConfig:
    return TrainingConfig(
        **{
            "network": UNET,
            "svd": str(published / "svd"),
            "sdxl_vae": str(published / "sdxl_vae"),
            "batch": 1,
            "steps": 3,
            "hold_out": 0,
            "workers": 0,
        }
        | more
    )


def test_a_trained_checkpoint_is_of_the_published_kind(published, data, tmp_path):
    trainer = train(tiny(published), data, tmp_path / "exp")
    ours = tmp_path / "exp/checkpoint-3/unet"
    theirs = unet_of(published)
    assert sorted(p.name for p in ours.iterdir()) == sorted(p.name for p in theirs.iterdir())
    assert json.loads((ours / "config.json").read_text())["latent_channels"] == 8
    a, b = (load_file(p / f"{loading.WEIGHTS}.safetensors") for p in (ours, theirs))
    assert {k: (v.shape, v.dtype) for k, v in a.items()} == {
        k: (v.shape, v.dtype) for k, v in b.items()
    }
    assert trainer.samples == 3
    assert json.loads((tmp_path / "exp/metrics.jsonl").read_text())["steps"] == 3
    # It generates, and the published one can be trained further.
    file = tmp_path / "parts.json"
    file.write_text(json.dumps({"unet": "exp", "svd": str(published / "svd")}))
    assert XRayPaperGenerator.load(str(file), "cpu").upsampler is None
    further = Trainer(tiny(published, network={}, start_from=str(published)), "cpu")
    for name, value in load_file(theirs / f"{loading.WEIGHTS}.safetensors").items():
        assert torch.equal(further.model.state_dict()[name], value)
    assert all(p.requires_grad for p in further.model.parameters())


def test_the_command_line_trains_it(published, data, tmp_path, capsys):
    config = asdict(tiny(published, steps=1))
    (tmp_path / "c.json").write_text(json.dumps(config))
    where = [
        "--config",
        str(tmp_path / "c.json"),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "e"),
    ]
    assert main(["train", *where, "--device", "cpu"]) == 0, capsys.readouterr().err
    assert "1 samples" in capsys.readouterr().out
    assert find_part(tmp_path / "e", "unet") == tmp_path / "e/checkpoint-1/unet"


def test_the_upsampler_is_trained_too(published, data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LOW_SIZE", 16)
    train(tiny(published, part="upsampler", network=UPSAMPLER, steps=1), data, tmp_path / "exp")
    ours = load_file(tmp_path / f"exp/checkpoint-1/vae/{loading.WEIGHTS}.safetensors")
    theirs = load_file(
        published / f"Output/exp_upsampler/checkpoint-3/vae/{loading.WEIGHTS}.safetensors"
    )
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    loading.load_upsampler(tmp_path / "exp/checkpoint-1/vae")


def test_a_cut_run_resumes_where_it_was(published, data, tmp_path, monkeypatch):
    config = tiny(published, checkpoint_steps=2, keep=1)
    whole = train(config, data, tmp_path / "whole")
    assert [p.name for p in (tmp_path / "whole").glob("checkpoint-*")] == ["checkpoint-3"]
    real = Trainer.step

    def step(self, batch):
        if self.steps == 1:
            raise KeyboardInterrupt
        return real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train(config, data, tmp_path / "cut")
    refused("bad_settings", train, config, data, tmp_path / "cut")
    resumed = train(config, data, tmp_path / "cut", resume=True)
    assert resumed.steps == whole.steps == 3
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    refused("bad_checkpoint", train, config, data, tmp_path / "none", resume=True)
    other = replace(config, seed=5)
    refused("bad_checkpoint", train, other, data, tmp_path / "cut", resume=True)
    # Without the optimiser's state it goes on from the weights, at their step.
    (tmp_path / "cut/checkpoint-3/training.pt").unlink()
    warm = Trainer(config, "cpu")
    warm.resume(tmp_path / "cut")
    assert (warm.steps, warm.samples, warm.done()) == (3, 3, 1.0)
    for a, b in zip(whole.model.parameters(), warm.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    other = replace(config, network=UNET | {"block_out_channels": [32, 32]})
    refused("bad_checkpoint", train, other, data, tmp_path / "cut", resume=True)


@pytest.mark.parametrize(
    ("writer", "failure"),
    [
        ((training, "save_file"), OSError(errno.ENOSPC, "No space left on device")),
        ((torch, "save"), RuntimeError("PytorchStreamWriter failed writing file data/3")),
    ],
)
def test_a_full_disk_leaves_no_half_checkpoint(
    published, data, tmp_path, monkeypatch, writer, failure
):
    train(tiny(published, steps=1), data, tmp_path)

    def full(*_, **__):
        raise failure

    monkeypatch.setattr(*writer, full)
    error = refused("no_space", train, tiny(published, steps=2), data, tmp_path, resume=True)
    assert "--resume" in error.remedy
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("checkpoint-1", "metrics.jsonl", "tensorboard")
    ]


def test_it_learns(published):
    """The loss of one sample falls, and it is 0 for a network that knows the answer."""
    trainer = Trainer(tiny(published, learning_rate=1e-3), "cpu")
    random = torch.Generator().manual_seed(0)
    frames = torch.randn(1, 8, 8, 16, 16, generator=random).clamp(-1, 1)
    image = torch.zeros(1, 4, 16, 16)

    class Knows:
        def __init__(self):
            self.seen = []

        def __call__(self, x, time, embedding, ids):
            self.seen.append((x, embedding, ids))
            sigma = (4 * time).exp().view(-1, 1, 1, 1, 1)
            noised = x[:, :, :8] * (sigma**2 + 1).sqrt()
            sample = (noised / (sigma**2 + 1) - frames) * (sigma**2 + 1).sqrt() / sigma
            return type("Output", (), {"sample": sample})

    knows, token = Knows(), torch.ones(1, 1, 16)
    for seed in range(60):
        loss = diffusion_loss(
            knows,
            frames,
            token,
            image + 1,
            torch.tensor([0.05]),
            trainer.config,
            torch.Generator().manual_seed(seed),
        )
        assert loss < 1e-4
    x, embedding, ids = zip(*knows.seen, strict=True)
    assert ids[0].tolist() == [[7.0, 127.0, pytest.approx(0.05)]]
    dropped = [
        (float(e.mean()) == 0, float(i[:, :, 8:].mean()) == 0)
        for e, i in zip(embedding, x, strict=True)
    ]
    assert set(dropped) == {(False, False), (True, False), (True, True), (False, True)}
    assert dropped.count((False, False)) > 30


def test_upsampler_loss_is_least_for_the_truth():
    random = torch.Generator()
    camera = Camera.look_at((0, -1, 0), width=8, height=8)
    target = torch.zeros(8, 8, 8, 8)
    target[:, 3] = 1
    target[:, 7] = -1
    target[0, 7, 2:6, 2:6] = 1
    truth = target.clone()
    truth[:, 7] *= 50
    best = float(upsampler_loss(truth, target, camera, random))
    assert best < 1e-6
    for channel in (0, 3, 5, 7):
        wrong = truth.clone()
        wrong[:, channel] = 0.1 - wrong[:, channel]
        assert float(upsampler_loss(wrong, target, camera, random)) > 1e-3
    uneven = truth.clone()
    uneven[0, 1:4, 2:4] = torch.tensor([1.0, 0, 0])[:, None, None]
    assert float(upsampler_loss(uneven, target, camera, random)) > best
    empty = target.clone()
    empty[:, 7] = -1
    assert float(upsampler_loss(empty * 50, empty, camera, random)) < 1e-6


def test_importing_it_is_quick_and_quiet():
    code = (
        "import sys, runtime.xray_paper.generator, runtime.xray_paper.training; "
        "assert not {'diffusers', 'transformers'} & set(sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(("height", "width"), [(512, 512), (300, 640), (100, 224)])
def test_the_image_is_shrunk_as_the_published_pipeline_does_it(height, width, caplog):
    from diffusers.pipelines.stable_video_diffusion import (
        pipeline_stable_video_diffusion as published,
    )

    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted = published._resize_with_antialiasing(image, (224, 224))
    assert torch.allclose(conditioning.shrunk(image, 224), wanted, atol=2e-6)


def views(data: Path, min_iou: float = 0.7) -> Views:
    pairs = list_views(data, hold_out=0)
    return Views(pairs, layers=2, size=8, near=NEAR, far=FAR, min_iou=min_iou)


def test_views_whose_image_agrees_and_is_not_held_out_are_taken(data, tmp_path):
    assert len(list_views(data, hold_out=0)) == 2
    assert len(list_views(data, hold_out=2)) == 1
    copy = shutil.copytree(data, tmp_path / "data")
    Image.new("RGBA", (64, 64)).save(copy / "images/shape0/000.png")
    first, second = views(data)[0], views(data)[1]
    assert not torch.equal(first["frames"], second["frames"])
    for number in range(2):  # the next one stands for the one that does not agree
        assert torch.equal(views(copy)[number]["frames"], second["frames"])
    assert torch.equal(views(copy, 0.0)[0]["frames"], first["frames"])
    refused("no_data", list_views, tmp_path, hold_out=0)
    Image.new("RGBA", (64, 64)).save(copy / "images/shape1/000.png")
    assert str(copy) in refused("no_data", views(copy).__getitem__, 1).message


def test_no_file_is_read_before_the_first_sample(data, monkeypatch):
    monkeypatch.setattr("runtime.xray_paper.data.read_rgba", None)
    monkeypatch.setattr("runtime.xray_paper.data.XRay", None)
    assert len(views(data)) == 2


@pytest.mark.parametrize("kept", [0, 60, 90])
def test_a_broken_image_is_named(data, tmp_path, kept):
    copy = shutil.copytree(data, tmp_path / "data")
    path = copy / "images/shape0/000.png"
    path.write_bytes(path.read_bytes()[:kept])
    error = refused("unreadable_image", views(copy).__getitem__, 0)
    assert str(path) in error.message


def test_what_a_worker_finds_wrong_is_told_on_one_line(published, data, tmp_path, capsys):
    copy = shutil.copytree(data, tmp_path / "data")
    for path in copy.glob("xrays/*/000.npz"):
        path.write_bytes(path.read_bytes()[:-50])
    config = asdict(tiny(published, steps=1, workers=1, min_iou=0.0))
    (tmp_path / "c.json").write_text(json.dumps(config))
    options = ["--config", str(tmp_path / "c.json"), "--data", str(copy), "--device", "cpu"]
    assert main(["train", *options, "--out", str(tmp_path / "e")]) != 0
    output = capsys.readouterr().err
    assert "000.npz is not an X-Ray file" in output
    assert "Traceback" not in output
    assert "Caught" not in output


def test_each_view_once_an_epoch_also_from_the_middle():
    views = ShuffledViews(range(5), 1, batch=1)
    whole = [views.place(number) for number in range(20)]
    assert sorted(whole[:5]) == sorted(whole[5:10]) == list(range(5))
    assert whole[:5] != whole[5:10]
    part = ShuffledViews(range(5), 1, batch=2, first_batch=4)
    assert list(itertools.islice(part, 12)) == whole[8:]


@pytest.mark.parametrize("name", ["diffusion", "upsampler"])
def test_the_examples_are_the_published_settings(name):
    config = TrainingConfig.read(ROOT / f"runtime/xray_paper/{name}.json")
    assert config.part == name
    assert (config.learning_rate, config.seed, config.conditioning_dropout) == (1e-4, 1243, 0.1)
    assert config.batch == {"diffusion": 14, "upsampler": 1}[name]
    assert config.hold_out == {"diffusion": 10, "upsampler": 30}[name]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"part": "engine"}',
        '{"btach": 1}',
        '{"batch": "8"}',
        '{"batch": 0}',
        '{"keep": 0}',
        '{"steps": 1.5}',
    ],
)
def test_wrong_configurations_are_refused(tmp_path, content):
    (tmp_path / "c.json").write_text(content)
    refused("bad_config", TrainingConfig.read, tmp_path / "c.json")
