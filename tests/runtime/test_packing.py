"""Packed meshes: small, and the same to look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime.__main__ import main
from runtime.meshes.collection import list_meshes
from runtime.meshes.files import read_mesh
from runtime.meshes.quantised import SUFFIX, read_quantised, to_quantised
from runtime.omages import training as omages
from runtime.xray.weights import load_weights
from xray_addon import Camera, Surface, XRayError, cast
from xray_addon.omage import Omage
from xray_addon.surface import Material

ROOT = Path(__file__).parents[2]


def unpacked(file: Path, folder: Path) -> Path:
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder


def test_a_packed_mesh_looks_as_before(meshes, tmp_path):
    for path in sorted(meshes.glob("*.glb")):
        surface = read_mesh(path)
        (tmp_path / path.name).write_bytes(to_quantised(surface))
        again = read_quantised(tmp_path / path.name)
        camera = Camera.look_at((1.3, -2.5, 1.1), width=64, height=64)
        before, after = cast(surface, camera, 4), cast(again, camera, 4)
        both = before.hit & after.hit
        assert both.sum() > 0.99 * (before.hit | after.hit).sum()
        assert np.abs(before.depth - after.depth)[both].max() < 0.01
        assert np.abs(before.color - after.color)[both].max() < 0.01
        assert np.abs(before.normal - after.normal)[both].max() < 0.05


def test_textures_and_bare_surfaces_are_kept(tmp_path):
    texture = np.full((8, 8, 3), (200, 40, 90), dtype=np.uint8)
    square = Surface(
        [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]],
        [[0, 1, 2], [0, 2, 3]],
        corner_uvs=np.full((2, 3, 2), 0.5),
        face_material=[0, 1],
        materials=[Material(texture=texture), Material((0.1, 0.2, 0.3))],
    )
    (tmp_path / "a").write_bytes(to_quantised(square))
    again = read_quantised(tmp_path / "a")
    assert again.corner_normals is None
    assert again.face_material.tolist() == [0, 1]
    assert np.abs(again.materials[0].texture.astype(int) - texture).max() < 8
    assert again.materials[1].base_color == pytest.approx((0.1, 0.2, 0.3))
    np.testing.assert_allclose(again.vertices[again.faces], square.vertices[square.faces])


def test_the_command_packs_what_training_reads(meshes, tmp_path, capsys):
    out = tmp_path / "meshes.zip"
    assert main(["pack", "--data", str(meshes), "--out", str(out)]) == 0
    assert "3 meshes" in capsys.readouterr().out
    files = list_meshes(unpacked(out, tmp_path / "all"))
    assert [file.path.name for file in files] == [f"{n}{SUFFIX}" for n in ("ball", "box", "ring")]
    assert len({file.group for file in files}) == 3
    assert len(files[0].read().faces) == len(read_mesh(meshes / "ball.glb").faces)
    few = ["--megabytes", str(1.5 * files[1].path.stat().st_size / 2**20)]
    assert main(["pack", "--data", str(meshes), "--out", str(out), *few]) == 1
    assert [f.path.name for f in list_meshes(unpacked(out, tmp_path / "few"))] == [f"box{SUFFIX}"]


def test_meshes_of_one_name_are_all_packed(meshes, tmp_path):
    for number, name in enumerate(("ball", "box", "ring")):
        folder = tmp_path / f"{number}" / "models"
        folder.mkdir(parents=True)
        (folder / "model.glb").write_bytes((meshes / f"{name}.glb").read_bytes())
    assert main(["pack", "--data", str(tmp_path), "--out", str(tmp_path / "all.zip")]) == 0
    files = list_meshes(unpacked(tmp_path / "all.zip", tmp_path / "unpacked"))
    assert len({len(file.read().faces) for file in files}) == 3


def test_what_is_no_packed_mesh_is_an_error(tmp_path):
    for content in (b"", b"hello", to_quantised(Surface([[0, 0, 0.0]] * 3, [[0, 1, 2]]))[:-9]):
        (tmp_path / f"x{SUFFIX}").write_bytes(content)
        with pytest.raises(XRayError) as caught:
            read_quantised(tmp_path / f"x{SUFFIX}")
        assert caught.value.code == "unreadable_mesh"


def run_slice(folder: Path, config: Any, data: Path) -> None:
    """One slice of training with `config` on the zip `data`, to `folder`/out."""
    (folder / "config.json").write_text(json.dumps(asdict(config)))
    subprocess.run(
        [
            "sh",
            "runtime/slice.sh",
            str(folder / "config.json"),
            str(data),
            str(folder / "out"),
            "0",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu"},
        check=True,
        timeout=200,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_slices_go_on_from_each_other(meshes, config, tmp_path):
    assert main(["pack", "--data", str(meshes), "--out", str(tmp_path / "meshes.zip")]) == 0
    for number in range(2):
        run_slice(tmp_path, config, tmp_path / "meshes.zip")
        _, record = load_weights(tmp_path / "out/weights.aa", "cpu")
        assert record["trained_samples"] == 4 * (number + 1)
        assert record["warm_starts"] == number


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_slices_of_a_model_that_needs_its_checkpoint(tmp_path):
    values = np.random.default_rng(0).random((8, 8, 12)).astype(np.float32)
    values[..., 3] = 1
    Omage(values).save(tmp_path / "chair" / "a.npz")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.write(tmp_path / "chair" / "a.npz", "chair/a.npz")
    config = omages.TrainingConfig(
        part="geometry",
        size=8,
        batch=2,
        samples=8,
        workers=0,
        network={"hidden": 16, "depth": 1, "heads": 2},
    )
    for number in range(2):
        run_slice(tmp_path, config, tmp_path / "data.zip")
        assert (tmp_path / "out/weights.path").read_text() == "checkpoint.pt\n"
        checkpoint = torch.load(tmp_path / "out/weights.aa", weights_only=True)
        assert (checkpoint["samples"], checkpoint["warm_starts"]) == (2 * (number + 1), 0)


def test_training_from_packed_meshes_needs_torch_and_little_else(meshes, config, tmp_path):
    assert main(["pack", "--data", str(meshes), "--out", str(tmp_path / "meshes.zip")]) == 0
    unpacked(tmp_path / "meshes.zip", tmp_path / "meshes")
    (tmp_path / "config.json").write_text(json.dumps(asdict(replace(config, samples=4))))
    arguments = ["train", "--config", str(tmp_path / "config.json"), "--device", "cpu"]
    arguments += ["--data", str(tmp_path / "meshes"), "--out", str(tmp_path / "run")]
    missing = ("diffusers", "transformers", "trimesh", "rembg", "skimage", "xatlas")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}));"
        f"from runtime.__main__ import main; sys.exit(main({arguments!r}))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=200)
    assert (tmp_path / "run/model.safetensors").is_file()
