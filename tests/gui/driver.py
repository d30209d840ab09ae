"""Runs in Blender's own Python: does what the tests send, one line of JSON each, from a timer.

usage: blender -P driver.py -- READ_FD WRITE_FD

A line is {"code": ...}; the answer is {"value": ...} with what the code left in `result`, or
{"error": traceback}. A second timer measures how long the window's loop was held up.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any

import bpy

HEARTBEAT = 0.02  # s

lines: queue.SimpleQueue[str] = queue.SimpleQueue()


class Heart:
    """The gaps between two turns of Blender's loop."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.gaps: list[tuple[float, float]] = []  # (when, s) of those above 40 ms

    def beat(self) -> float:
        now = time.perf_counter()
        if now - self.last > 2 * HEARTBEAT:
            self.gaps.append((now, now - self.last))
        self.last = now
        return HEARTBEAT

    def reset(self) -> None:
        self.gaps.clear()
        self.last = time.perf_counter()


heart = Heart()


def view3d(number: int = 0) -> dict[str, Any]:
    """The context of a window's 3D view, for `bpy.context.temp_override`."""
    window = bpy.context.window_manager.windows[number]
    area = next((area for area in window.screen.areas if area.type == "VIEW_3D"), None)
    if area is None:
        area = window.screen.areas[0]
        area.type = "VIEW_3D"
    region = next(region for region in area.regions if region.type == "WINDOW")
    return {"window": window, "area": area, "region": region}


def sidebar() -> Any:
    """The sidebar's region, open on the tab X-Ray."""
    area = view3d()["area"]
    region = next(region for region in area.regions if region.type == "UI")
    if not area.spaces.active.show_region_ui:
        area.spaces.active.show_region_ui = True
    return region


def show_tab() -> bool:
    """Open X-Ray's tab; False until the sidebar has been drawn once."""
    region = sidebar()
    try:
        region.active_panel_category = "X-Ray"
    except (AttributeError, TypeError):  # read-only, or without the tab, so long
        return False
    finally:
        for area in bpy.context.window_manager.windows[0].screen.areas:
            area.tag_redraw()
    return True


def open_panel(name: str) -> None:
    """Show the panel of this class open: Blender remembers by the name whether one is."""
    panel = getattr(bpy.types, name)
    shown = {"bl_options": set()}
    above = f"{getattr(panel, 'bl_parent_id', '')}_open"
    if hasattr(bpy.types, above):
        shown["bl_parent_id"] = above
    bpy.utils.unregister_class(panel)
    bpy.utils.register_class(type(f"{name}_open", (panel,), shown))


def close_panel(name: str) -> None:
    """Take the panel of this class away."""
    bpy.utils.unregister_class(getattr(bpy.types, name))


def draw() -> None:
    """Draw every window now."""
    for window in bpy.context.window_manager.windows:
        with bpy.context.temp_override(window=window):
            bpy.ops.wm.redraw_timer(type="DRAW_WIN_SWAP", iterations=1)


def pointed_at() -> str:
    """The Python command of the sidebar's button under the mouse; "" where there is none."""
    with bpy.context.temp_override(**{**view3d(), "region": sidebar()}):
        if not bpy.ops.ui.copy_python_command_button.poll():
            return ""
        bpy.ops.ui.copy_python_command_button()
    return bpy.context.window_manager.clipboard


NAMES: dict[str, Any] = {
    "bpy": bpy,
    "draw": draw,
    "heart": heart,
    "open_panel": open_panel,
    "close_panel": close_panel,
    "pointed_at": pointed_at,
    "show_tab": show_tab,
    "sidebar": sidebar,
    "view3d": view3d,
}


def turn() -> float:
    """Do what was sent since the last turn."""
    while not lines.empty():
        names = {**NAMES, "result": None}
        try:
            exec(json.loads(lines.get())["code"], names)
            answer = {"value": names["result"]}
        except Exception:  # noqa: BLE001 - the test is told
            answer = {"error": traceback.format_exc()}
        with contextlib.suppress(BrokenPipeError):  # the tests may be gone
            os.write(out, (json.dumps(answer, default=str) + "\n").encode())
    return HEARTBEAT


def read() -> None:
    with os.fdopen(source) as stream:
        for line in stream:
            lines.put(line)


bpy.context.preferences.view.show_splash = False
source, out = (int(fd) for fd in sys.argv[sys.argv.index("--") + 1 :])
os.set_inheritable(source, False)
os.set_inheritable(out, False)
threading.Thread(target=read, daemon=True).start()
bpy.app.timers.register(turn, first_interval=0.5, persistent=True)
bpy.app.timers.register(heart.beat, persistent=True)
