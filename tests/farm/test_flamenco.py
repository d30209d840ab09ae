"""The Flamenco job type, against a stand-in of what Flamenco's Manager does with it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import rows

from farm.__main__ import main, make_parser
from xray_addon.settings.dataset import DatasetSettings

HERE = Path(__file__).parent
JOB_TYPE = HERE.parents[1] / "farm" / "flamenco" / "xray_dataset.js"

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def compile_job(**settings):
    done = subprocess.run(
        ["node", HERE / "flamenco_stand_in.js", JOB_TYPE, json.dumps(settings)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(done.stderr)
    return json.loads(done.stdout)


def test_a_task_for_each_shard():
    job = compile_job(source="/meshes", out="/data", shards=3, options="--samples=64 --tar")
    assert [task["name"] for task in job["tasks"]] == [f"shard-{i}-of-3" for i in (1, 2, 3)]
    assert {task["type"] for task in job["tasks"]} == {"blender"}
    (command,) = job["tasks"][1]["commands"]
    assert command["name"] == "exec"
    assert command["parameters"]["exe"] == "{xray_python}"
    arguments = command["parameters"]["args"]
    assert arguments[:4] == ["-m", "farm", "/meshes", "/data"]
    assert "--shard=2/3" in arguments
    assert arguments[-2:] == ["--samples=64", "--tar"]


def test_the_farm_understands_the_tasks():
    for task in compile_job(source="/meshes", out="/data", options="--distance=1.5")["tasks"]:
        arguments = make_parser().parse_args(task["commands"][0]["parameters"]["args"][2:])
        assert (arguments.source, arguments.out) == ("/meshes", "/data")
        assert (arguments.blender, arguments.distance) == ("{blender}", 1.5)


def test_its_settings_are_the_datasets():
    defaults = DatasetSettings().to_dict()
    shared = {
        setting["key"]: setting["default"]
        for setting in compile_job(source="/meshes", out="/data")["settings"]
        if setting["key"] in defaults
    }
    assert shared == {key: defaults[key] for key in shared}
    assert {"views", "layers", "size", "seed", "image"} <= set(shared)


def test_what_is_required_is_asked_for():
    with pytest.raises(ValueError, match="source is required"):
        compile_job(out="/data")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"source": "meshes"}, "source is the relative path meshes"),
        ({"out": "//data"}, "out is the relative path //data"),
        ({"options": "--tar --poses poses.json"}, "--poses is the relative path poses.json"),
        ({"options": "--hdri=sky.hdr"}, "--hdri is the relative path sky.hdr"),
    ],
)
def test_relative_paths_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        compile_job(**{"source": "/meshes", "out": "/data"} | settings)


@pytest.mark.parametrize("path", ["/meshes", "C:\\meshes", "\\\\host\\meshes", "{storage}/meshes"])
def test_absolute_paths_of_every_system_pass(path):
    job = compile_job(source=path, out="s3://bucket/data", options=f"--hdri '{path}'")
    assert path in job["tasks"][0]["commands"][0]["parameters"]["args"]


def test_the_tasks_make_the_shards(source, tmp_path, fake_blender, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    out = tmp_path / "out"
    job = compile_job(source=str(source(4)), out=str(out), shards=2, views=2, layers=16)
    for task in job["tasks"]:
        # As Flamenco does with its variables.
        arguments = [
            each.replace("{blender}", str(fake_blender))
            for each in task["commands"][0]["parameters"]["args"][2:]
        ]
        assert main(arguments) == 0
    assert rows(out) == [f"item{number:03d}" for number in range(4)]
