"""Datasets on disk: names, shards, and items that are complete or absent."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from xray_addon import Camera, XRayError
from xray_addon.dataset.gates import ViewStatistics, judge
from xray_addon.dataset.manifest import Item, read_source, shard, unique_uids
from xray_addon.dataset.recipe import Recipe, file_hash
from xray_addon.dataset.result import DONE, EXISTS, FAILED, REJECTED, ItemResult
from xray_addon.dataset.store import (
    claim,
    conflict,
    find,
    finish,
    publish,
    read_state,
    refuse,
    work_folder,
    write_log,
)
from xray_addon.errors import SOME_FAILED, USAGE, exit_code
from xray_addon.files.locks import lock
from xray_addon.files.transforms import write_transforms
from xray_addon.settings.dataset import DatasetSettings

ROOT = Path(__file__).resolve().parents[2]
DIGEST = Recipe.of(DatasetSettings()).digest


def files(folder) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and "logs" not in p.relative_to(folder).parts
    }


def row_of(item, **values):
    return {
        "uid": item.uid,
        "source": item.name,
        "source_sha256": file_hash(item.source) if Path(item.source).is_file() else "",
        "source_bytes": len(item.uid),
        "license": item.license,
        "settings": DIGEST,
        "triangles": 12,
        "gates": [],
        "images": True,
        "views": [ViewStatistics([3, 2], dropped=1, iou=0.95).to_dict()],
        **values,
    }


def make(folder, item, content=b"hits", **values):
    """What a run does for one item."""
    with work_folder(folder) as work:
        for kind, name in (("xrays", "000.npz"), ("images", "000.png")):
            (work / "made" / kind).mkdir(parents=True)
            (work / "made" / kind / name).write_bytes(content)
        publish(folder, item, work / "made", row_of(item, **values))


@pytest.fixture
def item(tmp_path):
    source = tmp_path / "source.glb"
    source.write_bytes(b"x" * len("chair"))
    return Item("chair", str(source), name="source.glb")


# --- names ---


def test_a_folder_with_its_folders(tmp_path):
    for name in ("b.glb", "a/b.OBJ", "a/notes.txt", "c.off", ".hidden.glb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [(i.uid, i.name) for i in read_source(tmp_path)] == [
        ("a__b", "a/b.OBJ"),
        ("b", "b.glb"),
        ("c", "c.off"),
    ]
    assert read_source(tmp_path)[0].source == str(tmp_path / "a/b.OBJ")


def test_one_file(tmp_path):
    (tmp_path / "chair.glb").write_text("")
    assert read_source(tmp_path / "chair.glb") == [
        Item("chair", str(tmp_path / "chair.glb"), "", "chair.glb")
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", 'path,uid,license\na.glb,,CC0\n"b, c.obj",second,\n'),
        (
            "m.jsonl",
            '{"path": "a.glb", "licence": "CC0"}\n\n{"path": "b, c.obj", "uid": "second"}\n',
        ),
    ],
)
def test_a_manifest(tmp_path, name, text):
    (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8")
    assert read_source(tmp_path / name) == [
        Item("a", str(tmp_path / "a.glb"), "CC0", "a.glb"),
        Item("second", str(tmp_path / "b, c.obj"), "", "b, c.obj"),
    ]


def test_files_that_lie_elsewhere_are_called_by_their_name_alone(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("path\n/data/3f/chair.glb\n../x/table.glb\nC:\\a\\bed.glb\n")
    assert [(i.uid, i.name) for i in read_source(manifest)] == [
        ("bed", "bed.glb"),
        ("chair", "chair.glb"),
        ("table", "table.glb"),
    ]
    assert read_source(manifest)[1].source == "/data/3f/chair.glb"
    manifest.write_text("path\n/data/a/chair.glb\n/data/b/chair.glb\n")
    first, second = read_source(manifest)
    assert first.uid.startswith("chair-")
    assert second.uid.startswith("chair-")
    assert first.uid != second.uid


@pytest.mark.parametrize(
    ("name", "text", "code", "reason"),
    [
        ("m.csv", "file\na.glb\n", "bad_manifest", "line 2 has no path"),
        ("m.jsonl", '{"path": "a.glb"}\n[1]\n', "bad_manifest", "line 2 has no path"),
        ("m.jsonl", "{", "bad_manifest", "cannot be read"),
        ("m.csv", "path,uid\na.glb,x\nb.glb,x\n", "bad_manifest", "more than one file"),
        ("m.csv", "path\n", "no_meshes", "no mesh files"),
        ("m.txt", "", "unknown_format", "no known mesh"),
    ],
)
def test_bad_manifests_say_why(tmp_path, name, text, code, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(XRayError, match=reason) as caught:
        read_source(tmp_path / name)
    assert caught.value.code == code


def test_no_such_source(tmp_path):
    with pytest.raises(XRayError, match="no file"):
        read_source(tmp_path / "nowhere")


STRANGE = [
    "chair.glb",
    "Chair.glb",
    "chair.obj",
    "my chair.glb",
    'a "quoted" name.glb',
    "it's.glb",
    "../outside.glb",
    "..",
    "/",
    "",
    "con.glb",
    "Stühle/Küche.glb",
    "椅子.glb",
    "🪑.glb",
    "x" * 300 + ".glb",
    "x" * 300 + "y.glb",
    "椅" * 300 + ".glb",
    "a/b.glb",
    "a__b.glb",
    "a:b|c*?.glb",
    "tab\tnew\nline.glb",
    "-flag.glb",
    "v1.2.glb",
]


def test_uids_are_unique_file_names_on_every_system(tmp_path):
    uids = unique_uids(STRANGE)
    assert len({uid.casefold() for uid in uids}) == len(STRANGE)
    for uid in uids:
        assert not set(uid) & set("./\\:*?\"<>|\t\n' ")
        assert 0 < len(f"{uid}.json".encode()) < 250
        assert not uid.startswith("-")
        (tmp_path / uid).mkdir()
    named = dict(zip(STRANGE, uids, strict=True))
    assert named["my chair.glb"] == "my_chair"
    assert named["Stühle/Küche.glb"] == "Stühle__Küche"
    assert named["v1.2.glb"] == "v1-2"
    assert named["椅子.glb"] == "椅子"
    assert named["chair.glb"].startswith("chair-")
    assert named["con.glb"].startswith("_con")


def test_uids_do_not_depend_on_the_order():
    mixed = STRANGE.copy()
    random.Random(1).shuffle(mixed)
    assert dict(zip(mixed, unique_uids(mixed), strict=True)) == dict(
        zip(STRANGE, unique_uids(STRANGE), strict=True)
    )


def test_wished_uids_are_kept_where_they_are_file_names():
    assert unique_uids(["a.glb", "b.glb"], ["first", ""]) == ["first", "b"]
    made = unique_uids(["a.glb", "b.glb"], ["x/../y", "b"])
    assert made[0].startswith("x__")
    assert "/" not in made[0]
    assert made[1] == "b"


# --- shards ---


def test_every_item_is_in_one_shard():
    items = [Item(f"item{i}", "") for i in range(23)]
    mixed = items.copy()
    random.Random(1).shuffle(mixed)
    parts = [shard(items, f"{i}/5") for i in range(1, 6)]
    assert sorted(i.uid for part in parts for i in part) == sorted(i.uid for i in items)
    assert sorted(len(part) for part in parts) == [4, 4, 5, 5, 5]
    assert parts == [shard(mixed, f"{i}/5") for i in range(1, 6)]


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_shards_that_are_none(part):
    with pytest.raises(XRayError, match="no shard"):
        shard([], part)


# --- complete or absent ---


def test_an_item_is_there_once_its_row_is(tmp_path, item):
    out = tmp_path / "out"
    assert find(out, item, DIGEST) is None
    make(out, item)
    assert find(out, item, DIGEST) == ItemResult("chair", EXISTS, views=1, hits=5, dropped=1)
    assert set(files(out)) == {
        "images/chair/000.png",
        "metadata/chair.json",
        "xrays/chair/000.npz",
    }


def test_other_settings_sources_and_lost_files_make_it_anew(tmp_path, item, monkeypatch):
    def unreadable(path):
        raise XRayError("unreadable_file", f"{path} cannot be read.", "Check it.")

    out = tmp_path / "out"
    make(out, item)
    assert find(out, item, Recipe.of(DatasetSettings(views=5)).digest) is None
    Path(item.source).write_bytes(b"another size")
    assert find(out, item, DIGEST) is None
    Path(item.source).write_bytes(b"y" * len("chair"))
    assert find(out, item, DIGEST) is None, "another content of the same size"
    Path(item.source).write_bytes(b"x" * len("chair"))
    assert find(out, item, DIGEST) is not None
    with monkeypatch.context() as patch:
        patch.setattr("xray_addon.dataset.store.file_hash", unreadable)
        assert find(out, item, DIGEST) is None, "reading the item says why"
    (out / "xrays/chair/000.npz").write_bytes(b"cut")
    assert find(out, item, DIGEST) is None
    (out / "metadata/chair.json").write_text("{}")
    assert find(out, item, DIGEST) is None
    (out / "metadata/chair.json").write_text("[")
    assert find(out, item, DIGEST) is None


def test_making_again_with_other_settings_replaces(tmp_path, item):
    out = tmp_path / "out"
    make(out, item, b"old", settings="other")
    make(out, item, b"new")
    assert (out / "xrays/chair/000.npz").read_bytes() == b"new"
    assert find(out, item, DIGEST).status == EXISTS


def test_what_another_run_made_meanwhile_stays(tmp_path, item):
    out = tmp_path / "out"
    with work_folder(out) as work:
        (work / "made/xrays").mkdir(parents=True)
        (work / "made/xrays/000.npz").write_bytes(b"late")
        make(out, item)
        publish(out, item, work / "made", row_of(item))
    assert (out / "xrays/chair/000.npz").read_bytes() == b"hits"
    assert not (out / ".work").exists()


def test_the_settings_hash_follows_what_files_hold(tmp_path):
    poses = tmp_path / "a.json"
    camera = Camera.look_at((0, -2, 1))
    write_transforms(poses, [camera], ["000"])
    first = Recipe.of(DatasetSettings(cameras="poses", poses=str(poses))).digest
    moved = tmp_path / "b.json"
    moved.write_bytes(poses.read_bytes())
    assert Recipe.of(DatasetSettings(cameras="poses", poses=str(moved))).digest == first
    write_transforms(poses, [camera, camera], ["000", "001"])
    assert Recipe.of(DatasetSettings(cameras="poses", poses=str(poses))).digest != first
    poses.write_text("no poses")
    with pytest.raises(XRayError) as caught:
        Recipe.of(DatasetSettings(cameras="poses", poses=str(poses)))
    assert exit_code(caught.value) == USAGE
    with pytest.raises(XRayError, match="no file"):
        Recipe.of(DatasetSettings(cameras="poses", poses=str(tmp_path / "c.json")))
    # What a panel still holds and nothing reads does not count.
    assert (
        Recipe.of(DatasetSettings(poses=str(poses), hdri=str(tmp_path / "c.hdr"))).digest == DIGEST
    )


@pytest.mark.parametrize(
    "values",
    [
        {"device": "cpu"},
        {"elevation": 45.0},
        {"image": "cast", "samples": 7, "denoise": False},
        {"image": "none", "image_size": 64, "lights": "studio"},
        {"image": "cast", "cameras": "turntable", "seed": 5},
        {"cameras": "scene", "image": "none", "views": 9, "distance": 3.0, "fov": 20.0, "seed": 5},
        {"materials": "skip", "bake_size": 64},
        {"min_iou": 0.5, "min_hits": 9, "max_dropped": 0.5, "max_outside": 0.5},
    ],
)
def test_what_nothing_reads_makes_no_other_settings(values):
    deciding = {k: v for k, v in values.items() if k in ("image", "cameras", "materials")}
    assert (
        Recipe.of(DatasetSettings(**values)).digest == Recipe.of(DatasetSettings(**deciding)).digest
    )


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 5},
        {"samples": 7},
        {"cameras": "turntable", "seed": 5},  # what Cycles renders has noise
        {"cameras": "turntable", "image": "cast", "jitter": 0.1, "seed": 5},
        {"cameras": "turntable", "image": "cast", "lights": "random", "seed": 5},
        {"near": 0.5},
        {"frame": 2},
    ],
)
def test_what_is_read_makes_other_settings(values):
    without = dict(list(values.items())[:-1])
    assert (
        Recipe.of(DatasetSettings(**values)).digest != Recipe.of(DatasetSettings(**without)).digest
    )


def test_other_settings_are_an_error_that_touches_nothing(tmp_path, item):
    out = tmp_path / "out"
    claim(out, DatasetSettings())
    make(out, item)
    before = files(out)
    other = DatasetSettings(views=5, image="cast")
    with pytest.raises(XRayError, match="views is 4 there and 5 here") as caught:
        claim(out, other)
    assert "image is cycles there and cast here" in str(conflict(out, other))
    assert "--replace" in caught.value.remedy
    assert exit_code(caught.value) == USAGE
    assert files(out) == before
    assert claim(out, DatasetSettings(device="cpu")) == DIGEST
    assert files(out) == before

    digest = claim(out, other, replace=True)
    assert set(files(out)) == {"settings.json"}
    with pytest.raises(XRayError, match="another run"):
        make(out, item)  # a run with the old settings that is still at work
    make(out, item, settings=digest)
    assert find(out, item, digest).status == EXISTS


def test_settings_that_nothing_says_are_others_too(tmp_path, item):
    out = tmp_path / "out"
    make(out, item, settings="unknown")
    with pytest.raises(XRayError, match="is not known"):
        claim(out, DatasetSettings())
    make(tmp_path / "same", item)
    assert claim(tmp_path / "same", DatasetSettings()) == DIGEST


def test_where_nothing_was_captured_other_settings_may_begin(tmp_path, item):
    out = tmp_path / "out"
    claim(out, DatasetSettings())
    refuse(out, item, DIGEST, REJECTED, XRayError("no_faces", "Empty."), row_of(item))
    claim(out, DatasetSettings(views=5))
    assert set(files(out)) == {"settings.json"}


def test_gates_that_change_judge_what_is_there_again(tmp_path, item):
    """It ends as if the gates had always been so, but for what has to be made first."""
    out, strict = tmp_path / "out", DatasetSettings(min_iou=0.99)
    other = Item("b", item.source, name="b.glb")
    claim(out, DatasetSettings())
    make(out, item)
    make(out, other, views=[ViewStatistics([9], iou=1.0).to_dict()], source_bytes=5)
    before = files(out)

    assert claim(out, strict) == DIGEST
    assert find(out, item, DIGEST).code == "low_iou"
    assert find(out, other, DIGEST).status == EXISTS
    assert not (out / "xrays/chair").exists()
    fresh = tmp_path / "fresh"
    claim(fresh, strict)
    gates, reason = judge([ViewStatistics([3, 2], dropped=1, iou=0.95)], strict)
    refuse(fresh, item, DIGEST, REJECTED, reason, row_of(item, gates=gates))
    make(fresh, other, views=[ViewStatistics([9], iou=1.0).to_dict()], source_bytes=5)
    assert files(out) == files(fresh)

    claim(out, DatasetSettings(min_iou=0.97))
    assert "less than 0.97" in find(out, item, DIGEST).reason
    claim(out, DatasetSettings())
    assert find(out, item, DIGEST) is None, "it passes, so it is to be made"
    make(out, item)
    assert files(out) == before


def test_judging_again_can_be_killed(tmp_path, item, monkeypatch):
    out = tmp_path / "out"
    claim(out, DatasetSettings())
    make(out, item)
    with monkeypatch.context() as patch:
        patch.setattr("xray_addon.dataset.store._withdraw", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            claim(out, DatasetSettings(min_iou=0.99))
    claim(out, DatasetSettings())
    assert find(out, item, DIGEST).status == EXISTS
    assert not list(out.glob("refused/*.json"))


def test_a_source_with_another_time_is_read_again(tmp_path, item, monkeypatch):
    out = tmp_path / "out"
    make(out, item)
    write_log(out, ItemResult(item.uid, DONE), {"read": read_state(item)})
    with monkeypatch.context() as patch:
        patch.setattr("xray_addon.dataset.recipe.file_hash", lambda _: 1 / 0)
        assert find(out, item, DIGEST), "the same time: it need not be read"
    stamp = Path(item.source).stat().st_mtime_ns
    Path(item.source).write_bytes(b"y" * len("chair"))
    os.utime(item.source, ns=(stamp + 10**9, stamp + 10**9))
    assert find(out, item, DIGEST) is None


def test_a_bad_manifest_is_an_error_of_usage_in_every_command(tmp_path):
    (tmp_path / "list.csv").write_text("file\na.glb\n")
    with pytest.raises(XRayError) as caught:
        read_source(tmp_path / "list.csv")
    assert exit_code(caught.value, SOME_FAILED) == USAGE


def test_a_rejected_item_is_known_and_a_failed_one_is_tried_again(tmp_path, item):
    out = tmp_path / "out"
    refuse(out, item, DIGEST, REJECTED, XRayError("low_iou", "Too low."), row_of(item))
    assert find(out, item, DIGEST) == ItemResult("chair", REJECTED, "low_iou", "Too low.")
    refuse(out, item, DIGEST, FAILED, XRayError("unreadable_file", "Broken."))
    assert find(out, item, DIGEST) is None
    make(out, item)
    assert not (out / "refused/chair.json").exists()


def test_refusing_takes_back_what_other_settings_made(tmp_path, item):
    out = tmp_path / "out"
    make(out, item)
    refuse(out, item, DIGEST, FAILED, XRayError("unreadable_file", "Only in this run."))
    assert find(out, item, DIGEST).status == EXISTS
    refuse(out, item, "other", FAILED, XRayError("unreadable_file", "Broken."))
    assert set(files(out)) == {"refused/chair.json"}


def test_an_object_of_an_open_file_that_fails_keeps_what_these_settings_made(tmp_path):
    out, item = tmp_path / "out", Item("Cube", "", name="Cube")
    worker_died = XRayError("worker_died", "Blender quit.")
    make(out, item)
    before = files(out)
    refuse(out, item, DIGEST, FAILED, worker_died)
    assert files(out) == before
    refuse(out, item, "other", FAILED, worker_died)
    assert set(files(out)) == {"refused/Cube.json"}
    make(out, item)
    (out / "xrays/Cube/000.npz").unlink()
    refuse(out, item, DIGEST, FAILED, worker_died)
    assert set(files(out)) == {"refused/Cube.json"}, "it was not whole"
    make(out, item)
    refuse(out, item, DIGEST, REJECTED, XRayError("no_faces", "Empty."))
    assert set(files(out)) == {"refused/Cube.json"}, "the object has no faces any more"


def test_leftovers_of_dead_runs_go_and_those_of_live_ones_stay(tmp_path, item):
    out = tmp_path / "out"
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path\n"
            "from xray_addon.dataset.store import work_folder\n"
            "with work_folder(Path(sys.argv[1])) as work:\n"
            "    (work / 'half').write_text('x'); print(work, flush=True); time.sleep(60)",
            str(out),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        theirs = Path(child.stdout.readline().strip())
        with work_folder(out) as work:
            assert theirs.exists()
            assert work.exists()
        assert theirs.exists()
    finally:
        child.kill()
        child.communicate()
    assert theirs.exists()
    (out / ".work" / "dead.part").write_text("")
    with work_folder(out):
        assert not theirs.exists()
    assert list(out.iterdir()) == []


def test_a_lock_is_held_by_one(tmp_path):
    path, held = tmp_path / "a.lock", []

    def count():
        for _ in range(50):
            with lock(path):
                held.append(1)
                assert sum(held) == 1
                time.sleep(0.0001)
                held.pop()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not held
    with lock(path), lock(path, wait=False) as mine:
        assert not mine
    assert not path.exists()


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = ["tests/core", "."]
from test_dataset import make, item_at
for number in range(12):
    make(Path(sys.argv[1]), item_at(number), bytes([number]) * 200_000)
from xray_addon.dataset.store import finish
finish(sys.argv[1])
"""


def item_at(number):
    return Item(f"item{number}", "nowhere", name=f"{number}.glb")


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_killed_at_any_moment_and_resumed_it_ends_the_same(tmp_path):
    def run(out):
        return subprocess.Popen([sys.executable, "-c", KILLED, str(out)], cwd=ROOT)

    started = time.monotonic()
    assert run(tmp_path / "whole").wait() == 0
    took = time.monotonic() - started
    moments, killed = random.Random(3), 0
    for _ in range(8):
        child = run(tmp_path / "killed")
        time.sleep(moments.uniform(0.5, 1.0) * took)
        killed += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        rows = tmp_path / "killed" / "metadata"
        for path in rows.glob("*.json") if rows.exists() else ():
            number = int(path.stem.removeprefix("item"))
            assert find(tmp_path / "killed", item_at(number), DIGEST)
    assert run(tmp_path / "killed").wait() == 0
    assert killed > 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_folder_that_cannot_be_written_says_so(tmp_path, item, monkeypatch):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(XRayError, match="cannot be written") as caught,
        work_folder(tmp_path / "file"),
    ):
        pass
    assert caught.value.code == "cannot_write"


def test_a_full_disk_leaves_the_item_absent(tmp_path, item, monkeypatch):
    def full(self, *arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(XRayError, match="No space left"):
            make(out, item)
    assert find(out, item, DIGEST) is None
    assert not (out / ".work").exists()
    make(out, item)
    assert find(out, item, DIGEST).status == EXISTS


# --- gates and the report ---


@pytest.mark.parametrize(
    ("views", "settings", "touched", "rejects"),
    [
        ([ViewStatistics([9], iou=0.95)], {}, [], ""),
        ([ViewStatistics([9], iou=0.95), ViewStatistics([9], iou=0.5)], {}, ["low_iou"], "low_iou"),
        ([ViewStatistics([9], iou=0.5)], {"min_iou": 0.0}, [], ""),
        ([ViewStatistics([9])], {}, [], ""),
        ([ViewStatistics([9]), ViewStatistics([0])], {}, ["few_hits"], "few_hits"),
        ([ViewStatistics([9])], {"min_hits": 10}, ["few_hits"], "few_hits"),
        ([ViewStatistics([9], dropped=1)], {}, ["dropped_hits"], ""),
        ([ViewStatistics([9], dropped=1)], {"max_dropped": 0.05}, ["dropped_hits"], "dropped_hits"),
        ([ViewStatistics([9], outside=9)], {}, ["out_of_range"], ""),
        ([ViewStatistics([9], outside=9)], {"max_outside": 0.5}, ["out_of_range"], "out_of_range"),
    ],
)
def test_gates(views, settings, touched, rejects):
    names, reason = judge(views, DatasetSettings(**settings))
    assert names == touched
    assert (reason.code if reason else "") == rejects


def test_near_and_far_are_no_gates_and_that_is_said(tmp_path, item):
    out, other = tmp_path / "out", DatasetSettings(far=2.0)
    claim(out, DatasetSettings())
    make(out, item)
    assert conflict(out, other) is not None
    _, reason = judge([ViewStatistics([9], outside=9)], DatasetSettings(max_outside=0.5))
    helps = [
        DatasetSettings.__dataclass_fields__[name].metadata["help"] for name in ("near", "far")
    ]
    assert all("items are made again" in text for text in (reason.remedy, *helps))


def test_the_report_and_the_lines_for_datasets(tmp_path, item):
    out = tmp_path / "out"
    make(out, item, gates=["dropped_hits"], incomplete=["a|b\nc.mtl"])
    refuse(out, Item("b", "", name="b.glb"), DIGEST, REJECTED, XRayError("low_iou", "Low | IoU."))
    refuse(out, Item("c", "", name="c.glb"), DIGEST, FAILED, XRayError("no_importer", "What?"))
    refuse(out, Item("d", "", name="d.glb"), DIGEST, FAILED, XRayError("crashed", "Gone."))
    report = finish(out)
    assert (report.captured, report.rejected, report.failed) == (1, 1, 2)
    assert (report.views, report.hits, report.dropped) == (1, [3, 2], 1)
    assert report.gates["dropped_hits"] == {"counted": 1, "refused": 0}
    assert report.gates["low_iou"] == {"counted": 1, "refused": 1}
    assert report.gates["unreadable"] == {"counted": 1, "refused": 1}
    assert report.gates["crashed"] == {"counted": 1, "refused": 1}
    assert json.loads((out / "report.json").read_text())["failed"] == 2
    assert "Low \\| IoU." in (out / "report.md").read_text()
    assert "| chair | a\\|b c.mtl |\n" in (out / "report.md").read_text()
    (line,) = (out / "metadata.jsonl").read_text().splitlines()
    values = json.loads(line)
    assert values["file_name"] == "images/chair/000.png"
    assert (out / values["file_name"]).exists()
    assert (out / values["xray"]).exists()
    before = files(out)
    finish(out)
    assert files(out) == before


def test_times_are_in_the_log_alone(tmp_path, item):
    result = ItemResult("chair", DONE, seconds=1.5)
    path = write_log(tmp_path, result, {"stages": {"cast": 1.0}})
    assert json.loads(path.read_text())["seconds"] == 1.5
    assert ItemResult.from_dict(result.to_dict()) == result
    with pytest.raises(ValueError, match="no ItemResult"):
        ItemResult.from_dict({"status": "done"})
