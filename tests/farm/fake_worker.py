"""A stand-in for `blender -c xray dataset-worker`: the same protocol, and told what to do wrong.

What it does with an item is in the item's file: "ok", "crash", "exit", "hang", "garbage",
"wrong", "flood", "mute", "leak", "slow", "full", "failed", "rejected", "die-once", "leave" (after
it), or "crash-after N" (items). It writes real items, of a few bytes each, through
`xray_addon.dataset.store`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from xray_addon.dataset.manifest import Item  # noqa: E402
from xray_addon.dataset.recipe import Recipe, file_hash  # noqa: E402
from xray_addon.dataset.result import DONE, FAILED, REJECTED, ItemResult  # noqa: E402
from xray_addon.dataset.store import find, publish, refuse, work_folder  # noqa: E402
from xray_addon.errors import XRayError  # noqa: E402
from xray_addon.settings.dataset import DatasetSettings  # noqa: E402

leaks = []


def main(argv):
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["dataset-worker"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--min-iou", type=float)
    arguments = parser.parse_args(argv)
    folder = arguments.folder
    settings = DatasetSettings(views=arguments.views, seed=arguments.seed)
    print("Blender 0.0 (a stand-in)", flush=True)
    (folder / "logs").mkdir(exist_ok=True)
    with (folder / "logs" / "workers.txt").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    for done, line in enumerate(sys.stdin):
        item = Item.from_dict(json.loads(line))
        sys.stderr.write(f"working on {item.uid}\n")
        sys.stderr.flush()
        result = work(item, folder, settings, done)
        print(json.dumps(result.to_dict()), flush=True)
        if Path(item.source).read_text() == "leave":
            os._exit(3)
    return 0


def work(item, folder, settings, done):
    order, _, number = Path(item.source).read_text().partition(" ")
    digest = Recipe.of(settings).digest
    if (known := find(folder, item, digest)) is not None:
        return known
    if order == "crash" or (order == "crash-after" and done >= int(number)):
        ctypes.string_at(0)
    elif order == "exit":
        os._exit(7)
    elif order == "hang":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)
    elif order == "garbage":
        os.write(1, b'\xff\xfe not json\n{"uid": 3}\n[]\n{"half":')
        os.write(1, b"\n")
    elif order == "wrong":
        print(json.dumps(ItemResult("another", DONE).to_dict()), flush=True)
    elif order == "flood":
        os.write(1, b"x" * 3_000_000)
        time.sleep(60)
    elif order == "mute":
        os.close(1)
        time.sleep(60)
    elif order == "leak":
        leaks.append(bytearray(os.urandom(1)) * int(number or 50_000_000))
    elif order == "slow":
        time.sleep(float(number or 0.3))
    elif order == "die-once":
        flag = folder / "logs" / f"{item.uid}.died"
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGTERM)
    elif order == "full":
        return ItemResult(item.uid, FAILED, "cannot_write", "No space left.")
    elif order == "failed":
        refuse(folder, item, digest, FAILED, XRayError("unreadable_file", "It cannot be read."))
        return ItemResult(item.uid, FAILED, "unreadable_file", "It cannot be read.")
    elif order == "rejected":
        known = {"source_sha256": file_hash(item.source), "gates": [], "views": []}
        refuse(folder, item, digest, REJECTED, XRayError("no_faces", "Nothing there."), known)
        return ItemResult(item.uid, REJECTED, "no_faces", "Nothing there.")
    return capture(item, folder, settings, digest)


def capture(item, folder, settings, digest):
    """An item whose files say who they are."""
    began = time.monotonic()
    with work_folder(folder) as own:
        for kind in ("xrays", "images"):
            (own / kind).mkdir()
        frames = []
        for view in range(settings.views):
            (own / "xrays" / f"{view:03d}.npz").write_text(f"xray {item.uid} {view}")
            (own / "images" / f"{view:03d}.png").write_text(f"image {item.uid} {view}")
            frames.append({"file_path": f"./{view:03d}", "transform_matrix": [[view]]})
        applied = [[2, 0, 0, 1], [0, 2, 0, 0], [0, 0, 2, 0]]
        document = {"camera_angle_x": 0.5, "applied_transform": applied, "frames": frames}
        text = json.dumps(document)
        (own / "images" / "transforms.json").write_text(text)
        row = {
            "uid": item.uid,
            "source": item.name,
            "source_sha256": file_hash(item.source),
            "source_bytes": Path(item.source).stat().st_size,
            "license": item.license,
            "settings": digest,
            "triangles": 12,
            "gates": [],
            "images": True,
            "views": [
                {"hits": [5, 5], "dropped": 0, "outside": 0, "iou": 1.0}
                for _ in range(settings.views)
            ],
        }
        publish(folder, item, own, row)
    seconds = time.monotonic() - began
    return ItemResult(
        item.uid, DONE, views=settings.views, hits=10 * settings.views, seconds=seconds
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
