"""One go at one item: every way in which it can end, and what is left of each."""

from __future__ import annotations

import errno
import json

import pytest

from xray_addon import XRayError
from xray_addon.dataset.attempt import PlainStore, Store, give_up
from xray_addon.dataset.gates import ViewStatistics
from xray_addon.dataset.manifest import Item
from xray_addon.dataset.recipe import Recipe
from xray_addon.progress import Cancelled
from xray_addon.settings.dataset import DatasetSettings

SETTINGS = DatasetSettings(min_hits=4)


@pytest.fixture
def item(tmp_path):
    source = tmp_path / "source.glb"
    source.write_bytes(b"mesh")
    return Item("chair", str(source), name="source.glb")


def make(store, attempt, hits=5, content=b"hits"):
    """What whoever makes items does."""
    store.note_source(attempt)
    attempt.messages.append("a warning")
    with attempt.timed("cast"):
        (attempt.folder / "xrays").mkdir()
        (attempt.folder / "xrays" / "000.npz").write_bytes(content)
    attempt.views.append(ViewStatistics([hits, 1], dropped=2, iou=1.0))


def tried(store, item, error=None, **made):
    with store, store.attempt(item, blender="4.5") as attempt:
        make(store, attempt, **made)
        if error is not None:
            raise error
    return attempt.result


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_done(tmp_path, item):
    result = tried(Store(tmp_path / "out", SETTINGS), item)
    assert (result.status, result.views, result.hits, result.dropped) == ("done", 1, 6, 2)
    assert files(tmp_path / "out") == [
        "logs/chair.json",
        "metadata/chair.json",
        "settings.json",
        "xrays/chair/000.npz",
    ]
    row = json.loads((tmp_path / "out/metadata/chair.json").read_text())
    assert row["source"] == "source.glb"
    assert row["views"] == [{"hits": [5, 1], "dropped": 2, "outside": 0, "iou": 1.0}]
    log = json.loads((tmp_path / "out/logs/chair.json").read_text())
    assert log["messages"] == ["a warning"]
    assert (log["blender"], log["detail"]) == ("4.5", "")
    assert set(log["stages"]) == {"hash", "cast"}
    with Store(tmp_path / "out", SETTINGS) as store:
        assert store.find(item).status == "exists"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (XRayError("no_faces", "Nothing."), "rejected", "no_faces"),
        (XRayError("render_failed", "Black."), "failed", "render_failed"),
        (MemoryError(), "failed", "out_of_memory"),
        (OSError(errno.EIO, "Input/output error"), "failed", "unreadable_file"),
        (KeyError("a bug"), "failed", "internal"),
    ],
)
def test_what_is_raised_is_the_items_own(tmp_path, item, error, status, code):
    result = tried(Store(tmp_path / "out", SETTINGS), item, error)
    assert (result.status, result.code, result.hits) == (status, code, 0)
    assert files(tmp_path / "out") == ["logs/chair.json", "refused/chair.json", "settings.json"]
    refused = json.loads((tmp_path / "out/refused/chair.json").read_text())
    assert (refused["status"], refused["code"], refused["triangles"]) == (status, code, 0)
    detail = json.loads((tmp_path / "out/logs/chair.json").read_text())["detail"]
    assert type(error).__name__ in detail


def test_a_gate_rejects_without_a_traceback(tmp_path, item):
    result = tried(Store(tmp_path / "out", SETTINGS), item, hits=1)
    assert (result.status, result.code) == ("rejected", "few_hits")
    refused = json.loads((tmp_path / "out/refused/chair.json").read_text())
    assert refused["gates"] == ["few_hits", "dropped_hits"]
    assert json.loads((tmp_path / "out/logs/chair.json").read_text())["detail"] == ""


@pytest.mark.parametrize(
    "error", [XRayError("no_gpu", "None."), Cancelled(), KeyboardInterrupt(), GeneratorExit()]
)
def test_what_every_item_would_meet_rises_and_nothing_is_noted(tmp_path, item, error):
    with pytest.raises(type(error)):
        tried(Store(tmp_path / "out", SETTINGS), item, error)
    assert files(tmp_path / "out") == ["settings.json"]


def test_a_disk_that_fills_up_stops_the_run(tmp_path, item, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.rename", full)
    with pytest.raises(XRayError, match="No space left"):
        tried(Store(tmp_path / "out", SETTINGS), item)
    assert files(tmp_path / "out") == ["settings.json"]


def test_plain_files_have_no_records_and_are_replaced(tmp_path, item):
    out, warned = tmp_path / "out", []
    for content in (b"one", b"two"):
        store = PlainStore(out, SETTINGS, warned.append)
        assert store.find(item) is None
        assert tried(store, item, hits=1, content=content).status == "done"
        assert files(out) == ["xrays/chair/000.npz"]
        assert (out / "xrays/chair/000.npz").read_bytes() == content
    assert warned == ["chair: a warning"] * 2
    result = tried(PlainStore(out, SETTINGS, warned.append), item, KeyError("a bug"))
    assert (result.status, result.code) == ("failed", "internal")
    assert files(out) == ["xrays/chair/000.npz"]
    assert len(warned) == 2


@pytest.mark.parametrize("gone", ["metadata/chair.json", "settings.json"])
def test_a_plain_capture_leaves_a_dataset_alone(tmp_path, item, gone):
    out = tmp_path / "out"
    tried(Store(out, SETTINGS), item)
    (out / gone).unlink()
    before = {name: (out / name).read_bytes() for name in files(out)}
    with pytest.raises(XRayError, match=r"holds a dataset.*Choose another folder") as caught:
        tried(PlainStore(out, SETTINGS), item, content=b"other hits")
    assert caught.value.code == "other_settings"
    assert {name: (out / name).read_bytes() for name in files(out)} == before
    assert not (out / ".work").exists()


def test_a_worker_that_is_gone_costs_its_item(tmp_path, item):
    out, digest = tmp_path / "out", Recipe.of(SETTINGS).digest
    with Store(out, SETTINGS):
        pass
    error = XRayError("worker_died", "Blender stopped.", "Look at the file.")
    result = give_up(out, item, digest, error, tmp_path / "worker.log", 1.23456)
    assert (result.status, result.code, result.seconds) == ("failed", "worker_died", 1.235)
    assert (result.reason, result.log) == (str(error), str(tmp_path / "worker.log"))
    assert files(out) == ["logs/chair.json", "refused/chair.json", "settings.json"]
    # What was written before it died is there.
    tried(Store(out, SETTINGS), item)
    assert give_up(out, item, digest, error, tmp_path / "worker.log").status == "exists"
    assert "refused/chair.json" not in files(out)
