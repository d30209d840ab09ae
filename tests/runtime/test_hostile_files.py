"""Images, meshes and weights from anywhere: what they come to is bounded, and errors are typed."""

from __future__ import annotations

import io
import json
import lzma
import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from safetensors.torch import load_file, save_file

from runtime.images import reading
from runtime.images.reading import FORMATS, open_image, read_image, read_rgba
from runtime.meshes import files as mesh_files
from runtime.meshes import quantised
from runtime.meshes.collection import list_meshes
from runtime.meshes.files import read_mesh
from runtime.meshes.quantised import read_quantised, to_quantised
from runtime.training import trainer_module
from runtime.training.datasets import XRayDataset
from runtime.triposr.config import TripoSRConfig
from runtime.xray.networks import make_network
from runtime.xray.networks.base import NetworkConfig
from runtime.xray.weights import load_weights, save_weights
from runtime.xray_paper import parts
from xray_addon import XRayError

ROOT = Path(__file__).resolve().parents[2]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/tmp/owned) (w) file closefile\n"


def refused(code: str, read, *arguments) -> str:
    with pytest.raises(XRayError) as caught:
        read(*arguments)
    assert caught.value.code == code
    return str(caught.value)


def peak_of(program: str) -> tuple[str, int]:
    """What a Python prints, and the MB that it takes beyond its imports."""
    imports = "import resource, sys\nfrom runtime.images.reading import *\n"
    tail = "\npeak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\nprint(peak - before)"
    before = "\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
    command = [sys.executable, "-c", imports + before + program + tail]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    *said, peak = done.stdout.split("\n")[:-1]
    return "\n".join(said), int(peak)


# ----------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("name", ["photo.png", "photo.eps", "photo"])
def test_an_eps_is_no_image_under_any_name(tmp_path, monkeypatch, name):
    def run(*_arguments, **_options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(subprocess, "Popen", run)
    (tmp_path / name).write_bytes(EPS)
    assert "is a PostScript file" in refused("unreadable_image", read_image, tmp_path / name)
    refused("unreadable_image", read_rgba, EPS)


def test_no_library_of_this_process_opens_another_format():
    assert set(Image.OPEN) == set(FORMATS) == set(Image.ID)
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(EPS))


@pytest.mark.parametrize("kind", ["glb", "obj", "ply"])
def test_an_eps_as_a_texture_is_not_opened(tmp_path, monkeypatch, kind):
    def run(*_arguments, **_options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(subprocess, "Popen", run)
    path = tmp_path / f"a.{kind}"
    if kind == "glb":
        box = trimesh.creation.box()
        uv = np.zeros((8, 2))
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (4, 4)))
        box.visual = trimesh.visual.TextureVisuals(uv, material=material)
        data = box.export(file_type="glb")
        start = data.index(b"\x89PNG")
        path.write_bytes(data[:start] + EPS[: len(data) - start].ljust(len(data) - start, b" "))
    elif kind == "obj":
        path.write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl m\n"
                        "f 1/1 2/1 3/1\n")  # fmt: skip
        (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd a.png\n")
        (tmp_path / "a.png").write_bytes(EPS)
    else:
        path.write_text(
            "ply\nformat ascii 1.0\ncomment TextureFile a.png\nelement vertex 3\n"
            "property float x\nproperty float y\nproperty float z\nelement face 1\n"
            "property list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
        )
        (tmp_path / "a.png").write_bytes(EPS)
    assert read_mesh(path).materials[0].texture is None


@pytest.mark.parametrize("name", ["a.webp", "a.avif"])
def test_damaged_webp_and_avif_are_unreadable(tmp_path, name):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    image.save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        for at in random.integers(20, len(whole), 8):
            content[at] ^= int(random.integers(1, 256))
        (tmp_path / name).write_bytes(content[: random.integers(100, len(content) + 1)])
        try:
            read_image(tmp_path / name)
            read_rgba(tmp_path / name)
        except XRayError as error:
            assert error.code == "unreadable_image"  # noqa: PT017 - it may be readable too


def png_bomb(side: int, depth: int, color: int) -> bytes:
    """A PNG of zeros, a thousandth as large as its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    channels = {0: 1, 2: 3, 6: 4}[color]
    pack = zlib.compressobj(9)
    row = bytes(1 + side * channels * depth // 8)
    data = b"".join(pack.compress(row) for _ in range(side)) + pack.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_more_pixels_than_the_limit_are_refused_before_they_are_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(png_bomb(13_300, 16, 0))
    started = time.monotonic()
    assert "67 million pixels" in refused("unreadable_image", read_image, tmp_path / "a.png")
    assert time.monotonic() - started < 1
    refused("unreadable_image", read_rgba, tmp_path / "a.png")


@pytest.mark.parametrize(("depth", "color"), [(16, 0), (8, 2), (16, 6), (8, 6)])
def test_memory_is_at_most_four_times_four_bytes_a_pixel(tmp_path, depth, color):
    side = 3000
    (tmp_path / "a.png").write_bytes(png_bomb(side, depth, color))
    said, peak = peak_of(f"print(read_image({str(tmp_path / 'a.png')!r}).size)")
    assert said == "(2048, 2048)"
    assert peak < 4 * 4 * side**2 / 2**20 + 20


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_pipes_and_devices_are_no_images_or_meshes(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    os.mkfifo(tmp_path / "a.glb")
    (tmp_path / "zero.glb").symlink_to("/dev/zero")
    for path in (tmp_path / "a.png", "/dev/zero"):
        refused("unreadable_image", read_image, path)
        refused("unreadable_image", read_rgba, path)
    for name in ("a.glb", "zero.glb"):
        refused("unreadable_mesh", read_mesh, tmp_path / name)
    os.mkfifo(tmp_path / "a.npz.xz")
    refused("unreadable_mesh", read_quantised, tmp_path / "a.npz.xz")


def test_errors_of_the_body_of_open_image_keep_their_code(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(XRayError, match="mine") as caught, open_image(tmp_path / "a.png"):
        raise XRayError("mine", "mine")
    assert caught.value.code == "mine"
    refused("missing_file", read_rgba, tmp_path / "none.png")


def test_an_image_larger_than_any_image_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST_FILE", 10)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert "larger" in refused("unreadable_image", read_image, tmp_path / "a.png")


# ----------------------------------------------------------------------------------------- meshes


def glb_of(document: dict, binary: bytes = b"") -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if binary:
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def box_document() -> tuple[dict, bytes]:
    data = trimesh.creation.box().export(file_type="glb")
    length = int.from_bytes(data[12:16], "little")
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def test_a_count_without_data_is_refused_before_zeros_are_made(tmp_path):
    document, binary = box_document()
    for accessor in document["accessors"]:
        accessor.pop("bufferView")
        accessor["count"] = 10**9
    (tmp_path / "a.glb").write_bytes(glb_of(document, binary))
    assert "count" in refused("unreadable_mesh", read_mesh, tmp_path / "a.glb")


def test_a_mesh_that_stands_in_its_scene_a_million_times_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(mesh_files, "MOST_FACES", 1000)
    document, binary = box_document()
    node = next(i for i, node in enumerate(document["nodes"]) if "mesh" in node)
    document["nodes"] += [dict(document["nodes"][node], name=f"n{i}") for i in range(100)]
    document["scenes"][0]["nodes"] = list(range(len(document["nodes"])))
    (tmp_path / "a.glb").write_bytes(glb_of(document, binary))
    assert "more than 1000 faces" in refused("unreadable_mesh", read_mesh, tmp_path / "a.glb")


@pytest.mark.parametrize("name", ["/dev/zero", "../outside.png", "pipe.png", "link.png"])
def test_textures_are_regular_files_beside_their_mesh(tmp_path, name):
    folder = tmp_path / "meshes"
    folder.mkdir()
    Image.new("RGB", (4, 4), "red").save(tmp_path / "outside.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.png")
        (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl m\n"
                                  "f 1/1 2/1 3/1\n")  # fmt: skip
    (folder / "a.mtl").write_text(f"newmtl m\nmap_Kd {name}\n")
    try:
        textures = [material.texture for material in read_mesh(folder / "a.obj").materials]
    except XRayError as error:
        assert error.code == "unreadable_mesh"  # noqa: PT017 - it may be read without as well
    else:
        assert textures == [None]


def test_other_formats_of_trimesh_are_not_read(tmp_path):
    for name in ("a.3mf", "a.dae", "a.zip", "a.dict", "a.json", "a"):
        (tmp_path / name).write_bytes(b"{}")
        assert "none of" in refused("unreadable_mesh", read_mesh, tmp_path / name)


def test_xz_that_comes_to_too_much_is_refused_in_little_memory(tmp_path, monkeypatch):
    (tmp_path / "a.npz.xz").write_bytes(lzma.compress(bytes(1 << 27)))
    assert (tmp_path / "a.npz.xz").stat().st_size < 1 << 15
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "more than" in refused("unreadable_mesh", read_quantised, tmp_path / "a.npz.xz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    monkeypatch.setattr(quantised, "LARGEST_DICTIONARY", 1 << 16)
    refused("unreadable_mesh", read_quantised, tmp_path / "a.npz.xz")


def test_a_packed_mesh_with_odd_arrays_is_unreadable(tmp_path):
    surface = mesh_files.read_mesh(_box(tmp_path))
    whole = np.load(io.BytesIO(lzma.decompress(to_quantised(surface))))
    path = tmp_path / "a.npz.xz"
    for name, value in (
        ("faces", np.array([[0, 1, 10**6]])),
        ("faces", np.array([0.5])),
        ("frame", np.zeros(2)),
        ("frame", np.full(4, np.inf)),
        ("positions", np.zeros((3, 2))),
        ("base_colors", np.zeros((1, 5))),
        ("texture0", np.frombuffer(EPS, np.uint8)),
        ("texture0", np.zeros(4)),
        ("normals", np.zeros(3)),
    ):
        stream = io.BytesIO()
        np.savez(stream, **{**whole, name: value})
        path.write_bytes(lzma.compress(stream.getvalue()))
        try:
            read_quantised(path)
        except XRayError as error:
            assert error.code == "unreadable_mesh"  # noqa: PT017 - some of it still is a mesh


def _box(folder: Path) -> Path:
    trimesh.creation.box().export(folder / "box.glb")
    return folder / "box.glb"


def test_a_list_of_meshes_reaches_nothing_above_its_folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    _box(data)
    _box(tmp_path)
    (data / "manifest.csv").write_text("path,split\nbox.glb,train\n../box.glb,train\n")
    assert [file.path for file in list_meshes(data, split="train")] == [data / "box.glb"]
    for text in ("file\nbox.glb\n", "path\n\n,x\n"):
        (data / "manifest.csv").write_text(text)
        refused("bad_manifest", list_meshes, data)


# ---------------------------------------------------------------------------------------- configs

TINY = NetworkConfig(layers=2, resolution=8, image_resolution=16, channels=(32, 32), blocks=(1, 1))


def weights_with(path: Path, **changes) -> Path:
    save_weights(path, make_network(TINY), {"steps": 1})
    metadata = {
        "format": "xray-predictor",
        "config": json.dumps({**_config_in(path), **changes}),
        "training": "{}",
    }
    save_file(load_file(path), path, metadata=metadata)
    return path


def _config_in(path: Path) -> dict:
    head = path.read_bytes()
    length = int.from_bytes(head[:8], "little")
    return json.loads(json.loads(head[8 : 8 + length])["__metadata__"]["config"])


def test_weights_come_back_through_the_meta_device(tmp_path):
    model = make_network(TINY)
    save_weights(tmp_path / "a.safetensors", model, {"steps": 3})
    again, record = load_weights(tmp_path / "a.safetensors", "cpu")
    assert record == {"steps": 3}
    for name, tensor in again.state_dict().items():
        assert not tensor.is_meta
        torch.testing.assert_close(tensor, model.state_dict()[name], atol=0.01, rtol=0.01)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": [8192, 8192]},  # 15 GB of kernels
        {"channels": [10**6, 10**6]},
        {"blocks": [10**9, 1]},
        {"channels": [8] * 1000, "blocks": [1] * 1000},
        {"layers": 10**12},
        {"layers": 0},
        {"fold": 0},
        {"layers": "2"},
        {"network": "nobody"},
        {"channels": "32"},
        {"unknown": 3},
        {"resolution": -8},
    ],
)
def test_a_config_in_weights_is_checked_before_anything_is_made(tmp_path, changes):
    path = weights_with(tmp_path / "a.safetensors", **changes)
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused("bad_weights", load_weights, path, "cpu")
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("tensor", ["conv.weight.scale", "nobody", "nobody.scale"])
def test_tensors_that_fit_nothing_are_refused(tmp_path, tensor):
    path = weights_with(tmp_path / "a.safetensors")
    metadata = {"format": "xray-predictor", "config": json.dumps(_config_in(path)),
                "training": "{}"}  # fmt: skip
    save_file({**load_file(path), tensor: torch.zeros(3)}, path, metadata=metadata)
    refused("bad_weights", load_weights, path, "cpu")


DEEP = "[" * 50_000 + "]" * 50_000
ALIASES = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(20)
)


@pytest.mark.parametrize(
    "text",
    [ALIASES, DEEP, "a: " * 3000, "[" * 60_000, "\0", "- 1", "2001-99-99", "x" * (1 << 17),
     "!!python/object/apply:os.system ['true']"],
)  # fmt: skip
def test_a_yaml_is_small_plain_and_without_aliases(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    started = time.monotonic()
    refused("bad_weights", TripoSRConfig.read, tmp_path / "config.yaml")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("backbone", "num_layers", 10**9), ("backbone", "num_layers", "many"),
     ("decoder", "n_neurons", 0),
     ("renderer", "radius", float("inf")), ("renderer", "num_samples_per_ray", 10**9),
     ("tokenizer", "plane_size", 10**6), ("tokenizer", "plane_size", None),
     ("image_tokenizer", "pretrained_model_name_or_path", ["a"]), ("post_processor", None, 3)],
)  # fmt: skip
def test_numbers_of_a_triposr_config_are_bounded(tmp_path, part, name, value):
    import yaml

    text, vit = TripoSRConfig().published()
    data = yaml.safe_load(text)
    if name is None:
        data[part] = value
    else:
        data[part][name] = value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(data))
    refused("bad_weights", TripoSRConfig.read, tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "dino").mkdir()
    for odd in ("[]", DEEP, vit.replace("12", "1e999"), vit.replace('"hidden_size"', '"hidden"')):
        (tmp_path / "dino/config.json").write_text(odd)
        refused("bad_weights", TripoSRConfig.read, tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "change",
    [{"layers_per_block": 10**9}, {"block_out_channels": [10**9]}, {"layers_per_block": 0.5},
     {"block_out_channels": [32] * 100}, {"down_block_types": ["x" * 10**6]}, {"deep": None},
     {"num_attention_heads": 0}, {"cross_attention_dim": -1}, {"in_channels": "12"}],
)  # fmt: skip
def test_a_paper_config_is_bounded(tmp_path, change):
    config = {**parts.FULL_UNET, **change}
    text = json.dumps(config) if "deep" not in change else '{"a": ' + DEEP + "}"
    (tmp_path / "config.json").write_text(text)
    started = time.monotonic()
    refused("bad_weights", parts.load_unet, tmp_path)
    assert time.monotonic() - started < 30


def test_a_parts_file_and_a_training_config_are_checked(tmp_path):
    path = tmp_path / "parts.json"
    for text in ("[", "[]", '{"unet": 3}', '{"unet": "a", "other": "b"}', DEEP, "{}"):
        path.write_text(text)
        refused("bad_weights", parts.Parts.find, str(path))
        try:
            trainer_module(path)
        except XRayError as error:
            assert error.code == "unknown_generator"  # noqa: PT017 - without a name it is X-Ray's
    path.write_text('{"generator": ["xray"]}')
    refused("unknown_generator", trainer_module, path)


# --------------------------------------------------------------------------------------- datasets


@pytest.mark.parametrize(
    "line",
    ["[", "3", "{}", '{"xray": 3}', '{"xray": "000.npz"}', '{"xray": "xrays/../../a/000.npz"}',
     '{"xray": "xrays/../000.npz"}', '{"xray": "/etc/a/000.npz"}', '{"xray": "xrays/a/b.npz"}',
     '{"xray": "xrays/a/²²².npz"}', DEEP, '{"xray": "xrays/a/000"}'.replace("000", "x")],
)  # fmt: skip
def test_a_line_of_metadata_that_names_no_view_is_said(tmp_path, line):
    (tmp_path / "metadata.jsonl").write_text(line + "\n")
    refused("bad_metadata", XRayDataset, tmp_path / "metadata.jsonl")


def test_items_without_a_row_are_not_whole(tmp_path):
    for uid in ("whole", "half"):
        (tmp_path / "xrays" / uid).mkdir(parents=True)
        (tmp_path / "xrays" / uid / "000.npz").write_bytes(b"")
    assert len(XRayDataset(tmp_path)) == 2  # the published layout, which has no rows
    (tmp_path / "settings.json").write_text("{}")
    refused("no_data", XRayDataset, tmp_path)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/whole.json").write_text("{}")
    assert [view.uid for view in XRayDataset(tmp_path).views] == ["whole"]


def test_links_in_a_tar_are_no_members(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("a-000.npz")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
        folder = tarfile.TarInfo("b-000.npz")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    refused("no_data", XRayDataset, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        member = tarfile.TarInfo("../../a-000.npz")
        tar.addfile(member)
    refused("bad_shard", XRayDataset, tmp_path / "b.tar")
