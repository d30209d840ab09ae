"""How well objects are told from the shadows that they cast on plain grounds.

Run by hand with the meshes in XRAY_ASSETS; the first in Blender's environment, the second in the
runtime's:

    python tests/benchmarks/shadows.py render OUT --count 60 --seed 17
    OMP_NUM_THREADS=1 python tests/benchmarks/shadows.py measure OUT

Cycles renders random objects on a ground that bends up behind them, in random colours and light,
and each object alone, whose alpha is the truth. Intersection over union is measured with and
without the step that removes shadows, and on the objects alone before the same kind of ground.
"""

from __future__ import annotations

import argparse
import colorsys
import math
import os
import random
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(os.environ.get("XRAY_ASSETS", ROOT.parent / "shared" / "assets"))
SIZE = 384
HELD_OUT = ("aws_small_house", "polyhaven_drake", "kaykit_furniture_bits")


def chosen(draw: random.Random) -> list[Path]:
    """Eight meshes of each held-out pack and two of each other, in random order."""
    train = ASSETS / "train"
    packs = [*HELD_OUT, *(p.name for p in sorted(train.iterdir()) if p.is_dir())]
    found = []
    for pack in dict.fromkeys(packs):
        files = sorted((train / pack).glob("*.glb"))
        draw.shuffle(files)
        found += files[: 8 if pack in HELD_OUT else 2]
    draw.shuffle(found)
    return found


def render(out: Path, count: int, seed: int) -> None:
    """Write NNN_s.png, on the ground, and NNN_a.png, alone, into `out`."""
    import bpy

    out.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    for number, file in enumerate(chosen(draw)[:count]):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.ops.import_scene.gltf(filepath=str(file))
        scene: Any = bpy.context.scene
        height = _stand(scene, draw)
        ground = _ground(scene, draw)
        _light(scene, draw)
        _look(scene, draw, height)
        for name, transparent in (("s", False), ("a", True)):
            ground.visible_camera = not transparent
            scene.render.film_transparent = transparent
            scene.render.image_settings.color_mode = "RGBA" if transparent else "RGB"
            scene.render.filepath = str(out / f"{number:03d}_{name}.png")
            bpy.ops.render.render(write_still=True)


def _stand(scene: Any, draw: random.Random) -> float:
    """Stand the imported meshes on the ground at size 1, turned; returns half their height."""
    import bpy
    from mathutils import Vector

    bpy.context.view_layer.update()
    meshes = [obj for obj in scene.objects if obj.type == "MESH"]
    corners = np.array([obj.matrix_world @ Vector(c) for obj in meshes for c in obj.bound_box])
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = 1 / max(high - low)
    middle = (low + high) / 2
    place, turn = (bpy.data.objects.new(name, None) for name in ("Place", "Turn"))
    for obj in list(scene.objects):
        if obj.parent is None:
            obj.parent = place
    for empty in (place, turn):
        scene.collection.objects.link(empty)
    place.scale = (scale,) * 3
    place.location = (-middle[0] * scale, -middle[1] * scale, -low[2] * scale)
    place.parent = turn
    turn.rotation_euler[2] = draw.uniform(0, 2 * math.pi)
    return float((high - low)[2] * scale / 2)


def _ground(scene: Any, draw: random.Random) -> Any:
    """A matt floor of one colour that bends up to a wall behind the object."""
    import bpy

    bend = [(4 + 4 * math.sin(t), 4 - 4 * math.cos(t)) for t in np.linspace(0, math.pi / 2, 24)]
    profile = [(-30, 0), *bend, (8, 40)]
    count = len(profile)
    mesh = bpy.data.meshes.new("Ground")
    mesh.from_pydata(
        [(x, y, z) for x in (-60, 60) for y, z in profile],
        [],
        [(k, k + count, k + 1 + count, k + 1) for k in range(count - 1)],
    )
    mesh.polygons.foreach_set("use_smooth", np.ones(count - 1, dtype=bool))
    value = draw.choice([0.8, 0.8, 0.5, 0.25, 0.9])
    hue, saturation = draw.random(), draw.choice([0, 0, 0, 0.1, 0.3, 0.6])
    material: Any = bpy.data.materials.new("Ground")
    material.use_nodes = True
    tree = material.node_tree
    diffuse = tree.nodes.new("ShaderNodeBsdfDiffuse")
    diffuse.inputs[0].default_value = (*colorsys.hsv_to_rgb(hue, saturation, value), 1)
    tree.links.new(diffuse.outputs[0], tree.get_output_node("CYCLES").inputs[0])
    mesh.materials.append(material)
    ground = bpy.data.objects.new("Ground", mesh)
    scene.collection.objects.link(ground)
    return ground


def _light(scene: Any, draw: random.Random) -> None:
    """An even sky, and a sun from sharp to soft."""
    import bpy

    scene.world = bpy.data.worlds.new("Sky")
    scene.world.use_nodes = True
    sky = scene.world.node_tree.nodes["Background"]
    sky.inputs[0].default_value = (1, 1, 1, 1)
    sky.inputs[1].default_value = draw.uniform(0.25, 0.8)
    lamp: Any = bpy.data.lights.new("Sun", "SUN")
    lamp.energy = draw.uniform(0.8, 2.6)
    lamp.angle = draw.choice([0.03, 0.15, 0.4, 0.8])
    sun = bpy.data.objects.new("Sun", lamp)
    sun.rotation_euler = (draw.uniform(0.15, 0.9), 0, draw.uniform(0, 2 * math.pi))
    scene.collection.objects.link(sun)


def _look(scene: Any, draw: random.Random, height: float) -> None:
    """A camera 5 to 40 degrees above, and Cycles."""
    import bpy
    from mathutils import Vector

    elevation = math.radians(draw.uniform(5, 40))
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.location = (0, -3.2 * math.cos(elevation), height + 3.2 * math.sin(elevation))
    towards: Any = Vector((0, 0, height)) - camera.location
    camera.rotation_euler = towards.to_track_quat("-Z", "Y").to_euler()
    camera.data.angle = math.radians(draw.uniform(24, 32))
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", 24
    scene.cycles.max_bounces = 4
    scene.view_settings.view_transform = "Standard"
    scene.render.resolution_x = scene.render.resolution_y = SIZE
    scene.render.image_settings.file_format = "PNG"


def cases(out: Path, *, shadows: bool) -> Iterator[tuple[Any, Any]]:
    """Photos as JPEG and their truth: on the ground, or alone before a soft gradient."""
    from PIL import Image

    draw = np.random.default_rng(3)
    for path in sorted(out.glob("*_a.png")):
        rgba = np.asarray(Image.open(path)).astype(float) / 255
        truth = rgba[..., 3] > 0.5
        if not 0.01 < truth.mean() < 0.8:
            continue
        if shadows:
            photo = Image.open(path.with_name(path.name.replace("_a", "_s"))).convert("RGB")
        else:
            color = draw.choice([1.0, 0.9, 0.5, 0.3]) * (
                1 - draw.choice([0, 0, 0.3]) * draw.random(3)
            )
            fade = 1 - 0.15 * draw.random() * np.linspace(0, 1, len(rgba))[:, None, None]
            mixed = rgba[..., :3] * rgba[..., 3:] + color * fade * (1 - rgba[..., 3:])
            photo = Image.fromarray(np.rint(mixed.clip(0, 1) * 255).astype(np.uint8))
        stream = BytesIO()
        photo.save(stream, "JPEG", quality=85)
        yield Image.open(stream).convert("RGB"), truth


def measure(out: Path) -> None:
    """Print a Markdown table: mean, median, number below 0.9."""
    sys.path.insert(0, str(ROOT))
    from runtime.images import plain_background
    from runtime.images.cutout import cut_out
    from xray_addon.errors import XRayError

    def overlap(photo: Any, truth: Any) -> float:
        try:
            found = cut_out(photo, "plain", online=False).rgba[..., 3] > 127
        except XRayError:
            return 0.0
        return float((found & truth).sum() / (found | truth).sum())

    removing = plain_background._cast_shadows
    print("| | shadows kept | shadows removed | better | worse |\n|---|---|---|---|---|")
    for name, shadows in (("with shadows", True), ("alone", False)):
        found = []
        for photo, truth in cases(out, shadows=shadows):
            plain_background._cast_shadows = lambda *given: np.zeros_like(given[-1])
            kept = overlap(photo, truth)
            plain_background._cast_shadows = removing
            found.append((kept, overlap(photo, truth)))
        values = np.array(found)
        cells = [
            f"{v.mean():.3f} · {np.median(v):.3f} ({(v < 0.9).sum()} of {len(v)} below 0.9)"
            for v in values.T
        ]
        change = values[:, 1] - values[:, 0]
        print(
            f"| {name} | {' | '.join(cells)} | {(change > 0.01).sum()} | {(change < -0.01).sum()} |"
        )


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("render", "measure"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=17)
    arguments = parser.parse_args()
    if arguments.step == "render":
        render(arguments.out, arguments.count, arguments.seed)
    else:
        measure(arguments.out)


if __name__ == "__main__":
    main()
