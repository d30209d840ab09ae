"""What a dataset of a million items costs apart from making it: claim, resume, finish, preview.

.venv/blender/bin/python tests/benchmarks/million.py [--items 1000000] [--views 1] [--folder DIR]

Makes a dataset of so many items out of one: rows and folders as a run leaves them. Then it times,
in processor seconds, what a run does besides capturing, and prints the table of docs/datasets.md
with the peak of the memory, Blender's own included. --resumed is how many items one job looks up
when it starts anew, a 64th by default: that is one of 64 shards. Only these have logs and X-Rays.
Needs a file system with two inodes an item.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import extension
from extension import part

VIEW = {"hits": [22_000 >> layer for layer in range(16)], "dropped": 3, "outside": 0, "iou": 0.9987}


def uid(number: int) -> str:
    return f"{number:08x}-2f1c-47d5-9f0e"


def make(folder: Path, source: Path, items: int, resumed: int, views: int) -> Any:
    """A dataset of `items` from the file `source`; its settings. `resumed` have all their files."""
    store, manifest = part("xray_addon.dataset.store"), part("xray_addon.dataset.manifest")
    settings = part("xray_addon.settings.dataset").DatasetSettings(views=views, image="cast")
    digest = store.claim(folder, settings)
    hash_of = part("xray_addon.dataset.recipe").file_hash(source)
    first = folder / "first.npz"
    camera = part("xray_addon.camera").Camera.look_at((0, -3, 1))
    surface = part("xray_addon.surface").Surface(
        [[-1.0, 0, -1], [1, 0, -1], [0, 0, 1]], [[0, 1, 2]]
    )
    part("xray_addon.casting").cast(surface, camera).save(first)
    for kind in ("metadata", "logs", "xrays"):
        (folder / kind).mkdir(exist_ok=True)
    item = manifest.Item("@", str(source), source.name)
    row = {
        **store.described(item, digest),
        "source_sha256": hash_of,
        "triangles": 21_000,
        "images": True,
        "gates": [],
        "views": [VIEW] * views,
        "files": {"xrays/@/000.npz": first.stat().st_size},
    }
    log = {"uid": "@", "status": "done", "read": store.read_state(item), "stages": {"cast": 0.006}}
    texts = {
        kind: json.dumps(values, indent=1) for kind, values in (("metadata", row), ("logs", log))
    }
    for number in range(items):
        name = uid(number)
        os.mkdir(f"{folder}/xrays/{name}")
        for kind, text in texts.items():
            if kind == "metadata" or number < resumed:
                with open(f"{folder}/{kind}/{name}.json", "w", encoding="utf-8") as stream:
                    stream.write(text.replace("@", name))
        if number < resumed:
            shutil.copyfile(first, f"{folder}/xrays/{name}/000.npz")
    return settings


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--resumed", type=int, help="items; a 64th by default")
    parser.add_argument("--folder", type=Path, help="where to make it; a temporary one by default")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="xray-million-", dir=arguments.folder))
    extension.enable()
    store, manifest = part("xray_addon.dataset.store"), part("xray_addon.dataset.manifest")
    source = place / "one.glb"
    source.write_bytes(bytes(1000))
    folder = place / "dataset"
    folder.mkdir()
    resumed = arguments.resumed or arguments.items // 64
    settings = make(folder, source, arguments.items, resumed, arguments.views)
    digest = store.claim(folder, settings)

    def resume() -> None:
        for number in range(resumed):
            item = manifest.Item(uid(number), str(source), source.name)
            assert store.find(folder, item, digest) is not None

    print(f"{arguments.items:,} items, {arguments.views} views each\n")
    print("| step | CPU s | peak MB so far |\n|---|---|---|")
    for name, work in (
        ("claim", lambda: store.claim(folder, settings)),
        (f"resume, {resumed:,} items", resume),
        ("finish", lambda: store.finish(folder)),
        ("preview, 6 items", lambda: part("operators.dataset.preview").preview(folder, sample=6)),
    ):
        began = time.process_time()
        work()
        seconds = time.process_time() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| {name} | {seconds:.1f} | {peak:.0f} |", flush=True)
    shutil.rmtree(place)
    shutil.rmtree(extension.RESOURCES)
    sys.stdout.flush()
    os._exit(0)  # Blender's destructors can hang


if __name__ == "__main__":
    main()
