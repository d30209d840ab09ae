"""WebDataset tars: deterministic, whole or absent, at any address that fsspec knows."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from helpers import rows, statuses
from webdataset.tariterators import group_by_keys, tar_file_expander

from farm import shards
from farm.run import missing, run
from xray_addon.dataset.companions import companion_hashes
from xray_addon.dataset.manifest import Item
from xray_addon.dataset.recipe import file_hash
from xray_addon.errors import XRayError


@pytest.fixture(autouse=True)
def _empty_memory():
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def staged(work, tmp_path):
    """`staged(source, url)`: work whose OUT is a URL."""
    return lambda source, url: work(source, url, staging=str(tmp_path / "staging"))


def read(url: str) -> bytes:
    with fsspec.open(url, "rb") as stream:
        return stream.read()


def names(tar: Path) -> list[str]:
    with tarfile.open(tar) as archive:
        return archive.getnames()


def test_a_sample_for_each_view(source, work, tmp_path):
    run(work(source(2, odd="rejected", bad="failed"), tar=True))
    tar = tmp_path / "out-0001.tar"
    assert names(tar) == [
        f"item{item:03d}-{view:03d}.{suffix}"
        for item in range(2)
        for view in range(2)
        for suffix in ("json", "npz", "png")
    ]
    with tarfile.open(tar) as archive:
        values = json.load(archive.extractfile("item001-001.json"))
        assert archive.extractfile("item001-001.npz").read() == b"xray item001 1"
    assert (values["uid"], values["view"], values["hits"]) == ("item001", 1, [5, 5])
    assert values["camera"] == {"camera_angle_x": 0.5, "transform_matrix": [[1]]}
    assert values["applied_transform"] == [[2, 0, 0, 1], [0, 2, 0, 0], [0, 0, 2, 0]]
    assert "seconds" not in values


def test_slices_are_refused_where_only_shards_go(source, work, dataset_settings):
    place = work(source(1))
    settings = dataclasses.replace(dataset_settings, slices=True)
    dataclasses.replace(place, settings=settings)
    with pytest.raises(XRayError, match="do not contain slices") as caught:
        dataclasses.replace(place, settings=settings, out="memory://chairs")
    assert caught.value.code == "bad_settings"


def test_webdataset_reads_them(source, work, tmp_path):
    run(work(source(3), tar=True))
    with (tmp_path / "out-0001.tar").open("rb") as stream:
        samples = list(group_by_keys(tar_file_expander([{"url": "out", "stream": stream}])))
    assert [sample["__key__"] for sample in samples] == [
        f"item{item:03d}-{view:03d}" for item in range(3) for view in range(2)
    ]
    assert samples[0]["png"] == b"image item000 0"


def test_the_same_items_give_the_same_bytes(source, work, tmp_path):
    folder = source(4)
    run(work(folder, tmp_path / "a", tar=True, jobs=1))
    run(work(folder, tmp_path / "b", tar=True, jobs=3))
    assert (tmp_path / "a-0001.tar").read_bytes() == (tmp_path / "b-0001.tar").read_bytes()


def test_a_long_name_is_kept(source, work, tmp_path):
    name = "x" * 96
    run(work(source(**{name: "ok"}), tar=True))
    assert f"{name}-001.npz" in names(tmp_path / "out-0001.tar")


def test_a_shard_is_packed_again_when_it_has_changed(source, work, tmp_path):
    folder = source(2, bad="failed")
    run(work(folder, tar=True))
    tar = tmp_path / "out-0001.tar"
    first = tar.stat()
    run(work(folder, tar=True))
    assert tar.stat().st_mtime_ns == first.st_mtime_ns  # nothing new
    (folder / "bad.obj").write_text("ok")
    run(work(folder, tar=True))
    assert any(name.startswith("bad-") for name in names(tar))


@pytest.mark.parametrize("scheme", ["memory://bucket", "file://{tmp_path}"])
def test_out_may_be_a_url(source, work, staged, tmp_path, scheme, worker_ids):
    folder = source(5)
    url = f"{scheme.format(tmp_path=tmp_path)}/chairs"
    for part in ("1/2", "2/2"):
        assert set(statuses(run(staged(folder, url), part)).values()) == {"done"}
        run(work(folder, tmp_path / "local", tar=True), part)
    for index in (1, 2):
        tar = read(f"{url}-{index:04d}.tar")
        assert tar == (tmp_path / f"local-{index:04d}.tar").read_bytes()
    # What has arrived is not kept here, and not made again.
    assert not list((tmp_path / "staging").iterdir())
    results = run(staged(folder, url), "1/2")
    assert set(statuses(results).values()) == {"exists"}
    assert not list((tmp_path / "staging").iterdir())


def test_a_shard_with_failures_goes_on_from_its_staging(source, staged, tmp_path):
    folder = source(2, bad="failed")
    url = "memory://bucket/chairs"
    run(staged(folder, url))
    assert rows(tmp_path / "staging/1-of-1") == ["item000", "item001"]
    (folder / "bad.obj").write_text("ok")
    assert statuses(run(staged(folder, url))) == {
        "bad": "done",
        "item000": "exists",
        "item001": "exists",
    }
    record = shards.read_record(url, 1)
    assert sorted(record["items"]) == ["bad", "item000", "item001"]


def test_two_farms_at_one_url_share_a_staging_folder_in_turn(source, staged, tmp_path, monkeypatch):
    place = staged(source(2), "memory://bucket/chairs")
    module: Any = sys.modules["farm.run"]  # `farm.run` is the function
    capture, second = module.capture, []
    other = threading.Thread(target=lambda: second.extend(run(place)))

    def meanwhile(*arguments):
        results = capture(*arguments)
        monkeypatch.setattr(module, "capture", capture)
        other.start()
        other.join(1)  # it would be through by now, and have removed the folder
        return results

    monkeypatch.setattr(module, "capture", meanwhile)
    assert set(statuses(run(place)).values()) == {"done"}
    other.join(30)
    assert statuses(second) == {"item000": "exists", "item001": "exists"}
    assert not list((tmp_path / "staging").iterdir())


def test_two_urls_have_two_staging_folders(work, source):
    one, two = (work(source(1), f"memory://{bucket}/chairs").staging for bucket in "ab")
    assert one != two
    assert one == work(source(1), "memory://a/chairs/").staging


def test_an_upload_that_breaks_leaves_nothing(source, staged, monkeypatch):
    url = "memory://bucket/chairs"

    def broken(stream, to, *_):
        to.write(stream.read(100))
        raise OSError("the network is gone")

    with monkeypatch.context() as patch:
        patch.setattr(shards.shutil, "copyfileobj", broken)
        with pytest.raises(XRayError, match="the network is gone"):
            run(staged(source(2), url))
    assert not MemoryFileSystem().exists("/bucket/chairs-0001.tar")
    assert not MemoryFileSystem().exists("/bucket/chairs-0001.json")
    run(staged(source(2), url))
    assert sorted(shards.read_record(url, 1)["items"]) == ["item000", "item001"]


def test_a_full_disk_is_said_of_the_tar(source, work, monkeypatch):
    reason = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(shards.TarWriter, "write", Mock(side_effect=reason))
    with pytest.raises(XRayError, match="No space left") as caught:
        run(work(source(1), tar=True))
    assert caught.value.code == "cannot_write"


def test_a_tar_without_its_record_is_made_again(source, staged):
    url = "memory://bucket/chairs"
    run(staged(source(2), url))
    whole = read(f"{url}-0001.tar")
    MemoryFileSystem().rm("/bucket/chairs-0001.json")
    with fsspec.open(f"{url}-0001.tar", "wb") as stream:
        stream.write(b"half")
    assert set(statuses(run(staged(source(2), url))).values()) == {"done"}
    assert read(f"{url}-0001.tar") == whole


def replacing(work):
    return dataclasses.replace(work, replace=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("seed", 1, "seed is 0 there and 1 here"), ("min_iou", 0.5, "min_iou is 0.9 there and 0.5")],
)
def test_other_settings_replace_a_shard_only_where_that_is_said(
    source, staged, dataset_settings, name, value, message
):
    url = "memory://bucket/chairs"
    run(staged(source(2), url))
    whole = read(f"{url}-0001.tar")
    setattr(dataset_settings, name, value)
    with pytest.raises(XRayError, match=message) as caught:
        run(staged(source(2), url))
    assert caught.value.code == "other_settings"
    assert read(f"{url}-0001.tar") == whole
    assert set(statuses(run(replacing(staged(source(2), url)))).values()) == {"done"}
    assert set(statuses(run(staged(source(2), url))).values()) == {"exists"}


def test_another_number_of_shards_replaces_them_only_where_that_is_said(source, staged):
    folder, url = source(6), "memory://bucket/chairs"
    for part in ("1/3", "2/3", "3/3"):
        run(staged(folder, url), part)
    with pytest.raises(XRayError, match="3 shards there and 2 here"):
        run(staged(folder, url), "1/2")
    run(replacing(staged(folder, url)), "1/2")
    assert MemoryFileSystem().exists("/bucket/chairs-0003.tar"), "not before all are made"
    run(replacing(staged(folder, url)), "2/2")
    assert not MemoryFileSystem().exists("/bucket/chairs-0003.tar")
    packed = [uid for index in (1, 2) for uid in shards.read_record(url, index)["items"]]
    assert sorted(packed) == [f"item{number:03d}" for number in range(6)]


def test_a_kept_item_that_the_old_shard_lacks_is_not_lost(source, staged):
    folder, url = source(2), "memory://bucket/chairs"
    run(staged(folder, url))
    system, short = MemoryFileSystem(), io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(read(f"{url}-0001.tar"))) as whole,
        tarfile.open(fileobj=short, mode="w") as archive,
    ):
        for member in whole:
            if not member.name.startswith("item000"):
                archive.addfile(member, whole.extractfile(member))
    system.pipe("/bucket/chairs-0001.tar", short.getvalue())
    (folder / "item002.obj").write_text("ok")
    with pytest.raises(XRayError, match=r"lacks items .*item000.*Remove .*chairs-0001\.json") as at:
        run(staged(folder, url))
    assert at.value.code == "bad_shard"
    assert read(f"{url}-0001.tar") == short.getvalue()
    system.rm("/bucket/chairs-0001.json")
    run(staged(folder, url))
    assert packed() == {"item000", "item001", "item002"}


def test_a_source_that_changes_is_packed_again(source, staged):
    folder, url = source(2), "memory://bucket/chairs"
    run(staged(folder, url))
    (folder / "item000.obj").write_text("OK")
    assert statuses(run(staged(folder, url))) == {"item000": "done", "item001": "exists"}
    assert set(statuses(run(staged(folder, url))).values()) == {"exists"}


def test_what_a_shard_holds_is_taken_over_with_the_same_bytes(source, work, staged, tmp_path):
    folder, url = source(3), "memory://bucket/chairs"
    run(staged(folder, url))
    (folder / "item001-b.obj").write_text("ok")
    (folder / "item002.obj").unlink()
    assert statuses(run(staged(folder, url))) == {
        "item000": "exists",
        "item001": "exists",
        "item001-b": "done",
    }
    run(work(folder, tmp_path / "anew", tar=True))
    assert read(f"{url}-0001.tar") == (tmp_path / "anew-0001.tar").read_bytes()
    record = shards.read_record(url, 1)
    assert record == json.loads((tmp_path / "anew-0001.json").read_text())


def test_items_that_fail_take_none_with_them(source, staged):
    folder, url = source(2), "memory://bucket/chairs"
    run(staged(folder, url))
    (folder / "item002.obj").write_text("failed")
    assert statuses(run(staged(folder, url)))["item002"] == "failed"
    assert sorted(shards.read_record(url, 1)["items"]) == ["item000", "item001"]
    assert missing(staged(folder, url), 1) == ["item002"]


def packed(pattern: str = "*.tar") -> set[str]:
    """The items in all tars of such names."""
    found = set()
    for path in MemoryFileSystem().glob(f"/bucket/{pattern}"):
        with tarfile.open(fileobj=io.BytesIO(MemoryFileSystem().cat(path))) as archive:
            found |= {name.rpartition("-")[0] for name in archive.getnames()}
    return found


@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 3), (2, 2)])
def test_no_item_goes_before_its_new_shard_is_there(source, staged, before, after):
    folder, url = source(6), "memory://bucket/chairs"
    old = {f"item{number:03d}" for number in range(6)}
    for i in range(before):
        run(staged(folder, url), f"{i + 1}/{before}")
    if before == after:
        (folder / "item.obj").write_text("ok")  # which moves others to other shards
    for i in range(after):
        assert packed() >= old
        run(replacing(staged(folder, url)), f"{i + 1}/{after}")
    tars = sorted(Path(path).name for path in MemoryFileSystem().glob("/bucket/*"))
    assert tars == [f"chairs-000{i + 1}.{end}" for i in range(after) for end in ("json", "tar")]
    assert packed() == {path.stem for path in folder.iterdir()}


def test_cut_off_while_shards_are_put_in_place_a_run_goes_on(source, staged, monkeypatch):
    folder, url = source(6), "memory://bucket/chairs"
    for part in ("1/3", "2/3", "3/3"):
        run(staged(folder, url), part)
    run(replacing(staged(folder, url)), "1/2")
    real = MemoryFileSystem.mv
    for allowed in (0, 1, 1, 1):  # of the four that there are
        moved: list[tuple[str, str]] = []

        def broken(self, *arguments, allowed=allowed, moved=moved, **keywords):
            if len(moved) == allowed:
                raise OSError("the network is gone")
            real(self, *arguments, **keywords)
            moved.append(arguments)

        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, "mv", broken)
            with pytest.raises(XRayError, match="the network is gone"):
                run(replacing(staged(folder, url)), "2/2")
        assert packed("*.tar*") == {f"item{number:03d}" for number in range(6)}
    for part in ("2/2", "1/2"):
        assert set(statuses(run(staged(folder, url), part)).values()) == {"exists"}
    assert len(MemoryFileSystem().glob("/bucket/*")) == 4
    assert packed() == {f"item{number:03d}" for number in range(6)}


def test_an_address_nobody_knows_is_named(source, staged, tmp_path):
    with pytest.raises(XRayError, match="Check the address"):
        run(staged(source(1), "nonsense://bucket/chairs"))
    assert not (tmp_path / "staging").exists()  # before any work is done


@pytest.mark.parametrize("broken", ["_open", "exists"])
def test_errors_of_a_file_system_are_said(source, staged, monkeypatch, broken):
    """s3fs raises botocore's errors, which are no OSErrors, e.g. where credentials lack."""

    def refuse(*_, **__):
        raise RuntimeError("Unable to locate credentials")

    folder, url = source(1), "memory://bucket/chairs"
    run(staged(folder, url))
    monkeypatch.setattr(MemoryFileSystem, broken, refuse)
    with pytest.raises(XRayError, match="Unable to locate credentials") as caught:
        run(staged(folder, url))
    assert caught.value.code == "cannot_write"


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "reset by peer"), TimeoutError("slow"), PermissionError()]
)
def test_a_record_that_cannot_be_read_is_not_taken_for_none(source, staged, monkeypatch, error):
    folder, url = source(2), "memory://bucket/chairs"
    run(staged(folder, url))
    before = {path: read(f"memory:/{path}") for path in MemoryFileSystem().find("/bucket")}
    (folder / "item000.obj").unlink()
    real = MemoryFileSystem._open

    def fail(self, path, mode="rb", **options):
        if mode == "rb" and path.endswith(".json"):
            raise error
        return real(self, path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "_open", fail)
        with pytest.raises(XRayError, match="cannot be read") as caught:
            run(replacing(staged(folder, url)))
    assert caught.value.code == "cannot_write"
    assert {path: read(f"memory:/{path}") for path in MemoryFileSystem().find("/bucket")} == before


def test_a_record_that_is_no_json_is_written_again(source, staged):
    folder, url = source(2), "memory://bucket/chairs"
    run(staged(folder, url))
    MemoryFileSystem().pipe("/bucket/chairs-0001.json", b"half")
    assert set(statuses(run(staged(folder, url))).values()) == {"done"}
    assert sorted(shards.read_record(url, 1)["items"]) == ["item000", "item001"]


def test_fewer_shards_leave_none_of_the_old_ones(source, work, tmp_path):
    folder = source(6)
    for part in ("1/3", "2/3", "3/3", "1/2"):
        run(work(folder, tar=True), part)
    assert (tmp_path / "out-0003.tar").exists(), "its items are in no other tar yet"
    run(work(folder, tar=True), "2/2")
    tars = sorted(tmp_path.glob("out-*.tar"))
    assert [tar.name for tar in tars] == ["out-0001.tar", "out-0002.tar"]
    packed = [name for tar in tars for name in names(tar)]
    assert len(packed) == len(set(packed)) == 6 * 2 * 3


def test_omages_go_with_the_first_view(source, work, tmp_path):
    run(work(source(1)))
    folder = tmp_path / "out"
    for size in (64, 1024):
        path = folder / "omages" / "item000" / f"{size}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"omage %d" % size)
    first, second = shards._samples(folder, "item000")
    assert (first["omage64.npz"], first["omage1024.npz"]) == (b"omage 64", b"omage 1024")
    assert not [name for name in second if name.startswith("omage")]


def test_an_item_whose_companion_has_changed_is_out_of_date(tmp_path):
    mesh, library = tmp_path / "a.obj", tmp_path / "a.mtl"
    mesh.write_text("mtllib a.mtl\n")
    library.write_text("newmtl red\n")
    row = {
        "source_sha256": file_hash(mesh),
        "companions": companion_hashes(mesh, [library]),
    }
    item = Item("a", str(mesh))
    for known in (row, {"source_sha256": row["source_sha256"]}):
        assert shards._is_of(item, shards._source_hash(json.dumps(known).encode()))
    known = shards._source_hash(json.dumps(row).encode())
    library.write_text("newmtl green\n")
    assert not shards._is_of(item, known)
    library.unlink()
    assert not shards._is_of(item, known)
    mesh.unlink()
    assert shards._is_of(item, known)
