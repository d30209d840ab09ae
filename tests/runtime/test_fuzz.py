"""Readers of the runtime over mutated files: a value or an XRayError, in little memory and time."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from fuzzing import fuzz
from PIL import Image

from runtime.images.reading import FORMATS, read_image
from runtime.meshes.collection import list_meshes
from runtime.meshes.files import read_mesh
from runtime.meshes.quantised import read_quantised, to_quantised
from runtime.torch_helpers.tensors import read_tensors
from runtime.training import trainer_module
from runtime.training.datasets import XRayDataset
from runtime.triposr.config import TripoSRConfig
from runtime.xray.networks import make_network
from runtime.xray.networks.base import NetworkConfig
from runtime.xray.training import TrainingConfig
from runtime.xray.weights import load_weights, save_weights
from runtime.xray_paper import parts
from xray_addon import Camera, Surface, cast
from xray_addon.files.transforms import write_transforms

TINY = NetworkConfig(layers=2, resolution=8, image_resolution=16, channels=(32, 32), blocks=(1, 1))


def through(path: Path, read):
    """`read` of the file at `path`, which holds what is given."""

    def written(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return written


@pytest.mark.parametrize("kind", FORMATS)
def test_images(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind)
    fuzz(f"image, {kind}", stream.getvalue(), through(tmp_path / "a", read_image))


@pytest.mark.parametrize("kind", ["glb", "obj", "ply", "stl", "off"])
def test_meshes(tmp_path, kind):
    box = trimesh.creation.box()
    if kind == "glb":
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (4, 4)))
        box.visual = trimesh.visual.TextureVisuals(np.zeros((8, 2)), material=material)
    content = box.export(file_type=kind)
    data = content if isinstance(content, bytes) else content.encode()
    fuzz(f"mesh, .{kind}", data, through(tmp_path / f"a.{kind}", read_mesh))


def test_packed_meshes(tmp_path):
    import lzma

    path = tmp_path / "box.glb"
    trimesh.creation.box().export(path)
    packed = to_quantised(read_mesh(path))
    path = tmp_path / "a.npz.xz"
    fuzz("packed mesh, outside", packed, through(path, read_quantised))
    inside = through(path, read_quantised)
    fuzz("packed mesh, inside", lzma.decompress(packed), lambda data: inside(lzma.compress(data)))


def test_lists_of_meshes(tmp_path):
    text = b"path,pack,geom_group,split\na.glb,p,g,train\nb.glb,p,g,test\n"
    read = through(tmp_path / "manifest.csv", lambda path: list_meshes(path.parent))
    fuzz("list of meshes, manifest.csv", text, read)


def test_weights(tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(path, make_network(TINY), {"steps": 1})
    whole = path.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    read = through(path, lambda path: load_weights(path, "cpu"))
    fuzz("weights, .safetensors, their head", whole[:head], lambda data: read(data + whole[head:]))
    torch.save({"a": torch.zeros(3, 4), "b": torch.ones(2)}, path.with_suffix(".ckpt"))
    checkpoint = path.with_suffix(".ckpt")
    fuzz("weights, pickled", checkpoint.read_bytes(), through(checkpoint, read_tensors))


def test_configs(tmp_path):
    text, vit = TripoSRConfig().published()
    path = tmp_path / "config.yaml"
    (tmp_path / "dino").mkdir()
    (tmp_path / "dino/config.json").write_text(vit)
    fuzz("TripoSR's config.yaml", text.encode(), through(path, TripoSRConfig.read))
    path.write_text(text)
    read = through(tmp_path / "dino/config.json", lambda _path: TripoSRConfig.read(path))
    fuzz("TripoSR's dino/config.json", vit.encode(), read)
    config = json.dumps(parts.FULL_UNET).encode()
    read = through(tmp_path / "config.json", lambda path: parts.read_config(path.parent))
    fuzz("X-Ray at paper scale, config.json", config, read)
    training = b'{"generator": "xray", "layers": 4, "channels": [32, 32], "blocks": [1, 1]}'
    path = tmp_path / "training.json"
    fuzz("training configuration", training, through(path, TrainingConfig.read))
    fuzz("generator of a training", training, through(path, trainer_module))


def stored(folder: Path) -> tuple[bytes, bytes]:
    """X-Ray and camera of one view."""
    surface = Surface(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    camera = Camera.look_at((0.2, 0.2, 3), width=16, height=16)
    cast(surface, camera, 4).save(folder / "x.npz")
    write_transforms(folder / "t.json", [camera], ["000"])
    return (folder / "x.npz").read_bytes(), (folder / "t.json").read_bytes()


def all_of(dataset: XRayDataset) -> None:
    for number in range(len(dataset)):
        _ = dataset[number]


def test_listed_datasets(tmp_path):
    xray, cameras = stored(tmp_path)
    for kind, name, data in (("xrays", "000.npz", xray), ("images", "transforms.json", cameras)):
        (tmp_path / kind / "a").mkdir(parents=True)
        (tmp_path / kind / "a" / name).write_bytes(data)
    line = b'{"file_name": "images/a/000.png", "xray": "xrays/a/000.npz", "uid": "a", "view": 0}\n'
    path = tmp_path / "metadata.jsonl"
    fuzz("metadata.jsonl", line, through(path, lambda path: all_of(XRayDataset(path))))


def test_shards(tmp_path):
    xray, cameras = stored(tmp_path)
    document = json.loads(cameras)
    frame = {**document["frames"][0], "camera_angle_x": document["camera_angle_x"]}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for suffix, data in (("npz", xray), ("json", json.dumps({"camera": frame}).encode())):
            member = tarfile.TarInfo(f"a-000.{suffix}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path = tmp_path / "a.tar"
    read = through(path, lambda path: all_of(XRayDataset(path)))
    fuzz("shard, .tar", stream.getvalue()[: -(9 << 9)], read)
