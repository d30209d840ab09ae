"""What all trainers share, with each model that takes a folder of meshes."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from runtime.segmentation import training as segmentation
from runtime.torch_helpers.devices import training_dtype
from runtime.training import trainer_module, trainers
from runtime.training.configs import RunConfig
from runtime.training.muon import Optimizers
from runtime.training.run import train
from runtime.training.trainer import Trainer
from runtime.triposr import training as triposr
from runtime.xray import training as xray
from xray_addon import XRayError

SMALL_TRIPOSR = {
    "image_size": 16,
    "plane_size": 2,
    "channels": 32,
    "heads": 2,
    "head_size": 16,
    "layers": 1,
    "plane_channels": 2,
    "neurons": 8,
    "hidden_layers": 1,
    "ray_samples": 4,
    "vit": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 16,
        "patch_size": 8,
        "image_size": 16,
    },
}


@pytest.fixture(params=["xray", "triposr", "segmentation"])
def model(request, config, monkeypatch) -> tuple[type[Trainer], RunConfig]:
    """A trainer and a configuration of three steps of four samples."""
    monkeypatch.setattr(segmentation, "export", lambda _model, path: path.touch())
    shape = {"batch": 4, "samples": 12, "workers": 0, "warmup": 0.3}
    if request.param == "xray":
        return xray.Trainer, replace(config, samples=12)
    if request.param == "triposr":
        views = {"views": 1, "view_size": 8, "patch_size": 4}
        return triposr.Trainer, triposr.TrainingConfig(network=SMALL_TRIPOSR, **shape, **views)
    return segmentation.Trainer, segmentation.TrainingConfig(channels=(8, 8), middle=1, **shape)


def same(one: Trainer, other: Trainer) -> None:
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_a_run_tells_rates_and_goes_on_as_if_it_had_not_been_cut(model, meshes, tmp_path):
    kind, config = model
    whole = train(kind, config, meshes, tmp_path / "whole")
    cut = train(kind, config, meshes, tmp_path / "cut", minutes=0.0)
    assert (cut.steps, cut.samples) == (1, 4)
    resumed = train(kind, config, meshes, tmp_path / "cut", resume=True)
    assert (resumed.steps, resumed.samples) == (whole.steps, whole.samples) == (3, 12)
    same(whole, resumed)
    lines = [json.loads(x) for x in (tmp_path / "cut/metrics.jsonl").read_text().splitlines()]
    assert [line["samples"] for line in lines] == [4, 12]
    assert {"loss", "rate", "model_rate", "data_rate", "learning_rate"} <= lines[0].keys()
    events = [path.read_bytes() for path in (tmp_path / "cut/tensorboard").iterdir()]
    assert all(b"model_rate" in content for content in events)
    with pytest.raises(XRayError, match="--resume"):
        train(kind, config, meshes, tmp_path / "cut")


def test_where_only_weights_are_left_a_run_goes_on_from_these(model, meshes, tmp_path):
    kind, config = model
    first = train(kind, config, meshes, tmp_path, minutes=0.0)
    (tmp_path / "checkpoint.pt").unlink()
    warm = kind(config, "cpu")
    warm.resume(tmp_path)
    assert (warm.samples, warm.steps, warm.warm_starts) == (4, 1, 1)
    trained = getattr(first, "average", first.model).state_dict()
    for name, value in warm.model.state_dict().items():
        torch.testing.assert_close(value, trained[name], rtol=0.02, atol=0.02)
    with pytest.raises(XRayError, match="--resume"):
        train(kind, config, meshes, tmp_path)
    assert train(kind, config, meshes, tmp_path, resume=True).samples == 12
    (tmp_path / "checkpoint.pt").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(XRayError) as caught:
        train(kind, config, meshes, tmp_path, resume=True)
    assert caught.value.code in ("bad_checkpoint", "bad_weights")


@pytest.mark.parametrize("file", ["checkpoint.pt", "model.safetensors"])
def test_a_run_goes_on_with_its_own_seed_batch_and_network_alone(model, tmp_path, file):
    kind, config = model
    trainer = kind(config, "cpu")
    trainer.save(tmp_path)
    if file != "checkpoint.pt":
        (tmp_path / "checkpoint.pt").unlink()
    for changes in ({"seed": 5}, {"batch": 8}):
        with pytest.raises(XRayError, match=f"{next(iter(changes))} was .* and is ") as caught:
            kind(replace(config, **changes), "cpu").resume(tmp_path)
        assert caught.value.code == "bad_checkpoint"
    changes = {"samples": 24, "learning_rate": 0.5, "warmup": 0.1, "workers": 3}
    kind(replace(config, **changes), "cpu").resume(tmp_path)


def test_a_network_with_other_settings_is_told_by_their_names(config, tmp_path):
    xray.Trainer(config, "cpu").save(tmp_path)
    with pytest.raises(XRayError, match="fold was 2 and is 1") as caught:
        xray.Trainer(replace(config, fold=1), "cpu").resume(tmp_path)
    assert caught.value.code == "bad_checkpoint"


def test_a_full_disk_is_told_and_what_was_saved_stays(model, tmp_path, monkeypatch):
    kind, config = model
    trainer = kind(config, "cpu")
    trainer.save(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(XRayError) as caught:
        trainer.save(tmp_path)
    assert caught.value.code == "no_space"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_rate_rises_and_falls_to_its_last(model):
    kind, config = model
    config = replace(config, samples=100, warmup=0.3)
    trainer = kind(config, "cpu")
    rates = []
    for samples in range(config.length() + 1):
        trainer.samples = samples
        rates.append(trainer.learning_rate() / config.learning_rate)
    top = rates.index(max(rates))
    assert 0 < rates[0] < rates[top] <= 1
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(config.final_rate)


def test_gradients_that_are_not_finite_change_nothing(model, meshes, monkeypatch):
    kind, config = model
    trainer = kind(config, "cpu")
    samples = iter(trainer.dataset(meshes))
    items = [next(samples) for _ in range(4)]
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    losses = trainer.losses
    monkeypatch.setattr(
        trainer, "losses", lambda batch: {n: t * torch.nan for n, t in losses(batch).items()}
    )
    trainer.step(batch)
    for a, b in zip(before, trainer.model.parameters(), strict=True):
        assert torch.equal(a, b)
    monkeypatch.undo()
    trainer.step(batch)
    moved = zip(before, trainer.model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)


@pytest.mark.parametrize("name", trainers())
def test_a_configuration_names_its_model_and_no_other(name: str, tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"generator": name}))
    module = trainer_module(path)
    assert module.__name__ == trainers()[name]
    assert module.TrainingConfig.read(path).generator == name
    assert issubclass(module.Trainer, Trainer)
    path.write_text(json.dumps({"generator": next(other for other in trainers() if other != name)}))
    with pytest.raises(XRayError, match="it is for the generator") as caught:
        module.TrainingConfig.read(path)
    assert caught.value.code == "bad_config"


def test_without_a_name_a_configuration_is_for_the_default_model(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text("{}")
    assert trainer_module(path) is xray


@pytest.mark.parametrize(
    ("known", "dtype"),
    [
        ({"avx2": True}, torch.float32),
        ({"avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
    ],
)
def test_only_a_cpu_with_instructions_for_bfloat16_trains_in_it(known, dtype, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert training_dtype(torch.device("cpu")) == dtype


@pytest.mark.parametrize("shape", [(48, 96), (96, 48)])
def test_in_both_precisions_muon_takes_the_same_steps(shape):
    """So that a run can be resumed on a machine of the other kind."""
    config = RunConfig(learning_rate=0.1)
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(3, *shape)
    ends, states = [], []
    for dtype in (torch.float32, torch.bfloat16):
        model = torch.nn.Linear(*reversed(shape))
        model.weight.data.copy_(start)
        optimizers = Optimizers(model, [model.weight], config, dtype)
        for gradient in gradients:
            model.weight.grad = gradient.clone()
            optimizers.take_gradients()
            optimizers.both[0].step()
        ends.append(model.weight.detach() - start)
        states.append(optimizers.both[0].state_dict())
    assert (ends[0] - ends[1]).norm() < 0.03 * ends[1].norm()
    kept = [state["state"][0]["momentum_buffer"] for state in states]
    assert torch.equal(*kept)
    assert states[0]["param_groups"] == states[1]["param_groups"]
