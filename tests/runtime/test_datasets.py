"""Datasets as training samples: the same whichever way they lie on disk."""

from __future__ import annotations

import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from runtime.training.datasets import XRayDataset
from runtime.training.views import to_frames
from xray_addon import Camera, Surface, XRay, XRayError, cast
from xray_addon.files.transforms import write_transforms

UIDS = ("apple", "pear-2")
VIEWS = 2


def tetrahedron():
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 0.3
    return Surface(corners, [[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset as the extension writes it, and the same as a tar."""
    folder = tmp_path_factory.mktemp("data") / "dataset"
    lines = []
    tar = tarfile.open(folder.parent / "dataset-0001.tar", "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
    for seed, uid in enumerate(UIDS):
        random = np.random.default_rng(seed)
        names = [f"{view:03d}" for view in range(VIEWS)]
        cameras = [
            Camera.look_at((np.cos(view), np.sin(view), 0.5), width=16, height=16)
            for view in range(VIEWS)
        ]
        for name, camera in zip(names, cameras, strict=True):
            xray = folder / "xrays" / uid / f"{name}.npz"
            image = folder / "images" / uid / f"{name}.png"
            cast(tetrahedron(), camera, 4).save(xray)
            image.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 255, (32, 32, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(image)
            write_transforms(image.with_name("transforms.json"), cameras, names)
            lines.append(
                {"file_name": f"images/{uid}/{name}.png", "xray": f"xrays/{uid}/{name}.npz"}
            )
        document = json.loads((folder / "images" / uid / "transforms.json").read_text())
        for name, frame in zip(names, document["frames"], strict=True):
            values = {"camera": {"camera_angle_x": document["camera_angle_x"], **frame}}
            (folder.parent / "sample.json").write_text(json.dumps(values))
            tar.add(folder.parent / "sample.json", f"{uid}-{name}.json")
            tar.add(folder / "xrays" / uid / f"{name}.npz", f"{uid}-{name}.npz")
            tar.add(folder / "images" / uid / f"{name}.png", f"{uid}-{name}.png")
        (folder / "metadata").mkdir(exist_ok=True)
        (folder / "metadata" / f"{uid}.json").write_text("{}")
    tar.close()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metadata.jsonl").write_text(text)
    return folder


def same(a, b):
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, dict):
            same(value, b[key])
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, b[key]), key
        else:
            assert value == b[key]


def test_a_sample_is_what_lies_on_disk(folder):
    dataset = XRayDataset(folder)
    assert [(view.uid, view.number) for view in dataset.views] == [
        (uid, view) for uid in UIDS for view in range(VIEWS)
    ]
    sample = dataset[3]
    assert (sample["uid"], sample["view"]) == ("pear-2", 1)
    xray = XRay.load(folder / "xrays/pear-2/001.npz")
    assert len(xray.index) > 10
    np.testing.assert_array_equal(sample["frames"].numpy(), to_frames(xray))
    pixels = np.asarray(Image.open(folder / "images/pear-2/001.png"))
    np.testing.assert_array_equal(
        sample["image"].numpy(), np.moveaxis(pixels, -1, 0) / np.float32(255)
    )


def test_a_sample_has_the_camera_of_its_pixels(folder):
    camera = XRayDataset(folder)[1]["camera"]
    truth = Camera.look_at((np.cos(1), np.sin(1), 0.5), width=16, height=16)
    np.testing.assert_allclose(camera["camera_to_world"], truth.camera_to_world, atol=1e-6)
    assert camera["fov_x"] == pytest.approx(truth.fov_x)
    assert (float(camera["cx"]), float(camera["pixel_offset"])) == (8.0, 0.5)


@pytest.mark.parametrize("other", ["dataset-0001.tar", "dataset/metadata.jsonl"])
def test_every_format_gives_the_same_samples(folder, other):
    first, second = XRayDataset(folder), XRayDataset(str(folder.parent / other))
    assert len(first) == len(second) == 4
    for number in range(len(first)):
        same(first[number], second[number])


def test_several_places_are_one_dataset(folder):
    dataset = XRayDataset([folder, folder.parent / "dataset-0001.tar"])
    assert len(dataset) == 8
    same(dataset[0], dataset[4])


def test_other_names_are_no_views(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy/xrays/apple/._000.npz").write_bytes(b"a Mac was here")
    assert len(XRayDataset(tmp_path / "copy")) == len(XRayDataset(folder))
    tar = tmp_path / "other-0001.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(folder / "xrays/apple/000.npz", "apple.npz")
    with pytest.raises(XRayError) as caught:
        XRayDataset(tar)
    assert caught.value.code == "bad_shard"


def test_torch_loads_it_in_batches(folder):
    # Two workers: what a dataset keeps open must not be shared between processes.
    loader = DataLoader(XRayDataset(folder.parent / "dataset-0001.tar"), 2, num_workers=2)
    batches = list(loader)
    assert [batch["uid"] for batch in batches] == [["apple", "apple"], ["pear-2", "pear-2"]]
    assert batches[0]["frames"].shape == (2, 4, 8, 16, 16)
    assert batches[0]["image"].shape == (2, 4, 32, 32)
    assert batches[0]["camera"]["camera_to_world"].shape == (2, 4, 4)


def test_items_without_a_row_are_not_complete(folder):
    row = folder / "metadata" / "apple.json"
    row.rename(folder / "away.json")
    try:
        assert {view.uid for view in XRayDataset(folder).views} == {"pear-2"}
    finally:
        (folder / "away.json").rename(row)


def test_a_published_dataset_needs_no_rows_and_no_images(folder, tmp_path):
    (tmp_path / "xrays/apple").mkdir(parents=True)
    (tmp_path / "images/apple").mkdir(parents=True)
    (tmp_path / "xrays/apple/000.npz").write_bytes((folder / "xrays/apple/000.npz").read_bytes())
    document = json.loads((folder / "images/apple/transforms.json").read_text())
    kept = ("file_path", "transform_matrix", "c2w")
    document["frames"] = [{key: frame[key] for key in kept} for frame in document["frames"]]
    (tmp_path / "images/apple/transforms.json").write_text(json.dumps(document))
    (sample,) = [XRayDataset(tmp_path)[0]]
    assert "image" not in sample
    assert float(sample["camera"]["pixel_offset"]) == 0.0


def test_published_examples(golden):
    dataset = XRayDataset(golden / "xray")
    assert len(dataset) == 3
    for sample in dataset:
        assert sample["frames"].shape == (16, 8, 256, 256)
        assert sample["image"].shape == (4, 512, 512)
        # What is opaque in the image is hit in the first layer.
        opaque = sample["image"][3, ::2, ::2] > 0.5
        hit = sample["frames"][0, 7] > 0
        assert (opaque & hit).sum() / (opaque | hit).sum() > 0.9


@pytest.mark.parametrize(
    ("content", "name", "code"),
    [
        (None, "gone.tar", "missing_file"),
        (None, "gone.jsonl", "missing_file"),
        (b"no tar", "bad.tar", "bad_shard"),
        (b"no json\n", "bad.jsonl", "bad_metadata"),
        (b"[1]\n", "list.jsonl", "bad_metadata"),
        (b"", "empty.jsonl", "no_data"),
    ],
)
def test_what_is_no_dataset_is_refused(tmp_path, content, name, code):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(XRayError) as error:
        XRayDataset(tmp_path / name)
    assert error.value.code == code
