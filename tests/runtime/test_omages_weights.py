"""The files of the omage networks: read strictly, and without trusting them."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from runtime.omages.transformer import GeometryTransformer, TransformerConfig
from runtime.omages.unet import MaterialNetwork, UNetConfig
from runtime.omages.weights import (
    GEOMETRY_FILE,
    MATERIAL_FILE,
    load_geometry,
    load_material,
    save_geometry,
    save_material,
)
from xray_addon import XRayError


@pytest.fixture
def folder(tmp_path):
    """Both networks, as small as they can be."""
    torch.manual_seed(0)
    save_geometry(tmp_path / GEOMETRY_FILE, geometry(), 5, {"seed": 1})
    save_material(tmp_path / MATERIAL_FILE, material(), 5, {"seed": 1})
    return tmp_path


def geometry():
    return GeometryTransformer(TransformerConfig(4, 16, 2, 2))


def material():
    return MaterialNetwork(UNetConfig(8, (1, 2), 1, (False, True), 2))


def changed(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def refused(load, path):
    with pytest.raises(XRayError) as raised:
        load(path)
    return raised.value


def test_what_is_saved_is_loaded_again_with_its_shape(folder):
    torch.manual_seed(0)
    for load, network in ((load_geometry, geometry()), (load_material, material())):
        loaded = load(folder)
        assert loaded.config == network.config
        assert not loaded.training
        for name, tensor in network.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)


def test_the_container_is_the_published_one(folder):
    content = torch.load(folder / MATERIAL_FILE, weights_only=True)
    assert content["global_step"] == 5
    assert content["hyper_parameters"]["training"] == {"seed": 1}
    names = list(content["state_dict"])
    assert "label_embedder.weight" in names
    for prefix in ("unets.", "imagen.unets.0.", "model.unets.0."):
        assert prefix + "final_conv.weight" in names
    size = sum(tensor.numel() for tensor in material().parameters())
    assert (folder / MATERIAL_FILE).stat().st_size < 6 * size  # each tensor once


def test_the_other_network_is_told(folder):
    for load, name in ((load_geometry, MATERIAL_FILE), (load_material, GEOMETRY_FILE)):
        error = refused(load, folder / name)
        assert error.code == "bad_weights"
        assert "network is needed" in error.message


def test_names_of_one_tensor_must_agree(folder):
    def disagree(content):
        name = "baseDiT.final_layer.linear.bias"
        content["state_dict"][name] = content["state_dict"][name] + 1

    changed(folder / GEOMETRY_FILE, disagree)
    error = refused(load_geometry, folder)
    assert error.code == "bad_weights"
    assert "final_layer.linear.bias" in error.message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["state_dict"].pop("model.pos_embed"), "baseDiT.pos_embed"),
        (lambda c: c["state_dict"].update({"model.more": torch.zeros(1)}), "baseDiT.more"),
        (lambda c: c["state_dict"].update({"other": torch.zeros(1)}), "other"),
        (lambda c: c.pop("state_dict"), "state_dict"),
        (lambda c: c["state_dict"].clear(), "no tensors"),
        (
            lambda c: [
                c["state_dict"].update({f"{p}.t_embedder.mlp.2.bias": torch.zeros(3)})
                for p in ("model", "baseDiT")
            ],
            "t_embedder.mlp.2.bias is (3,), not (16,)",
        ),
    ],
)
def test_keys_and_shapes_must_fit(folder, change, told):
    changed(folder / GEOMETRY_FILE, change)
    error = refused(load_geometry, folder)
    assert error.code == "bad_weights"
    assert told in error.message


def test_files_that_are_missing_or_damaged(tmp_path):
    assert refused(load_geometry, tmp_path).code == "missing_weights"
    (tmp_path / GEOMETRY_FILE).write_bytes(b"PK\3\4 cut off")
    assert refused(load_geometry, tmp_path).code == "bad_weights"


def test_settings_objects_are_passed_over_and_never_built(folder, monkeypatch):
    built = []

    class DictConfig:
        def __init__(self):
            self.content = {"depth": 12}

        def __setstate__(self, state):
            built.append(state)

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf.dictconfig", "DictConfig"
    module = types.ModuleType("omegaconf.dictconfig")
    module.DictConfig = DictConfig
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    changed(
        folder / GEOMETRY_FILE,
        lambda content: content.update(hyper_parameters={"cfg": DictConfig(), "lr": 1e-4}),
    )
    # Without the number of heads in plain words, that of narrow networks is taken.
    assert load_geometry(folder).config.heads == 4
    assert not built


def test_code_in_a_file_is_refused_and_not_run(folder):
    class Run:
        def __reduce__(self):
            return (print, ("run",))

    changed(folder / GEOMETRY_FILE, lambda content: content.update(more=Run()))
    error = refused(load_geometry, folder)
    assert error.code == "unsafe_weights"
    assert "print" in error.message


def test_the_running_average_is_an_option(folder):
    network = load_material(folder)
    shadow = [tensor + 1 for tensor in network.unets.parameters()]
    changed(
        folder / MATERIAL_FILE,
        lambda content: content.update(ema={"decay": 0.999, "shadow_params": shadow}),
    )
    averaged = load_material(folder, average=True)
    assert torch.equal(averaged.unets.final_conv.bias, network.unets.final_conv.bias + 1)
    assert torch.equal(load_material(folder).unets.final_conv.bias, network.unets.final_conv.bias)
    assert torch.equal(averaged.label_embedder.weight, network.label_embedder.weight)
    changed(folder / MATERIAL_FILE, lambda content: content["ema"]["shadow_params"].pop())
    with pytest.raises(XRayError) as raised:
        load_material(folder, average=True)
    assert raised.value.code == "bad_weights"
