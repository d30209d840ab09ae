"""Datasets that were downloaded: nothing in them reaches outside, and what is broken costs itself.

Each file here is one that a run reads. Whatever it holds, what lies beside the dataset stays, and
items that are sound stay too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from xray_addon import XRayError
from xray_addon.dataset.gates import ViewStatistics
from xray_addon.dataset.manifest import Item, read_source
from xray_addon.dataset.recipe import Recipe
from xray_addon.dataset.result import DONE, EXISTS, FAILED, REJECTED, ItemResult
from xray_addon.dataset.store import (
    claim,
    conflict,
    find,
    finish,
    publish,
    put_files,
    refuse,
    rows,
    work_folder,
    write_log,
)
from xray_addon.settings.dataset import DatasetSettings

SETTINGS = DatasetSettings()
STRICT = DatasetSettings(min_hits=10**6)  # the same items, of which none passes its gates
OTHER = DatasetSettings(layers=3)
HOSTILE = ["../../home/Documents", "..", "/", "", "a/b", "a\\b", ".work", "c:x", 3, None, ["a"]]


def row_of(uid: str = "chair", **values) -> dict:
    return {
        "uid": uid,
        "source": "chair.glb",
        "source_sha256": "",
        "source_bytes": 5,
        "license": "",
        "settings": Recipe.of(SETTINGS).digest,
        "triangles": 12,
        "gates": [],
        "images": True,
        "views": [ViewStatistics([3, 2], dropped=1, iou=0.95).to_dict()],
        **values,
    }


def refused_of(uid: str = "chair", **values) -> dict:
    said = {"status": REJECTED, "code": "few_hits", "reason": "Few."}
    return {**row_of(uid), **said, **values}


@pytest.fixture
def home(tmp_path) -> Path:
    """A folder that is somebody's own, with a dataset in it that holds one sound item."""
    (tmp_path / "home/Documents").mkdir(parents=True)
    (tmp_path / "home/Documents/thesis.txt").write_text("years of work")
    make(tmp_path / "home/dataset", "sound")
    return tmp_path / "home"


def make(folder: Path, uid: str) -> None:
    claim(folder, SETTINGS)
    with work_folder(folder) as work:
        for kind, name in (("xrays", "000.npz"), ("images", "000.png")):
            (work / kind).mkdir()
            (work / kind / name).write_bytes(b"hits")
        publish(folder, Item(uid, ""), work, row_of(uid))


def everything(folder: Path) -> None:
    """All that runs do to a dataset that is there."""
    for settings, replace in ((SETTINGS, False), (STRICT, False), (SETTINGS, False), (OTHER, True)):
        digest = claim(folder, settings, replace)
        conflict(folder, SETTINGS)
        item = Item("chair", "", name="chair.glb")
        find(folder, item, digest)
        refuse(folder, item, digest, FAILED, XRayError("no_faces", "Empty."))
        write_log(folder, ItemResult("chair", DONE), {})
        finish(folder)
    with work_folder(folder):
        pass


@pytest.mark.parametrize("uid", [*HOSTILE, "{home}/Documents"])
@pytest.mark.parametrize("kind", ["metadata", "refused"])
def test_a_uid_that_is_a_path_deletes_and_writes_nothing_outside(home, kind, uid):
    folder = home / "dataset"
    uid = uid.format(home=home) if isinstance(uid, str) else uid
    row = row_of(uid) if kind == "metadata" else refused_of(uid)
    (folder / kind).mkdir(exist_ok=True)
    (folder / kind / "chair.json").write_text(json.dumps(row))
    everything(folder)
    assert (home / "Documents/thesis.txt").read_text() == "years of work"
    assert {path.name for path in home.iterdir()} == {"Documents", "dataset"}


@pytest.mark.parametrize("omage", [7, {"unwrapped": [1]}, {}])
def test_a_row_whose_omage_is_none_affects_only_its_own_item(home, omage):
    folder = home / "dataset"
    (folder / "metadata/chair.json").write_text(json.dumps(row_of("chair", omage=omage)))
    finish(folder)
    assert [row["uid"] for row in rows(folder)] == ["sound"]


def test_a_row_counts_only_under_its_own_name(home):
    folder = home / "dataset"
    (folder / "metadata/other.json").write_text(json.dumps(row_of("chair")))
    (folder / "metadata/sound2.json").write_text(json.dumps(row_of("sound2")))
    assert [row["uid"] for row in rows(folder)] == ["sound", "sound2"]


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
@pytest.mark.parametrize(
    "name", [".work", "images", "xrays", "ids", "metadata", "refused", "logs", "logs/worker.log"]
)
def test_a_dataset_with_links_in_it_is_refused(home, name):
    folder, outside = home / "dataset", home / "Documents"
    for file in ("publish.lock", "x.part", "sound.json", "chair.json"):
        (outside / file).write_text("mine")
    (outside / "x.lock").write_text("")
    (outside / "x.tmp").mkdir()
    (outside / "sound").mkdir()
    before = sorted(path.name for path in outside.iterdir())
    (folder / name).parent.mkdir(exist_ok=True)
    if (folder / name).exists():
        (folder / name).rename(home / "moved")
    (folder / name).symlink_to(outside / "thesis.txt" if "." in name[1:] else outside)
    makes = [
        lambda: everything(folder),
        lambda: claim(folder, OTHER, replace=True),
        lambda: finish(folder),
        lambda: put_files(folder, "sound", home / "none"),
        lambda: write_log(folder, ItemResult("chair", DONE), {}),
    ]
    for run in makes:
        with pytest.raises(XRayError) as caught:
            run()
        assert caught.value.code == "unsafe_dataset"
    assert sorted(path.name for path in outside.iterdir()) == before
    assert (outside / "publish.lock").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_an_items_folder_that_is_a_link_goes_and_what_it_leads_to_stays(home):
    folder = home / "dataset"
    for kind, target in (("images", home / "Documents"), ("ids", home / "nowhere")):
        (folder / kind).mkdir(exist_ok=True)
        (folder / kind / "chair").symlink_to(target)
    make(folder, "chair")
    assert not (folder / "images/chair").is_symlink()
    (folder / "xrays/chair/000.npz").unlink()
    (folder / "xrays/chair").rmdir()
    (folder / "xrays/chair").symlink_to(home / "Documents")
    claim(folder, STRICT)
    assert not (folder / "xrays/chair").is_symlink()
    assert (home / "Documents/thesis.txt").exists()


DEEP = "[" * 100_000 + "]" * 100_000
BROKEN = [
    "", "[", "null", "[]", "{}", DEEP,
    '{"uid": "chair"}', '{"uid": "chair", "views": ' + DEEP + "}",
    *(
        json.dumps(row_of(**{name: value}))
        for name, value in [
            ("views", []), ("views", None), ("views", [3]), ("views", [{}]), ("views", {"a": 1}),
            ("views", [{"hits": ["3"], "dropped": 0, "outside": 0, "iou": None}]),
            ("views", [{"hits": [float("inf")], "dropped": 0, "outside": 0, "iou": None}]),
            ("views", [{"hits": [-1], "dropped": 0, "outside": 0, "iou": None}]),
            ("gates", "all"), ("gates", [1]), ("triangles", "12"), ("triangles", float("nan")),
            ("source", 3), ("license", ["CC0"]), ("settings", {}), ("files", ["a"]),
            ("files", {"../../a": 1}), ("source_bytes", -1), ("images", "yes"),
            ("missing_textures", 3), ("source", "\ud800"),
        ]
    ),
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("kind", ["metadata", "refused", "logs"])
def test_one_broken_row_costs_that_row(home, kind, text):
    folder = home / "dataset"
    (folder / kind).mkdir(exist_ok=True)
    (folder / kind / "chair.json").write_text(text, errors="surrogatepass")
    digest = claim(folder, SETTINGS)
    assert find(folder, Item("chair", ""), digest) is None
    report = finish(folder)
    assert report.captured == 1
    assert len((folder / "metadata.jsonl").read_text().splitlines()) == 1
    everything(folder)


@pytest.mark.parametrize(
    "text",
    ["[", "[]", "{}", DEEP, '{"items": 3, "gates": {}}',
     '{"gates": {}, "items": {"a": ' + DEEP + "}}",
     '{"items": {"layers": Infinity}, "gates": {}}', '{"items": {"layers": 1}}'],
)  # fmt: skip
def test_a_broken_settings_file_is_as_if_nobody_had_said(home, text):
    folder = home / "dataset"
    (folder / "settings.json").write_text(text)
    assert conflict(folder, SETTINGS) is None
    (folder / "settings.json").write_text(text)
    assert find(folder, Item("sound", "gone"), claim(folder, SETTINGS)).status == EXISTS
    (folder / "settings.json").write_text(text)
    with pytest.raises(XRayError) as caught:
        claim(folder, OTHER)
    assert caught.value.code == "other_settings"
    everything(folder)


def test_rows_that_are_larger_than_a_row_can_be_are_not_read(home, monkeypatch):
    folder = home / "dataset"
    with (folder / "metadata/chair.json").open("w") as stream:
        stream.truncate(1 << 34)
    assert [row["uid"] for row in rows(folder)] == ["sound"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_pipes_in_a_dataset_hold_nobody_up(home):
    folder = home / "dataset"
    for name in ("metadata/a.json", "refused/b.json", "logs/chair.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        os.mkfifo(folder / name)
    (folder / "settings.json").unlink()
    os.mkfifo(folder / "settings.json")
    everything(folder)
    os.mkfifo(home / "list.csv")
    with pytest.raises(XRayError, match="regular"):
        read_source(home / "list.csv")


@pytest.mark.skipif(os.name == "nt", reason="names there are UTF-16")
def test_a_name_that_is_not_utf_8_is_captured_whole(home, tmp_path):
    source = os.fsencode(tmp_path) + b"/meshes/caf\xe9.glb"
    os.mkdir(os.path.dirname(source))
    with open(source, "wb") as stream:
        stream.write(b"mesh")
    (item,) = read_source(tmp_path / "meshes")
    assert item.name == "caf\\xe9.glb"
    folder = home / "dataset"
    with work_folder(folder) as work:
        (work / "xrays").mkdir()
        (work / "xrays/000.npz").write_bytes(b"hits")
        row = row_of(item.uid, source=item.name, objects=["caf\udce9"])
        publish(folder, item, work, row)
    assert sorted(path.name for path in (folder / "xrays").iterdir()) == [item.uid, "sound"]
    digest = Recipe.of(SETTINGS).digest
    assert find(folder, Item(item.uid, ""), digest) is None  # of an object: nothing to compare
    reason = XRayError("unreadable_file", "caf\udce9 cannot be read.")
    refuse(folder, Item("other", "x"), digest, FAILED, reason)
    write_log(folder, ItemResult("other", FAILED), {"said": ["caf\udce9"]})
    report = finish(folder)
    assert report.captured == 2
    assert report.refused[0]["reason"] == "caf? cannot be read."


@pytest.mark.parametrize(
    "line",
    ['{"path": 3}', '{"path": null}', "3", '{"path": "a\\u0000"}', DEEP, '{"path": "a", "uid": '
     '"\\ud800"}', "NaN", "{" + '"a":{' * 40, " " * (1 << 20) + "1"],
)  # fmt: skip
def test_a_manifest_with_a_strange_line_says_which(tmp_path, line):
    (tmp_path / "m.jsonl").write_text('{"path": "a.glb"}\n' + line + "\n")
    with pytest.raises(XRayError) as caught:
        read_source(tmp_path / "m.jsonl")
    assert caught.value.code == "bad_manifest"


def test_a_uid_of_a_manifest_becomes_a_name(tmp_path):
    for uid in ("../../etc", "/etc", "..", "con", "a\nb"):
        (tmp_path / "m.jsonl").write_text(json.dumps({"path": "a.glb", "uid": uid}))
        (item,) = read_source(tmp_path / "m.jsonl")
        assert not {"/", "\\", ".", "\n"} & set(item.uid)
    assert find(tmp_path, item, "") is None
