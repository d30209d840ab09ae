"""Readers of the core over mutated files: a value or an XRayError, in little memory and time."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from fuzzing import fuzz

from xray_addon import Camera, Surface, XRay, cast
from xray_addon.dataset.gates import ViewStatistics
from xray_addon.dataset.manifest import Item, read_source
from xray_addon.dataset.recipe import Recipe
from xray_addon.dataset.result import DONE, FAILED, ItemResult
from xray_addon.dataset.store import claim, find, finish, refuse, work_folder, write_log
from xray_addon.errors import XRayError
from xray_addon.files.arrays import read_array
from xray_addon.files.transforms import read_transforms, write_transforms
from xray_addon.generated import Generated
from xray_addon.process import protocol
from xray_addon.settings.dataset import DatasetSettings

SETTINGS = DatasetSettings()
TRIANGLE = Surface(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
CAMERA = Camera.look_at((0.2, 0.2, 3), width=16, height=16)


def through(path: Path, read):
    """`read` of the file at `path`, which holds what is given."""

    def written(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return written


def bytes_of(path: Path, write) -> bytes:
    write(path)
    return path.read_bytes()


def test_xray_files(tmp_path):
    path = tmp_path / "x.npz"
    xray = cast(TRIANGLE, CAMERA, 4)
    fuzz("X-Ray, `.npz`", bytes_of(path, xray.save), through(path, XRay.load))


def test_results(tmp_path):
    path = tmp_path / "x.npz"
    generated = Generated(TRIANGLE, cast(TRIANGLE, CAMERA, 4), CAMERA)
    fuzz("result of a generation", bytes_of(path, generated.save), through(path, Generated.load))


def test_previews(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 4, 4), np.uint8))

    def read(path: Path) -> object:
        try:
            return read_array(path, largest=1 << 24)
        except (OSError, ValueError) as error:  # which the client hears
            raise XRayError("bad_result", str(error)) from error

    fuzz("preview, `.npy`", stream.getvalue(), through(tmp_path / "x.npy", read))


def test_transforms(tmp_path):
    path = tmp_path / "transforms.json"
    write_transforms(path, [CAMERA, CAMERA], ["000", "001"])
    read = through(path, lambda path: read_transforms(path, 16, 16))
    fuzz("transforms.json", path.read_bytes(), read)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_manifests(tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    text = "path,uid,license\na.glb,one,CC0\nb/c.obj,,\n"
    if suffix == "jsonl":
        text = '{"path": "a.glb", "uid": "one", "license": "CC0"}\n{"path": "b/c.obj"}\n'
    fuzz(f"manifest, `.{suffix}`", text.encode(), through(path, read_source))


def row(**more) -> dict:
    return {
        "uid": "chair", "source": "chair.glb", "source_sha256": "", "source_bytes": 5,
        "license": "", "settings": Recipe.of(SETTINGS).digest, "triangles": 12,
        "gates": ["low_iou"],
        "images": True, "views": [ViewStatistics([3, 2], dropped=1, iou=0.95).to_dict()],
        "files": {"xrays/chair/000.npz": 4}, "companions": {"chair.mtl": ""}, **more,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["metadata", "refused", "logs", "settings"])
def test_rows(tmp_path, kind):
    folder = tmp_path / "dataset"
    claim(folder, SETTINGS)
    values = row()
    if kind == "refused":
        values = row(status="rejected", code="few_hits", reason="Few.")
    if kind == "logs":
        values = {**ItemResult("chair", DONE).to_dict(), "read": ["/a", 1, 2, 3]}
    name = f"{kind}/chair.json"
    if kind == "settings":
        name, values = "settings.json", Recipe.of(SETTINGS).to_dict()
    (folder / name).parent.mkdir(exist_ok=True)
    strict = DatasetSettings(min_hits=9)

    def read(_path: Path) -> None:
        digest = claim(folder, SETTINGS, replace=True)
        find(folder, Item("chair", ""), digest)
        claim(folder, strict)
        refuse(folder, Item("b", ""), Recipe.of(strict).digest, FAILED, XRayError("internal", "x"))
        finish(folder)

    fuzz(f"dataset's {name}", json.dumps(values).encode(), through(folder / name, read))
    assert {path.name for path in tmp_path.iterdir()} == {"dataset"}


def test_what_a_killed_run_left(tmp_path):
    folder = tmp_path / "dataset"
    claim(folder, SETTINGS)
    values = row(status="rejected", code="crashed", reason="")

    def read(data: bytes) -> None:
        own = folder / ".work" / "dead.tmp"
        own.mkdir(parents=True)
        (own / "in-flight.json").write_bytes(data)
        (own / "crash.txt").write_bytes(b"Fatal")
        own.with_suffix(".lock").touch()
        with work_folder(folder):
            pass
        assert not own.exists()

    fuzz("note of an item in flight", json.dumps(values).encode(), read)
    write_log(folder, ItemResult("chair", DONE), {})


def test_messages():
    settings = {"generator": "xray", "steps": 3}
    params = {"inputs": {"image": "/a.png"}, "folder": "/b", "settings": settings}
    sent = protocol.encode(protocol.Request("generate", params, 3))
    told = protocol.encode(protocol.Request("progress", {"id": 3, "stage": "a", "step": 1}))

    def read(data: bytes) -> None:
        for message in protocol.read_messages(io.BytesIO(data)):
            if isinstance(message, protocol.Request) and message.method == "generate":
                protocol.GenerateParams.from_dict(message.params)
            elif isinstance(message, protocol.Request):
                protocol.progress_from_params(message.params)

    fuzz("message of the protocol", sent + told, read)
