"""The evaluation measures what it says, and a perfect generator gets a perfect score."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from runtime import registry
from runtime.__main__ import main
from runtime.evaluation import compare, evaluate, in_camera, make_cases
from runtime.xray.data import list_meshes
from xray_addon import Generated, XRayError, chamfer_distance, f_score
from xray_addon.canonical import FILL


class Oracle:
    """Gives the truth back, or what a test makes of it."""

    name = "oracle"
    device = "cpu"

    def __init__(self, cases, change=lambda surface: surface):
        self.answers = {case.image.tobytes(): case for case in cases}
        self.change = change

    def generate(self, image, _settings, _progress=None):
        case = self.answers[np.asarray(image).tobytes()]
        return Generated(self.change(case.view.surface), None, case.camera)


def test_the_tree_gives_the_metrics_of_the_core():
    random = np.random.default_rng(0)
    a, b = random.random((300, 3)), random.random((200, 3))
    result = compare(a, b, 2.0)
    assert result["cd"] == pytest.approx(chamfer_distance(a / 2, b / 2))
    for threshold in (0.1, 0.05, 0.02):
        assert result[f"f@{threshold}"] == pytest.approx(f_score(a / 2, b / 2, threshold))


def test_cases_are_framed_reproducible_and_lit(meshes: Path):
    skipped: list = []
    files = list_meshes(meshes)
    first, again = (list(make_cases(files, 2, 5, skipped)) for _ in range(2))
    assert len(first) == 6
    assert not skipped
    for case, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(case.image, other.image)
        np.testing.assert_array_equal(case.truth, other.truth)
        row, column = np.nonzero(case.image[..., 3] > 127)
        assert max(np.ptp(row), np.ptp(column)) + 1 == pytest.approx(FILL * 512, abs=3)
        assert case.image[row, column, :3].max() > 60
        # Hits of the truth lie on the samples of the truth.
        points = in_camera(
            case.view.xray.points(case.camera.resized(256, 256)).positions, case.camera
        )
        assert compare(points, case.truth, case.view.scale)["f@0.05"] > 0.9


def test_the_truth_scores_best_and_errors_show(meshes: Path):
    files = list_meshes(meshes)
    cases = list(make_cases(files, 1, 0, []))
    perfect, _ = evaluate(Oracle(cases), files, None)
    scores = perfect["systems"]["oracle, mesh"]
    assert scores["cd"] < 0.02
    assert scores["f@0.1"] > 0.999
    moved, _ = evaluate(
        Oracle(cases, lambda s: s.transformed(np.eye(4) + np.eye(4, k=3) * 0.2)), files, None
    )
    assert moved["systems"]["oracle, mesh"]["cd"] > 3 * scores["cd"]
    sphere = perfect["systems"]["sphere of the silhouette"]
    visible = perfect["systems"]["visible layer of the truth"]
    assert scores["cd"] < visible["cd"] < 0.5
    assert scores["cd"] < sphere["cd"]
    ball = next(case for case in perfect["cases"] if case["name"] == "ball")
    # A ball is the sphere of its silhouette, but for the frame's perspective.
    assert ball["metrics"]["sphere of the silhouette"]["cd"] < 0.05
    assert perfect["watertight"] == 1.0


def test_the_command_writes_table_figures_and_pictures(meshes, tmp_path, monkeypatch, capsys):
    cases = list(make_cases(list_meshes(meshes), 1, 3, []))
    monkeypatch.setitem(registry.GENERATORS, "oracle", lambda _c, _d: Oracle(cases))
    # Objects are told apart by their path where there is no manifest.
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    for path in meshes.glob("*.glb"):
        (gallery / path.name).write_bytes(path.read_bytes())
    (gallery / "broken.glb").write_bytes(b"no mesh")
    arguments = ["evaluate", "--data", str(meshes), "--generator", "oracle", "--seed", "3"]
    assert main([*arguments, "--gallery", str(gallery), "--out", str(tmp_path)]) == 0
    table = (tmp_path / "results.md").read_text()
    assert "| oracle, mesh |" in table
    assert table.strip() in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["cases"]) == 3
    ball = next(case for case in results["cases"] if case["name"] == "ball")
    assert ball["metrics"]["nearest training object"]["cd"] < 0.05
    assert (tmp_path / "results.png").stat().st_size > 10_000


def test_a_folder_without_meshes_is_an_error(tmp_path, capsys):
    assert main(["evaluate", "--data", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "no meshes" in capsys.readouterr().err
    with pytest.raises(XRayError) as caught:
        evaluate(Oracle([]), [], None)
    assert caught.value.code == "no_data"
