"""The evaluated cases, objects seen from fixed random sides, and the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xray_addon.camera import Camera
from xray_addon.canonical import CANONICAL, Frame, place
from xray_addon.errors import XRayError
from xray_addon.files.transforms import read_transforms
from xray_addon.pictures.shading import Lights, reduce_image, shade, to_bytes
from xray_addon.progress import Progress, ProgressCallback
from xray_addon.reconstruction import reconstruct
from xray_addon.surface import Surface
from xray_addon.xray import XRay

from ..meshes.collection import MeshCache, MeshFile, list_meshes
from ..training.views import TrainingView, view_object
from .protocols import Positions

POINTS = 10_000
IMAGE_SIZE = 512
GALLERY_SIZE = 32  # px of the pictures for the nearest-neighbour search
# An X-Ray's rays rarely hit steep sides; at this resolution the points are a fair sample.
TRUTH_SIZE = 256
TRUTH_LAYERS = 16


@dataclass(frozen=True, eq=False)
class Case:
    """One object from one side: name, image (512, 512, 4), the view, truth points (10000, 3) in
    the camera's axes, and the seed of their sampling."""

    name: str
    image: NDArray[np.uint8]
    view: TrainingView
    camera: Camera
    truth: Positions
    seed: int

    @property
    def truth_camera(self) -> Camera:
        """The camera of the view's X-Ray."""
        return self.camera.resized(TRUTH_SIZE, TRUTH_SIZE)

    def from_frame(self, frame: Frame) -> NDArray[np.float64] | None:
        """The matrix (4, 4) from camera space in `frame` to camera space in the case's frame.

        It maps the true object, as placed by `frame`, to its place in the case, without rotation.
        None if the object does not fit into `frame`.
        """
        view = self.view
        placed = place(view.source, view.azimuth, view.elevation, frame=frame)
        if placed is None:
            return None
        ours = place(view.source, view.azimuth, view.elevation, frame=view.frame)
        assert ours is not None
        theirs = frame.camera(2, view.elevation).world_to_camera @ placed[0]
        matrix: NDArray[np.float64] = self.camera.world_to_camera @ ours[0] @ np.linalg.inv(theirs)
        return matrix


def list_objects(data: Path, *, split: str = "") -> list[MeshFile]:
    """The objects under `data`: the first X-Ray of each item if it is a dataset in the published
    layout, otherwise the meshes (see `list_meshes`). Raises XRayError `no_data`."""
    if not (data / "xrays").is_dir():
        return list_meshes(data, split=split)
    items = sorted(path for path in (data / "xrays").iterdir() if path.is_dir())
    views = [sorted(path for path in item.glob("*.npz") if path.stem.isdecimal()) for item in items]
    files = [MeshFile(found[0], found[0].parent.name) for found in views if found]
    if not files:
        raise XRayError("no_data", f"There are no X-Rays under {data}.", "Capture some, or wait.")
    return files


def read_object(file: MeshFile, cache: MeshCache, number: int) -> Surface:
    """Object `number`, from `file`: its mesh, z up, or the mesh reconstructed from its X-Ray."""
    if file.path.suffix != ".npz":
        return cache.surface(number)
    xray = XRay.load(file.path)
    _, height, width = xray.shape
    images = file.path.parents[2] / "images" / file.path.parent.name
    cameras = read_transforms(images / "transforms.json", width, height)
    if file.path.stem not in cameras:
        raise XRayError(
            "bad_transforms", f"{images} has no camera {file.path.stem}.", "Capture it again."
        )
    return reconstruct(xray, cameras[file.path.stem])


def in_camera(points: NDArray[np.floating], camera: Camera) -> Positions:
    """World points (N, 3) in the camera's axes; the frame's middle remains the origin."""
    return np.asarray(points, dtype=np.float64) @ camera.camera_to_world[:3, :3]


def make_cases(
    files: Sequence[MeshFile],
    views: int,
    seed: int,
    skipped: list[dict[str, str]],
    frame: Frame = CANONICAL,
) -> Iterator[Case]:
    """`views` cases of each file in `frame`, reproducible with `seed`; failures are added to
    `skipped`."""
    cache = MeshCache(list(files))
    for number, file in enumerate(files):
        random = np.random.default_rng([seed, number])
        try:
            surface = read_object(file, cache, number)
        except XRayError as error:
            skipped.append({"file": _name(file), "why": str(error)})
            continue
        for _ in range(views):
            view = next(
                filter(None, (_view(surface, random, frame) for _ in range(20))),
                None,
            )
            if view is None:
                skipped.append({"file": _name(file), "why": "no view fits into the frame"})
                continue
            camera = view.camera.resized(IMAGE_SIZE, IMAGE_SIZE)
            lights = Lights.random(camera, random)
            image = reduce_image(shade(view.fine, view.camera, lights), 2)
            sampling = int(random.integers(2**31))
            truth = in_camera(view.surface.sample(POINTS, sampling), camera)
            yield Case(_name(file), to_bytes(image), view, camera, truth, sampling)


def _name(file: MeshFile) -> str:
    return file.path.parent.name if file.path.suffix == ".npz" else file.path.stem


def _view(surface: Surface, random: np.random.Generator, frame: Frame) -> TrainingView | None:
    return view_object(
        surface,
        random,
        layers=TRUTH_LAYERS,
        resolution=TRUTH_SIZE,
        image_resolution=2 * IMAGE_SIZE,
        frame=frame,
    )


class Gallery:
    """Training objects for retrieval by picture, each from one random side.

    Raises XRayError `no_data` if no file can be read.
    """

    def __init__(self, files: list[MeshFile], seed: int, progress: ProgressCallback) -> None:
        cache = MeshCache(files)
        pictures, self.surfaces, self.cameras = [], list[Surface](), list[Camera]()
        for number in range(len(files)):
            progress(Progress("gallery", number, len(files), "Picturing the training objects"))
            random = np.random.default_rng([seed, 1, number])
            try:
                surface = cache.surface(number)
            except XRayError:  # an unreadable mesh was not trained on either
                continue
            view = view_object(
                surface,
                random,
                layers=1,
                resolution=GALLERY_SIZE,
                image_resolution=4 * GALLERY_SIZE,
            )
            if view is None:
                continue
            image = shade(view.fine, view.camera, Lights.random(view.camera, random))
            pictures.append(_thumbnail(image, 4))
            self.surfaces.append(view.surface)
            self.cameras.append(view.camera)
        if not pictures:
            raise XRayError(
                "no_data", "No training object can be read.", "Choose another --gallery."
            )
        self.pictures = np.stack(pictures)

    def nearest(self, image: NDArray[np.uint8], seed: int) -> Positions:
        """Points (10000, 3), in its camera's axes, of the object with the most similar picture."""
        picture = _thumbnail(image.astype(np.float32) / 255, len(image) // GALLERY_SIZE)
        number = int(((self.pictures - picture) ** 2).sum(axis=1).argmin())
        surface, camera = self.surfaces[number], self.cameras[number]
        return in_camera(surface.sample(POINTS, seed), camera)


def _thumbnail(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Colours times alpha, and alpha, at (32, 32), as one vector."""
    small = reduce_image(image, factor)
    small = np.concatenate([small[..., :3] * small[..., 3:], small[..., 3:]], axis=-1)
    return small.reshape(-1)


def visible_layer(case: Case) -> Positions:
    """The hits of the true first layer, in the camera's axes."""
    camera = case.truth_camera
    first = case.view.xray.index < TRUTH_SIZE**2
    return in_camera(case.view.xray.points(camera).positions[first], camera)


def silhouette_sphere(case: Case, seed: int) -> Positions:
    """A sphere at the frame's distance whose silhouette has the area and centre of the case's."""
    row, column = np.nonzero(case.image[..., 3] > 127)
    camera = case.camera
    radius = np.sqrt(len(row) / np.pi) / camera.focal * camera.distance
    ray = camera.ray_directions(np.array([row.mean()]), np.array([column.mean()]))
    random = np.random.default_rng(seed)
    points = random.normal(size=(POINTS, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points * radius + (ray / -ray[:, 2:] + (0, 0, 1)) * camera.distance
