"""The omage networks give the authors' numbers, for fixed inputs, at every stage."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from runtime.omages.networks import GeometryDenoiser, MaterialDenoiser
from runtime.omages.sampling import Schedule, ancestral
from runtime.omages.transformer import GeometryTransformer, TransformerConfig
from runtime.omages.unet import MaterialNetwork, UNetConfig
from runtime.omages.weights import LABELS, load_geometry, load_material

GEOMETRY, MATERIAL = 2e-4, 5e-4  # of the largest value


def close(got, want, tolerance):
    got = np.asarray(got, np.float64)
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


@pytest.fixture(scope="module")
def geometry(golden):
    folder = golden / "omages_dit-small"
    with np.load(folder / "expected.npz") as archive:
        return load_geometry(folder), dict(archive)


@pytest.fixture(scope="module")
def material(golden):
    folder = golden / "omages_g2m-small"
    with np.load(folder / "expected.npz") as archive:
        return load_material(folder), dict(archive)


def last(images):
    for image, _ in images:
        final = image
    return final[0]


@torch.inference_mode()
def test_the_geometry_network_with_and_without_a_category(geometry):
    network, expected = geometry
    z = torch.from_numpy(expected["z"]).float()[None]
    for label, name in ((12, "y12"), (63, "null")):
        got = network(z, torch.tensor([437]), torch.tensor([label]))[0]
        close(got, expected[f"forward_t437_{name}"], GEOMETRY)


def test_the_geometry_schedule(geometry):
    schedule = Schedule.geometry(250)
    assert np.array_equal(schedule.times[::-1], geometry[1]["timestep_map_250"])
    betas = 1 - (schedule.alpha[:-1] / schedule.alpha[1:]) ** 2
    np.testing.assert_allclose(betas[::-1], geometry[1]["betas_250"], rtol=1e-9)


@torch.inference_mode()
def test_geometry_samples(geometry):
    network, expected = geometry
    noises = torch.from_numpy(expected["noises"]).float()
    denoiser = GeometryDenoiser(
        network,
        Schedule.geometry(int(expected["steps"])),
        torch.tensor([int(expected["label"])]),
        float(expected["cfg_scale"]),
    )
    start = torch.from_numpy(expected["z"]).float()[None]
    got = last(ancestral(start, denoiser, lambda step: noises[step][None]))
    close(got, expected["sample"], GEOMETRY)


@torch.inference_mode()
def test_the_material_network(material):
    network, expected = material
    label = network.encode(torch.tensor([int(expected["label"])]))
    got = network(
        torch.from_numpy(expected["noise_stream"][:1]).float(),
        torch.tensor([float(expected["unet_log_snr_input"])]),
        torch.from_numpy(expected["geo"]).float()[None],
        label,
    )
    close(got[0], expected["unet_forward"], MATERIAL)


@torch.inference_mode()
def test_material_samples(material):
    network, expected = material
    noises = torch.from_numpy(expected["noise_stream"]).float()[:, None]
    denoiser = MaterialDenoiser(
        network,
        Schedule.material(int(expected["timesteps"])),
        torch.from_numpy(expected["geo"]).float()[None],
        torch.tensor([int(expected["label"])]),
    )
    got = last(ancestral(noises[0], denoiser, lambda step: noises[step + 1])).clamp(-1, 1)
    close(got, expected["sample"], MATERIAL)


@pytest.mark.parametrize(
    ("case", "parameters"), [("omages_dit-full", 161_062_664), ("omages_g2m-full", 415_216_934)]
)
def test_the_published_sizes_have_the_published_keys(golden, case, parameters):
    keys = json.loads((golden / case / "keys.json").read_text())
    with torch.device("meta"):
        if "dit" in case:
            network = GeometryTransformer(TransformerConfig())
            names = {
                f"{prefix}{name}": name
                for prefix in ("model.", "baseDiT.")
                for name in network.state_dict()
            }
        else:
            network = MaterialNetwork(UNetConfig())
            inner = [name.removeprefix("unets.") for name in network.state_dict()]
            names = {
                f"{prefix}unets.{'0.' * bool(prefix)}{name}": f"unets.{name}"
                for prefix in ("", "imagen.", "model.")
                for name in inner
                if name != LABELS
            }
            names[LABELS] = LABELS
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert {key: shapes[name] for key, name in names.items()} == {k: v[0] for k, v in keys.items()}
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
