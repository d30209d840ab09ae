"""`make demo`: the main job, headless, from the zip to the picture.

Builds the extension, installs it into Blender as a user would, captures the mesh that the repo
owns to an X-Ray dataset item, makes a mesh from the image that the repo owns, and writes all of
it, with a picture, to one folder.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODULE = "bl_ext.user_default.xray"
SIDES = (0, 120, 240)  # degrees around the mesh


def say(text: str) -> None:
    """A line for the person who watches."""
    sys.stderr.write(text + "\n")


@contextmanager
def step(title: str, made: Path | None = None) -> Iterator[None]:
    """Time what is inside and say what came of it, without the noise of Blender and its tools."""
    began = time.perf_counter()
    sys.stdout.flush()
    kept, silent = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(silent)
    size = f"  {made} ({made.stat().st_size / 1e6:.1f} MB)" if made and made.is_file() else ""
    size = size or (f"  {made}/" if made else "")
    say(f"{time.perf_counter() - began:7.1f} s  {title}{size}")


def build(path: Path) -> None:
    """The extension's zip, by Blender's own builder."""
    bpy_folder = Path(str(find_spec("bpy").origin)).parent  # type: ignore[union-attr]
    (tool,) = bpy_folder.glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py")
    subprocess.run(
        [sys.executable, tool, "build", "--source-dir", ROOT, "--output-filepath", path],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def render(scene: Any, obj: Any, folder: Path) -> list[Path]:
    """Cycles pictures of the object from `SIDES`; the scene keeps camera and lights."""
    import bpy
    from mathutils import Matrix, Vector

    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising = 24, False
    scene.render.resolution_x = scene.render.resolution_y = 320
    scene.render.film_transparent = True
    scene.view_settings.view_transform = "Standard"
    scene.world = bpy.data.worlds.new("World")
    if bpy.app.version < (5, 0, 0):
        scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (0.5, 0.5, 0.5, 1)
    sun = bpy.data.objects.new("Sun", bpy.data.lights.new("Sun", "SUN"))
    sun.data.energy = 1.2
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    for added in (sun, camera):
        scene.collection.objects.link(added)
    scene.camera = camera
    corners = [obj.matrix_world @ Vector(corner) for corner in obj.bound_box]
    middle = sum(corners, Vector()) / 8
    distance = 2.6 * max((corner - middle).length for corner in corners)
    paths = []
    for degrees in SIDES:
        turn = Matrix.Rotation(math.radians(degrees), 4, "Z")
        for placed, towards in (
            (camera, turn @ Vector((0, -1, 0.35))),
            (sun, turn @ Vector((-0.6, -1, 1.2))),
        ):
            placed.location = middle + towards.normalized() * distance
            placed.rotation_euler = towards.to_track_quat("Z", "Y").to_euler()
        path = folder / f"side-{degrees}.png"
        scene.render.filepath = str(path)
        bpy.ops.render.render(write_still=True)
        paths.append(path)
    return paths


def main() -> int:
    """Run the demo; 0 when all of it worked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", type=Path, required=True, help="the runtime's environment")
    parser.add_argument("--out", type=Path, required=True, help="where the results go")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    os.environ["XRAY_RUNTIME_DIR"] = str(arguments.runtime.resolve())
    # A Blender of its own: nothing of the user's is touched, and the zip is installed afresh.
    os.environ["BLENDER_USER_RESOURCES"] = str(parts / "blender")

    archive = out / "xray.zip"
    with step("built the extension", archive):
        build(archive)
    with step("started Blender and installed the extension"):
        import bpy

        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.ops.extensions.package_install_files(
            filepath=str(archive), repo="user_default", enable_on_install=True
        )

    def part(name: str) -> Any:
        return importlib.import_module(f"{MODULE}.{name}")

    say(f"           Blender {bpy.app.version_string}, {MODULE} enabled")
    with step("captured tests/demo/toadstool.glb, 4 views, 16 layers", out / "dataset"):
        mesh, dataset = str(HERE / "toadstool.glb"), str(out / "dataset")
        if part("operators.command").main(["capture", mesh, dataset, "--views", "4"]):
            return 1
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
        bpy.ops.preferences.addon_enable(module=MODULE)

    with step("generated a mesh from tests/demo/toadstool.png in the runtime's process"):
        service, jobs = part("operators.runtime.service"), part("operators.tasks.jobs")
        settings = part("xray_addon.settings").GenerateSettings()
        work = service.generate_steps(HERE / "toadstool.png", settings)
        generated = jobs.run(work, lambda _: None)
        obj = part("operators.generate.generation").add_generated(
            generated, "Toadstool", keep_camera=True
        )
    surface = generated.surface
    say(
        f"           {len(surface.vertices):,} vertices, {len(surface.faces):,} faces, "
        f"{'watertight' if surface.is_watertight else 'open'}"
    )
    with step("predicted layers", parts / "predicted.npz"):
        generated.xray.save(parts / "predicted.npz")
    with step("mesh for other programs", out / "demo.glb"):
        part("operators.convert.mesh_files").save_objects([obj], out / "demo.glb")
    with step(f"rendered the mesh from {len(SIDES)} sides with Cycles"):
        sides = render(bpy.context.scene, obj, parts)
    bpy.context.preferences.filepaths.save_version = 0  # no demo.blend1 beside it
    with step("scene", out / "demo.blend"):
        bpy.ops.wm.save_as_mainfile(filepath=str(out / "demo.blend"), check_existing=False)
    with step("picture", out / "demo.png"):
        python = part("xray_addon.process.environment").RuntimeEnvironment(arguments.runtime).python
        subprocess.run(
            [
                python,
                HERE / "picture.py",
                HERE / "toadstool.png",
                parts / "predicted.npz",
                *sides,
                "--out",
                out / "demo.png",
            ],
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        service.stop()
    say(f"\nLook at {out / 'demo.png'}; open {out / 'demo.blend'} in Blender.")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Blender's module can hang in its destructors.
    os._exit(code)
