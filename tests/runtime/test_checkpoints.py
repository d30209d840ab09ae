"""Where weights are found and how they are fetched, from a hub that runs on this machine."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from fake_hub import COMMIT, Hub
from waiting import wait

from runtime import checkpoints
from runtime.__main__ import main
from runtime.checkpoints import download, locate, make_offer
from xray_addon.errors import XRayError
from xray_addon.process.client import RuntimeClient
from xray_addon.progress import Cancelled
from xray_addon.systems import PUBLISHED, SYSTEMS
from xray_addon.systems.weights import Offer, missing

ROOT = Path(__file__).parents[2]
Disk = namedtuple("Disk", "total used free")


CONTENT = bytes(range(256)) * 200
FILES = {"config.yaml": b"a: 1\n", "model.ckpt": CONTENT, "README.md": b"hello"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = Hub("stabilityai/TripoSR", dict(FILES))
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setenv(checkpoints.CACHE_VARIABLE, str(tmp_path / "cache"))
    # Tests don't wait between two tries.
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    yield hub
    hub.close()


def yes(_offer) -> bool:
    return True


def fetch(name="triposr", **options) -> Path:
    return download(name, **({"confirm": yes, "online": True} | options))


def refused(code: str, work, *arguments, **options) -> XRayError:
    with pytest.raises(XRayError) as caught:
        work(*arguments, **options)
    assert caught.value.code == code
    assert caught.value.remedy
    return caught.value


def test_a_published_checkpoint_is_fetched_and_found(hub, tmp_path):
    seen = []
    folder = fetch(progress=seen.append)
    assert folder == tmp_path / "cache/stabilityai--TripoSR"
    assert (folder / "model.ckpt").read_bytes() == CONTENT
    assert not (folder / "README.md").exists()
    assert locate("triposr") == locate("stabilityai/TripoSR") == folder
    steps = [p.step for p in seen if p.stage == "download"]
    assert steps == sorted(steps)
    assert seen[-1].fraction == 1
    assert any(p.step == p.of == len(CONTENT) + 5 for p in seen)
    # Pinned to the commit that was offered, and nothing twice.
    assert all(COMMIT in path for path, _ in hub.requests if "/resolve/" in path)
    before = len(hub.fetched())
    fetch(confirm=lambda _: pytest.fail("nothing is left to confirm"))
    assert len(hub.fetched()) == before


def test_licence_size_and_files_are_shown_before(hub, tmp_path):
    offers = []

    def no(offer):
        offers.append(offer)
        return False

    refused("no_consent", fetch, confirm=no)
    assert hub.fetched() == []
    assert not (tmp_path / "cache").exists()
    text = str(offers[0])
    for part in ("do-good-only", "https://x.org", "model.ckpt", "0.1 MB", "stabilityai--TripoSR"):
        assert part in text


def test_weights_in_a_dataset_repository_are_fetched_with_its_terms(hub, monkeypatch, tmp_path):
    files = dict.fromkeys(PUBLISHED["omages"].files, CONTENT)
    data = Hub(PUBLISHED["omages"].repo, files, "dataset")
    monkeypatch.setenv("HF_ENDPOINT", data.address)
    try:
        offline = refused("offline", make_offer, "omages", online=False)
        page = f"{data.address}/datasets/{data.repo}/resolve/main/{next(iter(files))}"
        assert page in str(offline)
        assert "academic research use" in str(refused("missing_weights", locate, "omages"))
        assert (
            make_offer("omages", online=True).licence == "do-good-only, for academic research use"
        )
        folder = fetch("omages")
        assert folder == tmp_path / "cache/3dlg-hcvc--omages_ABO"
        assert {path.name for path in folder.glob("*.ckpt")} == set(files)
        assert locate("omages") == locate(data.repo) == folder
    finally:
        data.close()


def test_any_repository_and_revision(hub, tmp_path):
    folder = fetch(f"{hub.repo}@v2")
    assert folder.name == "stabilityai--TripoSR@v2"
    hub.repo, hub.files = (
        "me/mine",
        {"unet/config.json": b"{}", "a.png": b"", "x.safetensors": b"1"},
    )
    folder = fetch("me/mine")
    assert sorted(p.name for p in folder.rglob("*.*")) == [
        "checkpoint.record",
        "config.json",
        "x.safetensors",
    ]
    assert locate("me/mine") == folder


def test_offline_names_the_files_and_where_to_put_them(hub, monkeypatch, tmp_path):
    error = refused("offline", fetch, online=False)
    for file in ("config.yaml", "model.ckpt"):
        assert f"/stabilityai/TripoSR/resolve/main/{file}" in error.remedy
        assert str(tmp_path / "cache/stabilityai--TripoSR" / file) in error.remedy
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused("offline", fetch)
    error = refused("missing_weights", locate, "triposr")
    assert "python -m runtime download triposr" in error.remedy
    assert str(tmp_path / "cache/stabilityai--TripoSR/model.ckpt") in error.remedy
    assert "MIT" in error.message
    assert hub.requests == []
    # What is put there by hand is found.
    for file in ("config.yaml", "model.ckpt"):
        path = tmp_path / "cache/stabilityai--TripoSR" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[file])
    assert locate("triposr") == path.parent


def test_a_connection_that_breaks_is_taken_up_again(hub):
    hub.files = {"config.yaml": b"", "model.ckpt": CONTENT * 300}  # 15 MB: more than one chunk
    hub.cut = 11_000_000
    folder = fetch()
    assert (folder / "model.ckpt").read_bytes() == CONTENT * 300
    ranges = [r for name, r in hub.fetched() if name == "model.ckpt"]
    assert ranges[0] == ""
    assert ranges[1].startswith("bytes=1")


def test_a_download_that_was_stopped_goes_on_where_it_was(hub, tmp_path):
    hub.files = {"config.yaml": b"", "model.ckpt": CONTENT * 600}

    def stop(progress):
        if progress.stage == "download" and progress.step > 20_000_000:
            raise Cancelled

    with pytest.raises(Cancelled):
        fetch(progress=stop)
    folder = tmp_path / "cache/stabilityai--TripoSR"
    assert not (folder / "model.ckpt").exists()
    partial = next(folder.glob("model.ckpt.*.partial"))
    size = partial.stat().st_size
    assert size > 10_000_000
    error = refused("incomplete_download", locate, "triposr")
    assert str(partial) in error.message
    offers = []
    fetch(confirm=lambda offer: offers.append(offer) or True)
    assert offers[0].size == len(CONTENT) * 600 - size
    assert hub.fetched()[-1] == ("model.ckpt", f"bytes={size}-")
    assert (folder / "model.ckpt").read_bytes() == CONTENT * 600
    assert not list(folder.glob("*.partial"))


def test_a_hub_that_stays_away_leaves_what_came(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refused("download_failed", fetch)
    assert "it goes on where it stopped" in error.remedy
    assert "model.ckpt" in error.remedy


@pytest.mark.parametrize("file", ["model.ckpt", "config.yaml"])
def test_a_wrong_checksum_is_refused(hub, tmp_path, file):
    hub.lied[file] = FILES[file][:-1] + b"!"
    error = refused("bad_checksum", fetch)
    assert file in error.message
    folder = tmp_path / "cache/stabilityai--TripoSR"
    assert not (folder / file).exists()
    assert not list(folder.glob("*.partial"))
    hub.lied.clear()
    assert (fetch() / file).read_bytes() == FILES[file]


def test_a_damaged_file_is_fetched_again(hub):
    folder = fetch()
    (folder / "model.ckpt").write_bytes(CONTENT[:-7])
    error = refused("bad_weights", locate, "triposr")
    assert "model.ckpt" in error.message
    fetch()
    assert (locate("triposr") / "model.ckpt").read_bytes() == CONTENT


def test_too_little_space_is_seen_before_anything_is_fetched(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(1 << 40, 1 << 40, 60 << 20))
    error = refused("no_space", fetch)
    assert "62.9 MB are left" in error.message
    assert hub.fetched() == []


def test_a_disk_that_fills_up_meanwhile_is_not_left_full(hub, monkeypatch, tmp_path):
    def full(_url, stream, **_options):
        stream.write(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    error = refused("no_space", fetch)
    assert checkpoints.CACHE_VARIABLE in error.remedy
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_gated_and_unknown_repositories(hub):
    hub.gated = True
    error = refused("no_access", fetch)
    assert f"{hub.address}/stabilityai/TripoSR" in error.remedy
    refused("unknown_checkpoint", fetch, "nobody/nothing")
    refused("unknown_checkpoint", fetch, "no such name")
    hub.files.pop("model.ckpt")
    assert "lacks model.ckpt" in refused("unknown_checkpoint", fetch).message


def test_what_would_be_fetched_is_known_before(hub, tmp_path):
    offer = make_offer("triposr", online=True)
    assert (offer.revision, offer.licence, offer.size) == (COMMIT, "do-good-only", 5 + len(CONTENT))
    assert [file.path for file in offer.files] == ["config.yaml", "model.ckpt"]
    assert Offer.from_dict(json.loads(json.dumps(offer.to_dict()))) == offer
    assert hub.fetched() == []
    assert not (tmp_path / "cache").exists()
    fetch()
    assert make_offer("triposr", online=True).files == ()
    refused("offline", make_offer, "triposr", online=False)


def test_a_generator_misses_its_weights_until_they_are_fetched(hub, tmp_path):
    assert missing(SYSTEMS["xray"]) == []
    assert missing(SYSTEMS["triposr"]) == ["triposr"]
    assert missing(SYSTEMS["triposr"], "me/mine") == ["me/mine"]
    assert missing(SYSTEMS["triposr"], str(tmp_path)) == []
    assert missing(SYSTEMS["xray-paper"]) == []  # nobody has published any
    assert missing(SYSTEMS["xray-paper"], str(tmp_path)) == ["svd", "sdxl-vae"]
    (tmp_path / "sdxl_vae").mkdir()
    assert missing(SYSTEMS["xray-paper"], str(tmp_path)) == ["svd"]
    assert missing(SYSTEMS["xray-paper"], "no such thing") == ["svd", "sdxl-vae"]
    fetch()
    assert missing(SYSTEMS["triposr"]) == []
    assert missing(SYSTEMS["triposr"], "", tmp_path / "elsewhere") == ["triposr"]


def test_a_published_name_is_never_a_path(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "triposr").mkdir()
    refused("missing_weights", locate, "triposr")
    assert locate("./triposr") == locate(Path("triposr")) == Path("triposr")
    assert locate("triposr/") == Path("triposr")
    assert locate("triposr/../triposr").is_dir()
    (tmp_path / "mine").mkdir()
    assert locate("mine") == Path("mine")
    fetch()
    assert locate("triposr") == tmp_path / "cache/stabilityai--TripoSR"


def test_a_path_is_taken_as_it_is(tmp_path):
    (tmp_path / "w.ckpt").touch()
    assert locate(tmp_path / "w.ckpt") == tmp_path / "w.ckpt"
    assert "Give the path" in refused("missing_weights", locate, tmp_path / "none").remedy


@pytest.mark.parametrize("name", ["~nosuchuser/weights", "x" * 5000, "a\0b"])
def test_names_that_no_path_can_have(name):
    assert len(refused("missing_weights", locate, name).message) < 300


@pytest.mark.parametrize("name", ["../../x.json", "/x.json", "..\\x.json", "C:x.json"])
def test_a_hub_cannot_write_outside_of_the_checkpoints_folder(hub, tmp_path, name):
    hub.repo, hub.files = "me/mine", {name: b"{}"}
    assert name in refused("unsafe_weights", fetch, "me/mine").message.replace("\\\\", "\\")
    assert hub.fetched() == []
    assert not (tmp_path / "cache").exists()


def test_a_file_of_the_hub_never_takes_the_place_of_the_record(hub):
    hub.repo, hub.files = "me/mine", {"checkpoint.json": b"{}", checkpoints.RECORD: b"1"}
    folder = fetch("me/mine")
    assert (folder / "checkpoint.json").read_bytes() == b"{}"
    assert locate("me/mine") == folder
    assert fetch("me/mine", confirm=lambda _: pytest.fail("all is there")) == folder


def test_a_cache_that_can_be_no_folder_is_named(hub, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused("cannot_write", fetch, cache=tmp_path / "file").message
    refused("missing_weights", locate, "triposr", tmp_path / "file")
    monkeypatch.setattr(Path, "exists", lambda _: False)  # as on a drive that is not there
    refused("cannot_write", fetch)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_cache_is_named_with_what_to_do(hub, tmp_path, monkeypatch, number):
    fetch()

    def refuse(*_arguments, **_options):
        raise OSError(number, os.strerror(number), str(tmp_path / "cache"))

    # What is there serves; nothing needs to be written.
    monkeypatch.setattr("runtime.checkpoints.replacing", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    folder = fetch()
    (folder / checkpoints.RECORD).unlink()
    (folder / "config.yaml").unlink()
    error = refused("cannot_write", fetch)
    assert f"{tmp_path / 'cache'} cannot be written to" in error.message
    assert "Checkpoint Folder" in error.remedy
    (folder / "config.yaml").write_bytes(FILES["config.yaml"])
    refused("cannot_write", fetch)  # the record cannot be written
    hub.requests.clear()
    (folder / "config.yaml").unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused("cannot_write", fetch)
    assert hub.fetched() == []  # seen before anything is fetched


def test_the_command_that_an_error_names_works(hub, tmp_path):
    elsewhere = tmp_path / "else where"
    remedy = refused("missing_weights", locate, "triposr", elsewhere).remedy
    folder, command = re.search(r"in the folder (.+):\n  (.+)\n", remedy).groups()
    subprocess.run([*shlex.split(command), "--yes"], cwd=folder, check=True, capture_output=True)
    assert locate("triposr", elsewhere).parent == elsewhere


def test_a_record_that_is_none_is_named(hub):
    (fetch() / checkpoints.RECORD).write_text("[")
    assert checkpoints.RECORD in refused("bad_weights", locate, "triposr").message


def test_the_command_asks_and_answers(hub, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.stdin", open(tmp_path / "input", "w+"))  # noqa: SIM115
    with sys.stdin:
        assert main(["download", "triposr", "--json"]) == 3
    output = capsys.readouterr()
    assert "do-good-only" in output.err
    assert json.loads(output.out)["error"]["code"] == "no_consent"
    cache = str(tmp_path / "elsewhere")
    assert main(["download", "triposr", "--yes", "--json", "--cache", cache]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == {"folder": str(tmp_path / "elsewhere/stabilityai--TripoSR")}
    assert "Fetching model.ckpt" in output.err
    monkeypatch.setenv("XRAY_ONLINE", "0")
    assert main(["download", "svd", "--yes"]) == 3
    assert "online access is off" in capsys.readouterr().err


@pytest.fixture
def client(hub, tmp_path):
    """Blender's side of a runtime that may use the network."""
    client = RuntimeClient(sys.executable, tmp_path / "runtime.log", online=True)
    yield client
    client.stop()


def test_blender_asks_what_there_is_and_fetches_what_was_confirmed(hub, client, tmp_path):
    offer = Offer.from_dict(wait(client, client.ask_offer("triposr"), timeout=60))
    assert offer == make_offer("triposr", online=True)
    refused("no_consent", wait, client, client.download("triposr", "another commit"), timeout=60)
    assert hub.fetched() == []
    seen = []
    answer = wait(client, client.download("triposr", offer.revision), seen.append, timeout=60)
    assert answer == {"folder": str(tmp_path / "cache/stabilityai--TripoSR")}
    assert (locate("triposr") / "model.ckpt").read_bytes() == CONTENT
    assert any(progress.stage in ("download", "check", "done") for progress in seen)
    # The preference counts at once, though the process knew of another folder.
    client.checkpoints = str(tmp_path / "elsewhere")
    answer = wait(client, client.download("triposr", offer.revision), timeout=60)
    assert answer == {"folder": str(tmp_path / "elsewhere/stabilityai--TripoSR")}
    client.online = False
    error = refused("offline", wait, client, client.ask_offer("triposr"), timeout=60)
    assert str(tmp_path / "elsewhere/stabilityai--TripoSR/model.ckpt") in error.remedy


def test_blender_cancels_a_download_and_goes_on_later(hub, client, tmp_path):
    hub.files = {"config.yaml": b"", "model.ckpt": CONTENT * 600}
    hub.pause = 0.05
    offer = wait(client, client.ask_offer("triposr"), timeout=60)

    def stop(progress):
        if progress.stage == "download" and progress.step > 10_000_000:
            raise Cancelled

    with pytest.raises(Cancelled):
        wait(client, client.download("triposr", offer["revision"]), stop, timeout=60)
    process = client.pid
    hub.pause = 0.0
    left = wait(client, client.ask_offer("triposr"), timeout=60)
    assert 0 < left["size"] < offer["size"]
    wait(client, client.download("triposr", left["revision"]), timeout=60)
    assert (locate("triposr") / "model.ckpt").read_bytes() == CONTENT * 600
    assert client.pid == process  # it was asked to stop, and did


def test_nothing_is_fetched_or_imported_before_it_is_asked_for():
    code = (
        "import sys, socket; socket.create_connection = socket.getaddrinfo = None; "
        "import runtime, runtime.__main__, runtime.checkpoints; runtime.__main__.make_parser(); "
        "assert not {'huggingface_hub', 'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
