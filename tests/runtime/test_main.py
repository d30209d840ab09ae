"""The command line: arguments from the settings, exit codes, and errors in one line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from fake_systems import add_system, remove_system

from runtime import server
from runtime.__main__ import main, make_parser
from xray_addon.camera import Camera
from xray_addon.errors import XRayError
from xray_addon.generated import Generated
from xray_addon.progress import Progress
from xray_addon.surface import Surface
from xray_addon.systems import SYSTEMS
from xray_addon.systems.arguments import read_systems


class Triangle:
    name = "triangle"
    device = "cpu"
    error: BaseException | None = None

    def generate(self, _image: Any, _settings: Any, progress: Any = None) -> Generated:
        print("a library says hello")
        progress(Progress("sample", 1, 1, "Sampling"))
        if Triangle.error is not None:
            raise Triangle.error
        surface = Surface([[0.0, 0, 0], [1, 0, 0], [0, 1, 1]], [[0, 1, 2]])
        return Generated(surface, None, Camera.look_at((0.0, -2.0, 0.0)))


@pytest.fixture(autouse=True)
def _triangle() -> Iterator[None]:
    add_system("triangle", lambda _checkpoint, _device: Triangle())
    yield
    remove_system("triangle")
    Triangle.error = None


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    path.touch()
    return path


def generate_help(parser: argparse.ArgumentParser) -> str:
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return str(commands.choices["generate"].format_help())


def generate(image: Path, *more: str) -> int:
    out = str(image.with_name("out.glb"))
    return main(["generate", str(image), "-o", out, "--generator", "triangle", *more])


def test_generate_writes_a_glb(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(image) == 0
    assert image.with_name("out.glb").read_bytes()[:4] == b"glTF"
    output = capsys.readouterr()
    assert output.out == ""
    assert "Sampling" in output.err


def test_format_counts_where_out_names_none(image: Path) -> None:
    out = str(image.with_name("bare"))
    argv = ["generate", str(image), "-o", out, "--generator", "triangle", "--format", "stl"]
    assert main(argv) == 0
    assert image.with_name("bare.stl").read_bytes().startswith(b"X-Ray")


@pytest.mark.parametrize(
    ("suffix", "begins", "lost"),
    [("obj", b"mtllib", "vertex colours"), ("stl", b"X-Ray", "millimetres")],
)
def test_other_files_are_written_and_what_they_lose_is_said(
    image: Path, capsys: pytest.CaptureFixture[str], suffix: str, begins: bytes, lost: str
) -> None:
    out = image.with_name(f"out.{suffix}")
    assert main(["generate", str(image), "-o", str(out), "--generator=triangle", "--json"]) == 0
    assert out.read_bytes().startswith(begins)
    output = capsys.readouterr()
    assert lost in output.err
    assert lost in json.loads(output.out)["note"]


def test_a_folder_of_images_becomes_a_folder_of_meshes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").touch()
    (images / "b.png").write_bytes(b"<!doctype html>")
    (images / "c.jpg").touch()
    out = tmp_path / "meshes"
    argv = ["generate", str(images), "-o", str(out), "--format=stl", "--generator=triangle"]
    assert main([*argv, "--json"]) == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.stl", "c.stl"]
    output = capsys.readouterr()
    answer = json.loads(output.out)
    assert [Path(made["out"]).name for made in answer["made"]] == ["a.stl", "c.stl"]
    assert [failure["code"] for failure in answer["failed"]] == ["unreadable_image"]
    assert "2 of 3 images are meshes, 1 failed" in output.err
    assert main([*argv, "--xray", "x.npz"]) == 2
    assert "is for one image" in capsys.readouterr().err


def test_what_is_no_image_is_refused_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(_checkpoint: str | None, _device: str) -> Any:
        raise AssertionError("the model is loaded")

    add_system("triangle", load)
    page = tmp_path / "page.png"
    page.write_bytes(b"<!doctype html>")
    assert generate(page) == 1
    assert "'page.png' is a web page" in capsys.readouterr().err


def test_json_is_the_only_thing_on_stdout(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(image, "--json", "--seed", "3") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["vertices"], data["faces"]) == (3, 1)
    assert data["settings"]["seed"] == 3
    assert data["device"] == "cpu"


def test_every_setting_of_every_system_is_an_argument() -> None:
    parser = make_parser()
    for system in SYSTEMS.values():
        given = ["generate", "a.png", "-o", "a.glb", f"--generator={system.name}"]
        assert read_systems(parser.parse_args(given)) == system.settings()
        for item in fields(system.settings):
            assert f"--{item.name.replace('_', '-')}" in generate_help(parser)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (XRayError("no_object", "There is no object in the image.", "Take another."), 1),
        (XRayError("missing_weights", "There are no weights.", "Fetch them."), 3),
        (MemoryError(), 3),
        (ValueError("upside down"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes_and_errors_in_one_line(
    image: Path, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    Triangle.error = error
    assert generate(image, "--json") == code
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    assert output.err.splitlines()[-1].startswith("error: ")
    assert json.loads(output.out)["error"]["message"]
    assert not image.with_name("out.glb").exists()


def test_a_missing_image_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(tmp_path / "none.png") == 2
    assert "none.png" in capsys.readouterr().err


def test_wrong_settings_are_usage_errors(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(image, "--steps", "-1") == 2
    assert "steps must lie between" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["generate", str(image)])
    assert caught.value.code == 2


@pytest.mark.parametrize("option", ["xray", "pictures"])
def test_what_a_generator_does_not_give_is_refused_before_the_work(
    image: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert generate(image, f"--{option}", str(image.with_name("extra"))) == 2
    assert f"Leave --{option} out" in capsys.readouterr().err
    assert not image.with_name("out.glb").exists()


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("training", ["train", "--config", "c", "--data", "d", "--out", "o", "--minutes", "5"]),
        ("evaluation", ["evaluate", "--data", "d", "--out", "o", "--seed", "4"]),
    ],
)
def test_train_and_evaluate_print_only_what_they_tell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, argv: list[str]
) -> None:
    module = pytest.importorskip(f"runtime.{name}")

    def work(arguments: Any, tell: Any, progress: Any) -> int:
        print("a library says hello")
        progress(Progress(name, 1, 2, "a mesh"))
        tell(f"| {arguments.data} | {arguments.out} |")
        return 1

    monkeypatch.setattr(module, "main", work)
    assert main(argv) == 1
    assert capsys.readouterr().out == "| d | o |\n"


def test_serve_takes_its_idle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "serve", lambda idle: int(idle))
    assert main(["serve", "--idle", "7"]) == 7
