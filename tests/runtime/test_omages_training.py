"""Training of the omage networks: what they see, what they learn, and that runs go on."""

from __future__ import annotations

import itertools
import json

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from runtime.omages.data import NO_CATEGORY, OmageDataset, collection, split_numbers, to_tensor
from runtime.omages.objectives import GeometryObjective, MaterialObjective
from runtime.omages.sampling import Schedule
from runtime.omages.training import TrainingConfig, train
from runtime.omages.weights import GEOMETRY_FILE, MATERIAL_FILE, load_geometry, load_material
from runtime.training import trainer_module
from xray_addon import XRayError
from xray_addon.omage import Omage
from xray_addon.omage.categories import CATEGORIES

GEOMETRY = {"hidden": 16, "depth": 1, "heads": 2}
MATERIAL = {"channels": 8, "factors": [1, 2], "blocks": 1, "attention": [False, True], "heads": 1}


def omage(size=8, seed=0):
    values = np.random.default_rng(seed).random((size, size, 12)).astype(np.float32)
    values[..., 3] = 0
    values[1:-1, 1:-1, 3] = 1
    values[values[..., 3] == 0] = 0
    return Omage(values)


@pytest.fixture
def folder(tmp_path):
    """Three omages in folders called like categories, and one that is not."""
    for number, name in enumerate(("chair", "trash_can", "sofa/red ones", "things")):
        omage(seed=number).save(tmp_path / "data" / name / "a.npz")
    return tmp_path / "data"


@pytest.fixture
def published(tmp_path):
    """A set as it is published: five rows of 64 pixels, one of which failed."""
    values = [omage(64, seed).to_uint16() for seed in range(5)]
    with h5py.File(tmp_path / "df.h5", "w") as file:
        file["omage"] = np.stack(values)
    rows = {
        f"id{number}": {"success": number != 2, "cate_text": "chair", "cate_id": number, "path": ""}
        for number in range(5)
    }
    (tmp_path / "df_meta.json").write_text(json.dumps(rows))
    return tmp_path / "df.h5"


def settings(part, **values):
    network = GEOMETRY if part == "geometry" else MATERIAL
    defaults = {"size": 8, "batch": 2, "samples": 8, "workers": 0, "network": network}
    return TrainingConfig(part=part, **defaults | values)


def test_categories_are_the_folders_names(folder):
    data = collection(folder)
    assert [CATEGORIES[n] if n < NO_CATEGORY else "" for n in data.categories] == [
        "chair",
        "sofa",
        "",
        "trash can",
    ]
    assert np.array_equal(data.omage(0).values, omage(seed=0).to_uint16())


def test_the_published_set_is_read_without_the_rows_that_failed(published):
    for path in (published, published.parent):
        data = collection(path)
        assert len(data) == 4
        assert list(data.categories) == [0, 1, 3, 4]
        assert np.array_equal(data.omage(2).values, omage(64, 3).to_uint16())


def test_data_that_is_none_is_refused(tmp_path, published):
    with pytest.raises(XRayError) as raised:
        collection(tmp_path / "nothing")
    assert raised.value.code == "no_data"
    metadata = published.parent / "df_meta.json"
    whole = metadata.read_text()
    broken = {
        "not JSON": "{",
        "rows": json.dumps({"a": json.loads(whole)["id0"]}),
        "no category": json.dumps({k: {"success": True} for k in json.loads(whole)}),
    }
    for text in broken.values():
        metadata.write_text(text)
        with pytest.raises(XRayError) as raised:
            collection(published)
        assert raised.value.code == "bad_data"
    metadata.write_text(whole)
    published.write_bytes(b"no HDF5")
    with pytest.raises(XRayError) as raised:
        collection(published)
    assert raised.value.code == "bad_data"


def test_splits_are_the_published_ones():
    # np.random.seed(314), then np.random.shuffle, as the published code does.
    shuffled = [12, 1, 17, 5, 11, 4, 3, 15, 18, 6, 19, 16, 2, 7, 0, 14, 10, 9, 13, 8]
    assert split_numbers(20, "train").tolist() == shuffled[:18]
    assert split_numbers(20, "val").tolist() == shuffled[18:]
    assert split_numbers(20, "all").tolist() == list(range(20))


def test_unoccupied_pixels_are_minus_one_and_occupancy_is_rounded():
    values = np.full((8, 8, 12), 0.25)
    values[:4, :, 3] = 0.5
    seen = to_tensor(Omage(values), 8)
    assert seen.shape == (12, 8, 8)
    assert (seen[:, 4:] == -1).all()
    assert (seen[3, :4] == 1).all()
    assert (seen[7, :4] == -0.5).all()
    with pytest.raises(XRayError) as raised:
        to_tensor(Omage(values[..., :4]), 8)
    assert raised.value.code == "bad_omage"


def test_samples_follow_from_their_number(folder):
    data = collection(folder)
    whole = OmageDataset(data, split_numbers(4, "all"), 8, seed=3, batch=5)
    rest = OmageDataset(data, split_numbers(4, "all"), 8, seed=3, batch=5, first_batch=1)
    for number, sample in zip(range(5, 9), rest, strict=False):
        assert torch.equal(sample["omage"], whole.sample(number)["omage"])
        assert sample["label"] == whole.sample(number)["label"]


def test_a_resumed_loader_goes_on_with_any_number_of_workers(folder):
    data, numbers = collection(folder), split_numbers(4, "all")
    whole = OmageDataset(data, numbers, 8, seed=3, batch=2)
    rest = OmageDataset(data, numbers, 8, seed=3, batch=2, first_batch=1)
    expected = itertools.islice(DataLoader(whole, batch_size=2, num_workers=0), 1, 4)
    for wanted, got in zip(expected, DataLoader(rest, batch_size=2, num_workers=2), strict=False):
        assert torch.equal(wanted["omage"], got["omage"])


class Oracle(torch.nn.Module):
    """Knows the clean image, so it can tell the noise; its variance is the smallest."""

    def __init__(self, clean, objective):
        super().__init__()
        self.clean, self.objective = clean, objective
        self.config = settings("geometry").network_config()

    def forward(self, x, step, _label):
        alpha = self.objective.alpha[step].float()[:, None, None, None]
        sigma = self.objective.sigma[step].float()[:, None, None, None]
        return torch.cat([(x - alpha * self.clean) / sigma, -torch.ones_like(x)], dim=1)


def test_a_network_that_knows_the_noise_has_no_loss_but_rounding():
    objective = GeometryObjective(Schedule.geometry())
    clean = torch.rand(8, 4, 6, 6) * 2 - 1
    random = torch.Generator().manual_seed(0)
    terms = objective.losses(Oracle(clean, objective), clean, torch.zeros(8, dtype=int), random)
    assert terms["noise"] < 1e-4
    assert terms["bound"] < 0.02
    # A wrong variance costs.
    wrong = Oracle(clean, objective)
    wrong.forward = lambda *a: (
        Oracle.forward(wrong, *a)
        * torch.tensor([1, -1])[None].repeat_interleave(4, 1)[..., None, None]
    )
    random = torch.Generator().manual_seed(0)
    assert (
        objective.losses(wrong, clean, torch.zeros(8, dtype=int), random)["bound"] > terms["bound"]
    )


def test_posteriors_are_those_of_the_schedule():
    schedule = Schedule.geometry()
    objective = GeometryObjective(schedule)
    betas = 1 - (schedule.alpha[:-1] / schedule.alpha[1:])[::-1] ** 2
    retained = np.cumprod(1 - betas)
    before = np.append(1.0, retained[:-1])
    variance = betas * (1 - before) / (1 - retained)
    variance[0] = variance[1]
    np.testing.assert_allclose(objective.least.exp(), variance, rtol=1e-9)
    np.testing.assert_allclose(objective.most.exp(), betas, rtol=1e-9)
    mean = betas * np.sqrt(before) / (1 - retained)
    np.testing.assert_allclose(objective.from_clean, mean, rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 30, 1000])
def test_sampling_begins_where_all_is_noise(steps):
    for schedule in (Schedule.geometry(steps), Schedule.material(steps)):
        assert schedule.alpha[0] < 0.02
    assert Schedule.geometry(steps).times[0] == 999


def test_the_material_network_sees_the_geometry_and_learns_the_rest():
    objective = MaterialObjective()
    seen = {}

    class Spy(torch.nn.Module):
        config = settings("material").network_config()

        def encode(self, label, keep):
            seen.update(label=label, keep=keep)
            return label, keep

        def forward(self, x, _log_snr, geometry, _label):
            seen.update(x=x, geometry=geometry)
            return torch.zeros_like(x)

    omages = torch.rand(64, 12, 4, 4)
    labels = torch.tensor([NO_CATEGORY] + [5] * 63)
    random = torch.Generator().manual_seed(1)
    terms = objective.losses(Spy(), omages, labels, random)
    assert torch.equal(seen["geometry"], omages[:, :4])
    assert seen["x"].shape == (64, 5, 4, 4)
    assert not seen["keep"][0]
    assert 0 < (~seen["keep"]).sum() < 20
    assert 0 < terms["velocity"] < 1


@pytest.mark.parametrize(
    ("part", "file", "load"),
    [
        ("geometry", GEOMETRY_FILE, load_geometry),
        ("material", MATERIAL_FILE, load_material),
    ],
)
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(part, file, load, folder, tmp_path):
    whole = train(settings(part, samples=16), folder, tmp_path / "whole")
    train(settings(part), folder, tmp_path / "parts")
    resumed = train(settings(part, samples=16), folder, tmp_path / "parts", resume=True)
    assert whole.samples == resumed.samples == 16
    wanted = load(tmp_path / "whole" / file).state_dict()
    for name, tensor in load(tmp_path / "parts" / file).state_dict().items():
        assert torch.equal(tensor, wanted[name]), name
    # Weights alone are kept, too, but no run goes on from them.
    (tmp_path / "parts/checkpoint.pt").unlink()
    for resume, code in ((False, "bad_settings"), (True, "bad_checkpoint")):
        with pytest.raises(XRayError, match=r"contains a|without checkpoint") as caught:
            train(settings(part, samples=16), folder, tmp_path / "parts", resume=resume)
        assert caught.value.code == code


def test_training_makes_the_loss_smaller(folder, tmp_path):
    out = tmp_path / "out"
    train(settings("geometry", samples=160, batch=4, learning_rate=1e-2), folder, out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["noise"] < 0.9 * lines[0]["noise"]


def test_the_average_of_the_material_network_is_stored(folder, tmp_path):
    train(settings("material", learning_rate=1e-2), folder, tmp_path / "out")
    raw = load_material(tmp_path / "out")
    average = load_material(tmp_path / "out", average=True)
    assert not torch.equal(raw.unets.final_conv.weight, average.unets.final_conv.weight)


def test_a_folder_with_a_run_is_left_alone(folder, tmp_path):
    train(settings("geometry"), folder, tmp_path / "out")
    with pytest.raises(XRayError) as raised:
        train(settings("geometry"), folder, tmp_path / "out")
    assert raised.value.code == "bad_settings"


def test_configurations_are_checked_and_those_that_ship_are_right(tmp_path):
    from runtime import omages

    root = omages.__path__[0]
    for name, part in (("null2geo", "geometry"), ("geo2mat", "material")):
        path = tmp_path.__class__(root) / f"{name}.json"
        assert TrainingConfig.read(path).part == part
        assert trainer_module(path).__name__ == "runtime.omages.training"
    for wrong in ({"part": "both"}, {"split": "some"}, {"network": {"hidden": 7}}, {"batch": 0}):
        (tmp_path / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(XRayError) as raised:
            TrainingConfig.read(tmp_path / "config.json")
        assert raised.value.code == "bad_config"


def test_a_dataset_of_ours_gives_the_resolution_that_is_wanted(tmp_path):
    (tmp_path / "metadata").mkdir()
    for uid, source in (("a", "chair/one.glb"), ("b", "two.glb")):
        (tmp_path / "metadata" / f"{uid}.json").write_text(json.dumps({"source": source}))
        for size in (8, 16, 32):
            omage(size, size).save(tmp_path / "omages" / uid / f"{size}.npz")
    for wanted, given in ((8, 8), (12, 16), (64, 32)):
        data = collection(tmp_path, wanted)
        assert [data.omage(number).resolution for number in (0, 1)] == [given, given]
    assert list(data.categories) == [CATEGORIES.index("chair"), NO_CATEGORY]
