"""How long Blender's window waits while a mesh is finished: for each option of the result."""

from __future__ import annotations

import json
import math
import sys
import time

import rig
from test_window import GENERATE, clean, idle

sys.path.insert(0, str(rig.ROOT))
from xray_addon.settings.result import ResultSettings

AIM = 0.05  # s
LIMIT = 0.15  # s; where something has gone wrong, also on a busy machine

FACES = {"target_faces": 5000}
TEXTURE = {"color": "texture", "bake_size": 2048}
QUADS = {"topology": "quads", **FACES}
REST = {"symmetry": "x", "height": 2.0, "smooth_angle": math.radians(40), "asset": True}
OPTIONS = {
    "none": {},
    "5,000 quads": QUADS,
    "5,000 triangles": FACES,
    "symmetry": {"symmetry": "x"},
    "height": {"height": 2.0},
    "2048 texture": TEXTURE,
    "5,000 quads, 2048 texture": QUADS | TEXTURE,
    "smooth angle": {"smooth_angle": math.radians(40)},
    "asset": {"asset": True},
    "Keep View": {"keep_camera": True},
    "Keep Layers": {"keep_layers": True},
    "all at once": QUADS | TEXTURE | REST | {"keep_camera": True, "keep_layers": True},
}

MEASURE = f"""
import sys, time
jobs = sys.modules["{rig.MODULE}.operators.tasks.jobs"]
steps = bpy.app.driver_namespace["steps"] = []
before = bpy.app.driver_namespace.setdefault("advance", jobs.Task.advance)
def advance(task):
    wall, used = time.perf_counter(), time.thread_time()
    try:
        return before(task)
    finally:
        steps.append((time.thread_time() - used, time.perf_counter() - wall, task.progress.stage))
jobs.Task.advance = advance
heart.reset()
"""
HEAD = (
    "| option | longest step, ms of the thread | by the clock | at | until the mesh is there, s "
    "| longest gap of the loop, drawing included, ms |\n|---|---|---|---|---|---|\n"
)


APPLY = """
bpy.context.view_layer.objects.active = bpy.data.objects["usual"]
bpy.ops.xray.apply_result("INVOKE_DEFAULT", asset=True)
"""


def generating(path, **options) -> str:
    """The code that generates a mesh."""
    words = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return GENERATE.format(arguments=f"filepath={str(path)!r}, {words}")


def measured(blender, code) -> dict[str, object]:
    """The longest step of what `code` starts, and what else was measured."""
    blender.do(MEASURE)
    began = time.monotonic()
    blender.do(code)
    idle(blender, 300)
    took = time.monotonic() - began
    time.sleep(1)
    used, wall, stage = max(blender.get("bpy.app.driver_namespace['steps']"))
    gaps = blender.get("[gap for _, gap in heart.gaps]")
    return {"used": used, "wall": wall, "stage": stage, "took": took, "gap": max(gaps)}


def drawing(blender) -> float:
    """The longest gap, in s, while the window is drawn three times and X-Ray does nothing."""
    blender.do("heart.reset()")
    for _ in range(3):
        blender.do("draw()")
        time.sleep(0.5)
    return max(blender.get("[gap for _, gap in heart.gaps]"), default=0.0)


def test_no_option_of_the_result_holds_the_window_up(fake, picture):
    covered = {name for options in OPTIONS.values() for name in options}
    assert covered >= set(ResultSettings.__dataclass_fields__)
    path, table = picture("usual"), {}
    measured(
        fake, generating(path)
    )  # the runtime starts, and Blender's second process gets into the cache
    alone = drawing(fake)
    for title, options in OPTIONS.items():
        fake.do("bpy.data.batch_remove([o for o in bpy.data.objects if o.name != 'Cube'])")
        table[title] = measured(fake, generating(path, **options))
        faces = fake.get("len(bpy.data.objects['usual'].data.polygons)")
        assert (faces < 6000) == ("target_faces" in options), title
        if "bake_size" in options:
            fake.shot(title.replace(" ", "-").replace(",", ""))
    table["asset, by Apply Result"] = measured(fake, APPLY)
    assert fake.get("bpy.data.objects['usual'].asset_data is not None")
    rows = [
        f"| {title} | {1000 * row['used']:.0f} | {1000 * row['wall']:.0f} | {row['stage']} "
        f"| {row['took']:.1f} | {1000 * row['gap']:.0f} |"
        for title, row in table.items()
    ]
    rows.append(f"| drawing the window, without X-Ray | | | | | {1000 * alone:.0f} |")
    (rig.OUT / "stalls.md").write_text(HEAD + "\n".join(rows) + "\n")
    (rig.OUT / "stalls.json").write_text(json.dumps({"aim": AIM, "rows": table}, indent=1))
    late = {title: row["used"] for title, row in table.items() if row["used"] > LIMIT}
    assert not late
    assert clean(fake)
