"""`Slice3DGenerator`: one image to twelve slices and a mesh."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xray_addon.camera import PUBLISHED_FOV_X, Camera
from xray_addon.errors import XRayError
from xray_addon.generated import Generated, reached_sides
from xray_addon.progress import Progress, ProgressCallback
from xray_addon.slices.slicing import DISTANCE, tiled
from xray_addon.surface import Surface
from xray_addon.systems.slice3d import SYSTEM, Slice3DSettings
from xray_addon.systems.system import Inputs

from ..generator import Generator
from ..images.cutout import cut_object
from ..images.framing import frame
from ..meshes.extraction import DISTANCE_STRIDES, Sparse, fitting, march, sample_distances
from ..meshes.meshing import MeshProgress
from ..torch_helpers.devices import choose_device, flush_denormals
from ..torch_helpers.interrupting import interruptible
from ..torch_helpers.memory import Chunks, memory_errors
from .diffusion import Schedule, SliceDiffusion
from .files import find_network
from .networks import SliceField, SliceNet
from .painting import paint
from .preparation import centred, network_image, to_picture
from .slice_images import read_slices
from .weights import DIFFUSION, FIELD, REGRESSION, load_diffusion, load_field, load_regression

STEPS = 200
PICTURE_SIZE = 256  # px of the image that colours are taken from
# Of the progress: seeking the surface, making the mesh, colouring it.
_MESH_STEPS = len(DISTANCE_STRIDES) + 2
# How often slices are shown during sampling; each time takes about as long as a step.
_SHOWINGS = 10
MEMORY_REMEDY = (
    "The generation branch needs about 3 GB, the regression branch 1.5 GB. Close other programs "
    "that use it, lower the mesh resolution, or set the device to the CPU."
)
# Points of the field at a time: enough to fit a CPU's cache, or to fill a graphics processor.
_CHUNK = {"cpu": 2048, "cuda": 1 << 13, "mps": 1 << 13}
# In the field the viewer is at +z and y is up; in X-Ray the viewer is at -y and z is up.
_TO_WORLD = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
# The meshed box, as published: the field is not trained outside.
_RADIUS = 0.5


class Slice3DGenerator(Generator):
    """Slice3D; load it with `runtime.load("slice3d", checkpoint)`.

    Its networks are read when a branch first needs them.
    """

    system = SYSTEM

    def __init__(self, checkpoint: str, device: str) -> None:
        self.device = device
        self.checkpoint = checkpoint
        self.chunks = Chunks(_CHUNK[torch.device(device).type])
        self._networks: dict[str, Any] = {}

    @classmethod
    def load(cls, checkpoint: str | None = None, device: str = "auto") -> Slice3DGenerator:
        """Use the files in the folder `checkpoint`, or a single file if the branch needs only one.

        Nothing is downloaded, and nothing is read before a branch needs it. Raises XRayError
        `missing_weights` if `checkpoint` does not exist, and `no_device`.
        """
        flush_denormals()
        if checkpoint and not Path(checkpoint).expanduser().exists():
            find_network(REGRESSION, Slice3DSettings(checkpoint=checkpoint))  # says what is needed
        return cls(checkpoint or "", choose_device(device))

    def run(
        self, inputs: Inputs, settings: Slice3DSettings, progress: ProgressCallback
    ) -> Generated:
        """A mesh with corner colours, and the slices as a picture.

        Raises XRayError: those of the image (including `object_at_border`), `missing_weights`,
        `bad_weights`, `other_weights`, `nothing_predicted`, `out_of_memory`, ... and `Cancelled`.
        """
        with torch.inference_mode(), memory_errors(self.device, MEMORY_REMEDY):
            return self._made(inputs, settings, progress)

    def _made(
        self, inputs: Inputs, settings: Slice3DSettings, progress: ProgressCallback
    ) -> Generated:
        picture = None
        if settings.branch == "slices":
            slices = read_slices(inputs.image)
            sheet = tiled(slices)
            progress(Progress("predict", 1, 1, "Reading the slices", preview=_shown(sheet)))
            network: SliceField = self._network(FIELD, settings, progress)
            maps = self._field_of(network, slices, progress)
        else:
            picture = self._framed(inputs.image, settings, progress)
            if settings.branch == "regression":
                network = self._network(REGRESSION, settings, progress)
                maps, slices = self._drawn(network, picture, progress)
            else:
                slices = self._sampled(picture, settings, progress)
                network = self._network(FIELD, settings, progress)
                maps = self._field_of(network, slices, progress)
            sheet = tiled(slices)
        surface = self.mesh(network, maps, settings.grid_resolution, progress)
        surface = surface.transformed(_TO_WORLD)
        camera = world_camera()
        if picture is not None:
            progress(Progress("mesh", _MESH_STEPS - 1, _MESH_STEPS, "Colouring the mesh"))
            seen_by = world_camera(len(picture))
            colors = paint(surface, picture, seen_by, spread=settings.fill_hidden)
            surface.corner_colors = colors[surface.faces]
        tilt = _tilted(settings.elevation)
        return Generated(
            surface.transformed(tilt),
            None,
            replace(camera, camera_to_world=tilt @ camera.camera_to_world),
            {"slices": sheet},
        )

    def _framed(
        self, image: Any, settings: Slice3DSettings, progress: ProgressCallback
    ) -> NDArray[np.uint8]:
        """The cut-out framed as in training: (S, S, 4); S is the original size if that is kept."""
        rgba = cut_object(image, settings, progress).rgba
        _refuse_cut_off(rgba)
        if settings.object_size:
            return frame(rgba, PICTURE_SIZE, fill=settings.object_size)
        rgba = centred(rgba)
        height, width = rgba.shape[:2]
        side = max(height, width)
        square = np.zeros((side, side, 4), dtype=np.uint8)
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = rgba
        return square

    def _drawn(
        self, network: SliceNet, picture: NDArray[np.uint8], progress: ProgressCallback
    ) -> tuple[list[Tensor], NDArray[np.uint8]]:
        """The regression branch: maps for the field, and the slices (12, S, S, 3)."""
        drawing = Progress("predict", 0, 1, "Drawing the slices")
        progress(drawing)
        image = network_image(picture, network.config.image_size, "black")[None].to(self.device)
        with interruptible([network], lambda: progress(drawing)):
            maps, slices = network.encode(image)
        pictures = to_picture(slices[0])
        progress(replace(drawing, step=1, preview=_shown(tiled(pictures))))
        return maps, pictures

    def _sampled(
        self, picture: NDArray[np.uint8], settings: Slice3DSettings, progress: ProgressCallback
    ) -> NDArray[np.uint8]:
        """The generation branch: slices (12, S, S, 3) by the latent diffusion."""
        model: SliceDiffusion = self._network(DIFFUSION, settings, progress)
        steps = settings.steps or STEPS
        random = torch.Generator().manual_seed(settings.seed)

        def noise(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random).to(self.device)

        sampling = Progress("predict", 0, steps, "Sampling the slices")
        shape = model.grid_shape()
        tile = model.config.tile
        image = network_image(picture, model.config.image_size, "white")[None].to(self.device)

        def report(done: int, expected: Tensor) -> None:
            nonlocal sampling
            sampling = replace(sampling, step=done)
            shown = None
            if done < steps and done * _SHOWINGS // steps > (done - 1) * _SHOWINGS // steps:
                shown = _shown(tiled(to_picture(model.decode(expected)[0])))
            progress(replace(sampling, preview=shown))

        progress(sampling)
        with interruptible([model], lambda: progress(sampling)):
            condition = model.condition(image, noise(1, 4, tile, tile))
            schedule = Schedule.of(steps)
            grid = model.sample(condition, schedule, lambda _: noise(*shape), report=report)
            pictures = to_picture(model.decode(grid)[0])
        progress(replace(sampling, step=steps, preview=_shown(tiled(pictures))))
        return pictures

    def _field_of(
        self, network: Any, slices: NDArray[np.uint8], progress: ProgressCallback
    ) -> list[Tensor]:
        """Maps for the field of slices (12, S, S, 3)."""
        reading = Progress("field", 0, 1, "Reading the slices")
        progress(reading)
        resized = [
            network_image(_opaque(one), network.config.image_size, "white") for one in slices
        ]
        with interruptible([network], lambda: progress(reading)):
            maps: list[Tensor] = network.encode(torch.stack(resized)[None].to(self.device))
        return maps

    def mesh(
        self,
        network: SliceField,
        maps: list[Tensor],
        cells: int,
        progress: ProgressCallback,
    ) -> Surface:
        """The surface of the field in the published axes: y up, z to the viewer."""
        meshing = MeshProgress(progress)
        tables = network.tables(maps)

        def inside(points: Tensor) -> Tensor:
            meshing.alive()
            return -network.distance_by_tables(tables, points[None])[0]

        def seek(side: int) -> Sparse:
            step = 2 * _RADIUS / (side - 1)
            flip = torch.tensor([1.0, -1.0, -1.0], device=self.device)

            def evaluate(index: Tensor) -> Tensor:
                place = torch.stack([index // side**2, index // side % side, index % side], dim=-1)
                return self.chunks(inside, (place * step - _RADIUS) * flip)

            return sample_distances(evaluate, side, step, tables[0].device, meshing.seeking)

        sparse = fitting(seek, cells + 1, meshing.say)
        meshing.making()
        vertices, faces = march(sparse, _RADIUS, method="lorensen", closed=True)
        if not len(faces):
            raise XRayError(
                "nothing_predicted",
                "The model sees no surface in these slices: nothing is inside.",
                "Try an image that shows the whole object, or another seed.",
            )
        return Surface(vertices, faces)

    def _network(self, kind: str, settings: Slice3DSettings, progress: ProgressCallback) -> Any:
        """The network, read at the first use."""
        if kind not in self._networks:
            progress(Progress("load", 0, 1, "Reading the weights"))
            chosen = replace(settings, checkpoint=self.checkpoint)
            load = {REGRESSION: load_regression, FIELD: load_field, DIFFUSION: load_diffusion}[kind]
            self._networks[kind] = load(find_network(kind, chosen), self.device)
        return self._networks[kind]


load = Slice3DGenerator.load


def world_camera(size: int = PICTURE_SIZE) -> Camera:
    """The assumed camera of every image, in world axes."""
    return Camera.look_at((0, -DISTANCE, 0), fov_x=PUBLISHED_FOV_X, width=size, height=size)


def _tilted(elevation: float) -> NDArray[np.float64]:
    """(4, 4) rotation about x that raises the camera by `elevation` degrees."""
    matrix = np.eye(4)
    cosine, sine = math.cos(math.radians(elevation)), math.sin(math.radians(elevation))
    matrix[1:3, 1:3] = [[cosine, sine], [-sine, cosine]]
    return matrix


def _opaque(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if picture.shape[-1] == 4:
        return picture
    return np.concatenate([picture, np.full_like(picture[..., :1], 255)], axis=-1)


def _shown(sheet: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return _opaque(sheet)


def _refuse_cut_off(rgba: NDArray[np.uint8]) -> None:
    """Raise `object_at_border` if the image's border may cut off the object."""
    if sides := reached_sides(rgba):
        raise XRayError(
            "object_at_border",
            f"The object reaches the image's border ({', '.join(sides)}), so that a part of it "
            "may be missing.",
            "Choose an image that shows the whole object, with some room around it.",
        )
