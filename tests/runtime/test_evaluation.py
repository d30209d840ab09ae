"""The evaluation measures what it says, and a perfect generator gets a perfect score."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from fake_systems import add_system, remove_system

from runtime.__main__ import main
from runtime.evaluation import compare, evaluate, in_camera, make_cases
from runtime.evaluation.cases import list_objects, read_object
from runtime.evaluation.protocols import (
    PROTOCOLS,
    compare_looks,
    hidden_distance,
    hit_overlap,
    interval,
)
from runtime.meshes.collection import MeshCache, list_meshes
from xray_addon import Camera, Generated, Surface, XRay, XRayError, cast, chamfer_distance, f_score
from xray_addon.canonical import CANONICAL, FILL, place
from xray_addon.files.transforms import write_transforms
from xray_addon.progress import Cancelled
from xray_addon.systems import SYSTEMS
from xray_addon.xray import Points

ROOT = Path(__file__).resolve().parents[2]


class Oracle:
    """Gives the truth back, or what a test makes of it."""

    name = "oracle"
    system = SYSTEMS["triposr"]
    device = "cpu"

    def __init__(self, cases, change=lambda surface: surface):
        self.answers = {case.image.tobytes(): case for case in cases}
        self.change = change

    def generate(self, image, settings, _progress=None):
        self.settings = settings
        case = self.answers[np.asarray(image).tobytes()]
        return Generated(self.change(case.view.surface), None, case.camera)


def test_the_tree_gives_the_metrics_of_the_core():
    random = np.random.default_rng(0)
    a, b = random.random((300, 3)), random.random((200, 3))
    result = compare(a, b, 2.0)
    assert result["cd"] == pytest.approx(chamfer_distance(a / 2, b / 2))
    for threshold in (0.1, 0.05, 0.02):
        assert result[f"f@{threshold}"] == pytest.approx(f_score(a / 2, b / 2, threshold))


HALF_AT_ZERO = """
import numpy as np, torch
from runtime.evaluation.protocols import compare
torch.set_flush_denormal(True)  # as the runtime does
random = np.random.default_rng(0)
points = np.abs(random.random((4000, 3)) - 0.5)
points[:2400, 0] = 0
print(compare(points, points + 0.1, 1.0)["cd"])
"""


def test_points_of_which_half_are_at_zero_are_compared():
    """In a process of its own, as it died of it."""
    command = [sys.executable, "-c", HALF_AT_ZERO]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 0.2


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
    oracle = Oracle(cases)
    perfect, _ = evaluate(oracle, files, None)
    assert isinstance(oracle.settings, oracle.system.settings)
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
    # What nobody sees is all of a mesh's worth over the visible layer.
    names = ("oracle, mesh", "visible layer of the truth")
    mesh, layer = (perfect["systems"][name]["hidden"] for name in names)
    assert mesh < 0.02 < layer
    low, high = perfect["intervals"]["oracle, mesh"]["cd"]
    assert low <= scores["cd"] <= high
    looks = perfect["looks"]
    assert looks["normal"] > 0.97
    assert looks["color"] < 0.01
    assert looks["hit_overlap"][:2] == pytest.approx([1, 1], abs=0.02)
    assert looks["hit_overlap"][7] is None
    assert moved["looks"]["hit_overlap"][0] < 0.9
    assert perfect["peak_memory"] is None or perfect["peak_memory"] > 1e8


def test_the_hidden_colours_of_the_truth_have_no_error(tmp_path: Path):
    """On a ball that has another colour everywhere."""
    shape = trimesh.creation.icosphere(3)
    shape.visual.vertex_colors = (shape.vertices * 100 + 128).astype(np.uint8)
    shape.export(tmp_path / "ball.glb")
    files = list_meshes(tmp_path)
    found, _ = evaluate(Oracle(make_cases(files, 1, 0, [])), files, None)
    assert found["shape"]["hidden color"] < 0.02
    assert found["shape"]["hidden mean"] > 0.2


@pytest.mark.parametrize("distance", [1.0, 4.0])
@pytest.mark.parametrize("system", [s.name for s in SYSTEMS.values() if s.frame])
def test_the_truth_has_no_error_in_any_systems_frame(system: str, distance: float, meshes: Path):
    files, frame = list_meshes(meshes)[1:2], SYSTEMS[system].frame
    seen_in = CANONICAL.from_afar(distance)
    cases = list(make_cases(files, 1, 0, [], seen_in))
    if frame == CANONICAL:  # X-Ray sees objects from any distance
        frame = seen_in

    class Framed(Oracle):
        """Places the true mesh as the system does; `off`, in its size, to the right."""

        off = 0.0

        def generate(self, image, _settings, _progress=None):
            case = self.answers[np.asarray(image).tobytes()]
            view = case.view
            matrix, size = place(view.source, view.azimuth, view.elevation, frame=frame)
            matrix[0, 3] += self.off * size
            surface = view.source.transformed(matrix)
            return Generated(surface, None, frame.camera(64, view.elevation))

    generator = Framed(cases)
    settings = {"frame": SYSTEMS[system].frame, "views_from": distance}
    exact, _ = evaluate(generator, files, None, **settings)
    assert exact["systems"]["oracle, mesh"]["cd"] < 1e-6
    assert exact["systems"]["oracle, mesh"]["f@0.01"] == 1
    assert exact["looks"]["hit_overlap"][:2] == pytest.approx([1, 1], abs=0.02)
    assert exact["elevation_error_degrees"] == pytest.approx(0, abs=1e-6)
    # The frame is not fitted to what is generated: what is off stays off.
    generator.off = 0.5
    moved, _ = evaluate(generator, files, None, **settings)
    assert moved["systems"]["oracle, mesh"]["cd"] > 0.1
    if SYSTEMS[system].frame != CANONICAL:
        elsewhere, _ = evaluate(Framed(cases), files, None, views_from=distance)
        assert elsewhere["systems"]["oracle, mesh"]["cd"] > 0.005


def test_one_field_of_view_from_nearer_gives_one_image():
    """Then a frame is the canonical one, scaled about the camera."""
    frame, shape = SYSTEMS["xray-paper"].frame, trimesh.creation.box((1.0, 0.4, 0.7))
    assert frame.fov_x == CANONICAL.fov_x
    surface = Surface(shape.vertices, shape.faces)
    seen = []
    for each in (frame, CANONICAL):
        matrix, _ = place(surface, 0.4, 0.3, frame=each)
        points = in_camera(surface.transformed(matrix).vertices, each.camera(2, 0.3))
        seen.append(points / each.distance)
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-6)


def test_the_command_writes_table_figures_and_pictures(meshes, tmp_path, capsys, request):
    request.addfinalizer(lambda: remove_system("oracle"))
    cases = list(make_cases(list_meshes(meshes), 1, 3, []))
    add_system("oracle", lambda _checkpoint, _device: Oracle(cases), frame=CANONICAL)
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
    assert main([*arguments, "--protocol", "xray", "--out", str(tmp_path / "xray")]) == 0
    table = (tmp_path / "xray" / "results.md").read_text()
    assert "F@0.1 | hidden |" in table
    assert "2404.14329" in table


def test_the_command_sees_objects_from_afar(meshes, tmp_path, capsys, request):
    request.addfinalizer(lambda: remove_system("oracle"))
    cases = list(make_cases(list_meshes(meshes), 1, 3, [], CANONICAL.from_afar(4)))
    add_system("oracle", lambda _checkpoint, _device: Oracle(cases), frame=CANONICAL)
    arguments = ["evaluate", "--data", str(meshes), "--generator", "oracle", "--seed", "3"]
    assert main([*arguments, "--views-from", "4", "--out", str(tmp_path)]) == 0
    assert "seen from 4 times the usual distance" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["views_from"], len(results["cases"])) == (4, 3)
    assert results["systems"]["oracle, mesh"]["cd"] < 0.02
    assert main([*arguments, "--views-from", "0.5", "--out", str(tmp_path)]) == 2
    assert "--views-from is 0.5" in capsys.readouterr().err


def test_the_generator_gets_every_setting_that_the_command_takes(meshes, tmp_path, request):
    request.addfinalizer(lambda: remove_system("oracle"))
    cases = list(make_cases(list_meshes(meshes), 1, 3, []))
    seen = []

    class Listener(Oracle):
        def generate(self, image, settings, progress=None):
            seen.append(settings)
            return super().generate(image, settings, progress)

    add_system("oracle", lambda _c, _d: Listener(cases), settings=SYSTEMS["xray"].settings)
    arguments = ["evaluate", "--data", str(meshes), "--generator", "oracle", "--out", str(tmp_path)]
    given = {"seed": 3, "steps": 4, "variation": 0.25, "checkpoint": "here", "device": "cpu"}
    options = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    # Where its meshes stand against the image is not known.
    assert main([*arguments, *options]) == 2
    assert main([*arguments, *options, "--protocol", "xray"]) == 0
    assert len(seen) == 3
    assert {name: getattr(seen[0], name) for name in given} == given
    # A system that asks how far away its image was taken is told, unless the command does.
    assert seen[0].distance == pytest.approx(1.287, abs=1e-3)
    afar = list(make_cases(list_meshes(meshes), 1, 3, [], CANONICAL.from_afar(4)))
    add_system("oracle", lambda _c, _d: Listener(afar), settings=SYSTEMS["xray"].settings)
    options += ["--protocol", "xray", "--views-from", "4"]
    assert main([*arguments, *options]) == 0
    assert main([*arguments, *options, "--distance", "2"]) == 0
    assert [settings.distance for settings in seen[3::3]] == pytest.approx([5.147, 2.0], abs=1e-3)


def test_a_folder_without_meshes_is_an_error(tmp_path, capsys):
    assert main(["evaluate", "--data", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "no meshes" in capsys.readouterr().err
    with pytest.raises(XRayError) as caught:
        evaluate(Oracle([]), [], None)
    assert caught.value.code == "no_data"


def ball(count: int, shift: float = 0.0, radius: float = 1.0) -> np.ndarray:
    """Points spread evenly over a sphere."""
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    z = 1 - (2 * np.arange(count) + 1) / count
    ring = np.sqrt(1 - z**2)
    points = np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=1)
    return radius * points + [shift, 0, 0]


@pytest.mark.parametrize("protocol", ["camera", "xray"])
def test_a_system_that_takes_no_image_is_refused(meshes, tmp_path, capsys, protocol):
    arguments = ["evaluate", "--data", str(meshes), "--generator", "omages", "--out", str(tmp_path)]
    assert main([*arguments, "--protocol", protocol]) == 2
    assert "takes no image" in capsys.readouterr().err


def test_what_fails_for_one_object_is_skipped_and_what_fails_for_all_ends_it(meshes):
    cases = list(make_cases(list_meshes(meshes), 1, 0, []))

    class Failing(Oracle):
        def __init__(self, error: Exception) -> None:
            super().__init__(cases)
            self.errors = [error]

        def generate(self, image, _settings, _progress=None):
            if self.errors:
                raise self.errors.pop()
            return super().generate(image, _settings, _progress)

    for error in (MemoryError(), RuntimeError("a bug"), XRayError("no_object", "Nothing.")):
        result, _ = evaluate(Failing(error), list_objects(meshes), None)
        assert len(result["cases"]) == 2
        [skipped] = result["skipped"]
        assert skipped["why"]
    for error in (Cancelled(), XRayError("missing_weights", "None.")):
        with pytest.raises(XRayError) as caught:
            evaluate(Failing(error), list_objects(meshes), None)
        assert caught.value is error


def test_a_larger_sphere_is_off_by_the_difference_of_the_radii():
    a, b = ball(20_000, radius=1.1), ball(20_000)
    camera, lari = (compare(a, b, 2.0, PROTOCOLS[name]) for name in ("camera", "lari"))
    assert camera["cd"] == pytest.approx(0.05, abs=2e-3)
    assert lari["cd"] == camera["cd"]
    assert camera["f@0.1"] == 1
    assert camera["f@0.02"] == camera["f@0.01"] == 0
    assert list(lari) == ["cd", "f@0.1", "f@0.05", "f@0.02"]
    assert list(compare(a, b, 2.0, PROTOCOLS["xray"])) == ["cd", "f@0.1"]


def test_the_papers_protocol_forgives_place_size_and_a_turn_and_sums():
    random = np.random.default_rng(0)
    truth = random.normal(size=(2000, 3)) * [1.0, 0.5, 0.2]
    angle = 0.3
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    moved = 1.7 * truth @ turn.T + [3, 0, 1]
    assert compare(moved, truth, 1.0, PROTOCOLS["xray"])["cd"] < 1e-3
    assert compare(moved, truth, 1.0)["cd"] > 0.5
    # Both are centred and of one size, so that no alignment is left: the sum, not its half.
    a, b = ball(3000), ball(3000) * np.array([1, 1, -1])
    assert compare(a, b, 1.0, PROTOCOLS["xray"])["cd"] == pytest.approx(
        2 * compare(a, b, 1.0)["cd"], rel=0.05
    )


def test_only_the_hidden_side_counts_as_hidden():
    near, far = ball(5000), ball(5000, shift=4)
    assert hidden_distance(near, near[:100], 1.0) == 0
    assert hidden_distance(near, far, 2.0) == pytest.approx(1.6, abs=0.2)
    assert hidden_distance(np.concatenate([near, far]), far, 2.0) == 0


def test_normals_and_colours_are_compared_at_nearest_points():
    points = ball(2000).astype(np.float32)
    grey = np.full_like(points, 0.5)
    same = compare_looks(Points(points, points, grey), Points(points, -points, grey))
    assert same == pytest.approx({"normal": 1, "color": 0}, abs=1e-5)
    x = np.zeros_like(points) + np.float32([1, 0, 0])
    other = compare_looks(Points(points, x, grey + 0.25), Points(points, points, grey))
    assert other["normal"] == pytest.approx(0.5, abs=0.02)  # the mean |x| on a sphere
    assert other["color"] == pytest.approx(0.25, abs=1e-5)


def test_hits_are_compared_layer_by_layer():
    def layers(*widths: int) -> XRay:
        depth = np.zeros((len(widths), 4, 8), dtype=np.float32)
        for number, width in enumerate(widths):
            depth[number, :, :width] = 1 + number
        normal = np.zeros((*depth.shape, 3), dtype=np.float32)
        normal[..., 2] = 1
        return XRay(depth, normal, normal)

    assert hit_overlap(layers(8, 4), layers(8, 8, 2), 4) == [1.0, 0.5, 0.0, None]


def test_intervals_hold_the_mean_narrow_with_the_square_root_and_repeat():
    values = np.random.default_rng(0).normal(5, 1, 400)
    low, high = interval(values, 0)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert interval(values, 0) == (low, high)
    assert interval([3.0, 3.0], 1) == (3.0, 3.0)


def test_x_rays_are_objects_too(tmp_path):
    mesh = trimesh.creation.icosphere(3, radius=0.4)
    surface = Surface(mesh.vertices, mesh.faces)
    camera = Camera.look_at((0, -1.5, 0.6), width=64, height=64)
    (tmp_path / "xrays" / "it").mkdir(parents=True)
    (tmp_path / "images" / "it").mkdir(parents=True)
    cast(surface, camera, 4).save(tmp_path / "xrays" / "it" / "000.npz")
    write_transforms(tmp_path / "images" / "it" / "transforms.json", [camera], ["000"])
    (case,) = make_cases(list_objects(tmp_path), 1, 0, [])
    assert case.name == "it"
    radius = np.linalg.norm(case.truth - case.truth.mean(axis=0), axis=1) / case.view.scale
    assert radius.mean() == pytest.approx(0.5, abs=0.01)
    (tmp_path / "xrays" / "it" / "000.npz").rename(tmp_path / "xrays" / "it" / "001.npz")
    files = list_objects(tmp_path)
    with pytest.raises(XRayError, match="no camera"):
        read_object(files[0], MeshCache(files), 0)
