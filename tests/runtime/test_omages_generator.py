"""From a category to a mesh with its material, with networks small enough for a test."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

import runtime
from runtime.omages.generator import FAST_STEPS, PUBLISHED_STEPS, composed
from runtime.omages.transformer import GeometryTransformer, TransformerConfig
from runtime.omages.unet import MaterialNetwork, UNetConfig
from runtime.omages.weights import GEOMETRY_FILE, MATERIAL_FILE, save_geometry, save_material
from xray_addon import Generated, XRayError
from xray_addon.omage import Omage
from xray_addon.progress import Cancelled
from xray_addon.systems.omages import SYSTEM, OmagesSettings
from xray_addon.systems.system import Inputs

CHAIR = Inputs(category="chair")
QUICK = {"geometry_steps": 3, "material_steps": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Networks with weights at random, whose geometry is occupied for the most part."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    geometry = GeometryTransformer(TransformerConfig(16, 16, 1, 2))
    for layer in (geometry.final_layer.linear, geometry.final_layer.adaLN_modulation[1]):
        torch.nn.init.normal_(layer.weight, std=0.05)
    torch.nn.init.normal_(geometry.y_embedder.embedding_table.weight)
    with torch.no_grad():
        geometry.final_layer.linear.bias[3] = -2.0  # the noise of the occupancy is seen as low
    material = MaterialNetwork(UNetConfig(8, (1, 2), 1, (False, True), 1))
    torch.nn.init.normal_(material.unets.final_conv.weight, std=0.05)
    save_geometry(folder / "null2geo" / "checkpoints" / GEOMETRY_FILE, geometry, 1, {})
    average = [parameter + 0.1 for parameter in material.unets.parameters()]
    save_material(folder / MATERIAL_FILE, material, 1, {}, average=average)
    return folder


@pytest.fixture(scope="module")
def generator(folder):
    return runtime.load("omages", str(folder), "cpu")


def test_a_category_becomes_a_mesh_with_material_and_pictures(generator, tmp_path):
    seen = []
    made = generator.generate(CHAIR, OmagesSettings(**QUICK), seen.append)
    assert len(made.surface.faces)
    assert np.abs(made.surface.vertices).max() <= 0.501
    material = made.surface.materials[0]
    for texture in (material.texture, material.metallic_texture, material.roughness_texture):
        assert texture.shape[:2] == (16, 16)
    assert list(made.pictures) == [
        "position",
        "patches",
        "normal",
        "albedo",
        "metallic",
        "roughness",
    ]
    made.save(tmp_path / "a.npz")
    again = Generated.load(tmp_path / "a.npz")
    assert np.array_equal(again.pictures["albedo"], made.pictures["albedo"])
    stages = [report.stage for report in seen]
    assert stages == sorted(stages)  # geometry, then material
    assert [report.step for report in seen if report.stage == "geometry"][-1] == 3
    shown = [report.preview for report in seen if report.preview is not None]
    assert shown
    assert shown[0].shape == (256, 256, 4)


def test_a_seed_gives_the_same_object_and_another_gives_another(generator):
    one, same, other = (
        generator.generate(CHAIR, OmagesSettings(seed=seed, **QUICK)) for seed in (1, 1, 2)
    )
    assert np.array_equal(one.surface.vertices, same.surface.vertices)
    assert np.array_equal(one.pictures["albedo"], same.pictures["albedo"])
    assert not np.array_equal(one.pictures["position"], other.pictures["position"])


def test_settings_reach_the_networks(generator):
    def made(**values):
        return generator.generate(CHAIR, OmagesSettings(**QUICK | values)).pictures

    usual = made()
    assert not np.array_equal(made(guidance=1.0)["position"], usual["position"])
    assert not np.array_equal(made(average=True)["albedo"], usual["albedo"])
    assert np.array_equal(made(average=True)["position"], usual["position"])
    fast = made(sampler="fast")
    assert not np.array_equal(fast["position"], usual["position"])
    steps = []
    generator.geometry("chair", fast=True, progress=lambda report: steps.append(report.of))
    assert steps[-1] == FAST_STEPS["geometry"] < PUBLISHED_STEPS["geometry"]


def test_the_material_of_a_given_geometry(generator, tmp_path):
    values = np.zeros((32, 32, 12))
    row, column = np.mgrid[4:28, 4:28] / 32
    values[4:28, 4:28, 0], values[4:28, 4:28, 1], values[4:28, 4:28, 2] = column, row, 0.5
    values[4:28, 4:28, 3] = 1
    Omage(values).save(tmp_path / "plane.npz")
    settings = OmagesSettings(geometry=str(tmp_path / "plane.npz"), material_steps=2)
    made = generator.generate(CHAIR, settings)
    assert np.ptp(made.surface.vertices[:, 2]) < 1e-4
    assert made.surface.materials[0].texture.shape == (64, 64, 3)
    for name, code in (("none.npz", "missing_file"), ("empty.npz", "empty_omage")):
        Omage(np.zeros((8, 8, 4))).save(tmp_path / "empty.npz")
        with pytest.raises(XRayError) as raised:
            generator.generate(CHAIR, OmagesSettings(geometry=str(tmp_path / name)))
        assert raised.value.code == code


def test_nothing_occupied_is_an_error_and_no_placeholder(folder, tmp_path):
    empty = runtime.load("omages", str(folder), "cpu")
    with torch.no_grad():
        empty.geometry_network.final_layer.linear.bias[3] = 4.0
    with pytest.raises(XRayError) as raised:
        empty.generate(CHAIR, OmagesSettings(**QUICK))
    assert raised.value.code == "empty_omage"


def test_inputs_are_checked_and_near_categories_offered(generator):
    for inputs, code in (
        (Inputs(category="chiar"), "unknown_category"),
        (Inputs(), "missing_category"),
        (Inputs(image="a.png", category="chair"), "unused_input"),
    ):
        with pytest.raises(XRayError) as raised:
            generator.generate(inputs, OmagesSettings(**QUICK))
        assert raised.value.code == code
    with pytest.raises(XRayError, match="chair"):
        generator.geometry("chiar")


def test_cancelling_ends_it_within_a_step(generator):
    reports = []

    def stop(report):
        reports.append(report)
        if len(reports) == 2:
            raise Cancelled

    began = time.monotonic()
    with pytest.raises(Cancelled):
        generator.generate(CHAIR, OmagesSettings(), stop)
    assert len(reports) == 2
    assert time.monotonic() - began < 1


def test_folders_without_the_weights_name_them(tmp_path, folder):
    with pytest.raises(XRayError, match=GEOMETRY_FILE) as raised:
        runtime.load("omages", str(tmp_path), "cpu")
    assert raised.value.code == "missing_weights"


def test_normals_of_what_is_composed_look_outwards():
    geometry = np.zeros((16, 16, 4))
    angle, height = np.meshgrid(np.linspace(0, 2 * np.pi, 12), np.linspace(0.1, 0.9, 12))
    geometry[2:14, 2:14] = np.stack(
        [
            0.5 + 0.4 * np.cos(angle),
            0.5 + 0.4 * np.sin(angle),
            height,
            np.full_like(angle, 0.9),
        ],
        axis=-1,
    )
    omage = composed(geometry, np.full((16, 16, 5), 0.5))
    inside = omage.occupied
    outwards = omage.position[inside] * (1, 1, 0)
    assert (np.einsum("ij,ij->i", omage.normal[inside], outwards) > 0).all()
    assert (omage.values[..., 3][inside] == 1).all()
    assert not omage.values[~inside].any()


def test_the_description_is_that_of_the_networks():
    assert SYSTEM.categories[12] == "chair"
    assert len(SYSTEM.categories) == TransformerConfig().classes == UNetConfig().classes == 63
