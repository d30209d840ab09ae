"""`OmagesGenerator`: a category to geometry, geometry to material, both to a mesh."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xray_addon.camera import Camera
from xray_addon.errors import XRayError
from xray_addon.generated import Generated
from xray_addon.omage import Omage
from xray_addon.omage.categories import CATEGORIES
from xray_addon.omage.encoding import EXTENT
from xray_addon.omage.normals import estimated_normals
from xray_addon.omage.pictures import views
from xray_addon.omage.resampling import OCCUPANCY, OCCUPIED
from xray_addon.progress import Progress, ProgressCallback, ignore_progress
from xray_addon.systems.omages import SYSTEM, OmagesSettings
from xray_addon.systems.system import Inputs

from ..checkpoints import locate
from ..generator import Generator
from ..torch_helpers.devices import choose_device, flush_denormals
from ..torch_helpers.interrupting import interruptible
from ..torch_helpers.memory import memory_errors
from .networks import GUIDANCE, GeometryDenoiser, MaterialDenoiser
from .sampling import Denoiser, Schedule, ancestral, multistep
from .transformer import CHANNELS as GEOMETRY_CHANNELS
from .transformer import GeometryTransformer
from .unet import CHANNELS as MATERIAL_CHANNELS
from .unet import MaterialNetwork
from .weights import GEOMETRY_FILE, MATERIAL_FILE, find_weights, load_geometry, load_material

# Steps of the published sampler, and of the faster solver.
PUBLISHED_STEPS = {"geometry": 250, "material": 1000}
FAST_STEPS = {"geometry": 30, "material": 20}
PREVIEW_SECONDS = 0.5  # between two previews of the omage
PREVIEW_SIZE = 256  # px per side

SIZE = 64  # px per side, for the published networks
MEMORY_REMEDY = (
    "Omages need about 4 GB. Close other programs that use it and release the runtime's memory, or "
    "set the device to the CPU."
)
# There is no image that defines a view; this camera is in front of the mesh, a little above.
CAMERA = Camera.look_at((0.0, -1.8, 0.6), width=512, height=512)

Floats = NDArray[np.float64]


class OmagesGenerator(Generator):
    """Omages; load it with `runtime.load("omages", checkpoint)`.

    folder : contains the two published checkpoints, or your own, directly or in subfolders. Each is
    read when it is first needed.
    """

    system = SYSTEM

    def __init__(self, folder: Path, device: str) -> None:
        self.folder = folder
        self.device = device
        self._material: tuple[bool, MaterialNetwork] | None = None

    @classmethod
    def load(cls, checkpoint: str | None = None, device: str = "auto") -> OmagesGenerator:
        """Use the weights at `checkpoint`, see `checkpoints.locate`; by default the published.

        Raises XRayError: `missing_weights`, `incomplete_download`, `no_device`.
        """
        flush_denormals()
        device = choose_device(device)
        folder = locate(checkpoint or "omages")
        for name in (GEOMETRY_FILE, MATERIAL_FILE):
            if not find_weights(folder, name).is_file():
                raise XRayError(
                    "missing_weights",
                    f"{folder} lacks {name}.",
                    f"Put {GEOMETRY_FILE} and {MATERIAL_FILE} into one folder and choose it.",
                )
        return cls(folder, device)

    @cached_property
    def geometry_network(self) -> GeometryTransformer:
        """Load it. Raises XRayError `bad_weights`, `unsafe_weights`, `out_of_memory`."""
        with memory_errors(self.device, MEMORY_REMEDY):
            return load_geometry(self.folder, self.device)

    def material_network(self, average: bool = False) -> MaterialNetwork:
        """Load it. average : use the stored running average. Raises as `geometry_network`."""
        if self._material is None or self._material[0] != average:
            self._material = None  # two networks may not fit into memory
            with memory_errors(self.device, MEMORY_REMEDY):
                network = load_material(self.folder, self.device, average=average)
            self._material = average, network
        return self._material[1]

    def run(
        self, inputs: Inputs, settings: OmagesSettings, progress: ProgressCallback
    ) -> Generated:
        """A mesh with UVs and a metallic-roughness material, and the omage's pictures.

        Raises XRayError `empty_omage`; `bad_omage` and `missing_file` for the geometry in the
        settings; `out_of_memory`; and `Cancelled`.
        """
        fast = settings.sampler == "fast"
        if settings.geometry:
            given = Omage.load(settings.geometry)
            geometry = given.resized(SIZE).channels(0, GEOMETRY_CHANNELS)
        else:
            geometry = self.geometry(
                inputs.category,
                settings.seed,
                fast=fast,
                steps=settings.geometry_steps,
                guidance=settings.guidance,
                progress=progress,
            )
        # Check for an empty omage now, because the material may take minutes.
        Omage(geometry).mesh()
        material = self.material(
            geometry,
            inputs.category,
            settings.seed,
            fast=fast,
            steps=settings.material_steps,
            average=settings.average,
            progress=progress,
        )
        omage = composed(geometry, material)
        surface = omage.decode(stitch=settings.stitch)
        surface = replace(surface, vertices=surface.vertices / EXTENT)
        pictures = {
            name: np.rint(picture * 255).astype(np.uint8) for name, picture in views(omage).items()
        }
        return Generated(surface, None, CAMERA, pictures)

    def geometry(
        self,
        category: str,
        seed: int = 0,
        *,
        fast: bool = False,
        steps: int = 0,
        guidance: float = GUIDANCE,
        progress: ProgressCallback = ignore_progress,
    ) -> Floats:
        """Geometry (S, S, 4) of an object of a category, 0 to 1, row 0 at v = 0.

        fast : use the faster solver instead of the published one. steps : 0 for the default. The
        occupancy is not rounded, because the material network needs it unrounded.

        Raises XRayError `unknown_category`, `out_of_memory`, and `Cancelled`.
        """
        label = self._label(category)
        network = self.geometry_network
        schedule = Schedule.geometry(_steps("geometry", fast, steps))
        shape = (1, GEOMETRY_CHANNELS, network.config.size, network.config.size)
        return self._sampled(
            "geometry",
            network,
            lambda: GeometryDenoiser(network, schedule, label, guidance),
            shape,
            seed,
            fast,
            _geometry_picture,
            progress,
        )

    def material(
        self,
        geometry: Floats,
        category: str,
        seed: int = 0,
        *,
        fast: bool = False,
        steps: int = 0,
        average: bool = False,
        progress: ProgressCallback = ignore_progress,
    ) -> Floats:
        """Albedo, metallic, roughness (S, S, 5), 0 to 1, for geometry (S, S, 4); see `geometry`."""
        label = self._label(category)
        network = self.material_network(average)
        schedule = Schedule.material(_steps("material", fast, steps))
        condition = torch.from_numpy(geometry.transpose(2, 0, 1)[None] * 2 - 1).float()
        condition = condition.to(self.device)
        occupied = geometry[..., OCCUPANCY] > OCCUPIED
        shape = (1, MATERIAL_CHANNELS, *geometry.shape[:2])
        return self._sampled(
            "material",
            network,
            lambda: MaterialDenoiser(network, schedule, condition, label),
            shape,
            seed,
            fast,
            lambda values: _material_picture(values, occupied),
            progress,
        )

    def _label(self, category: str) -> Tensor:
        self.system.check(Inputs(category=category))
        return torch.tensor([CATEGORIES.index(category)], device=self.device)

    @torch.inference_mode()
    def _sampled(
        self,
        stage: str,
        network: nn.Module,
        denoiser: Callable[[], Denoiser],
        shape: tuple[int, ...],
        seed: int,
        fast: bool,
        picture: Callable[[Floats], NDArray[np.uint8]],
        progress: ProgressCallback,
    ) -> Floats:
        """The sample (S, S, C), 0 to 1. `progress` is called at each step, and between layers."""
        # Drawn on the CPU, so that a seed gives the same object on every device.
        random = torch.Generator().manual_seed(seed)

        def draw(_step: int = 0) -> Tensor:
            return torch.randn(shape, generator=random).to(self.device)

        report = Progress(stage, 0, 0, f"Sampling the {stage}")
        shown = time.monotonic()

        def alive() -> None:
            progress(report)

        def run() -> Tensor:
            nonlocal report, shown
            made = denoiser()
            of = made.schedule.steps
            start = draw()
            images: Iterator[tuple[Tensor, Tensor]]
            images = multistep(start, made) if fast else ancestral(start, made, draw)
            report = Progress(stage, 0, of, f"Sampling the {stage}")
            progress(report)
            final = start
            for step, (image, clean) in enumerate(images, 1):
                final = image
                report = Progress(stage, step, of, f"Sampling the {stage}, step {step} of {of}")
                preview = None
                if time.monotonic() - shown >= PREVIEW_SECONDS or step == of:
                    preview = picture(_values(clean))
                    shown = time.monotonic()
                progress(Progress(stage, step, of, report.message, preview))
            return final

        with interruptible([network], alive), memory_errors(self.device, MEMORY_REMEDY):
            return _values(run())


load = OmagesGenerator.load


def composed(geometry: Floats, material: Floats) -> Omage:
    """The omage of geometry (S, S, 4) and material (S, S, 5); normals come from the positions."""
    occupied = geometry[..., OCCUPANCY] > OCCUPIED
    position = geometry[..., :3] * 2 - 1
    normal = (estimated_normals(occupied, position) + 1) / 2
    values = np.concatenate([geometry, normal, material], axis=2)
    values[..., OCCUPANCY] = occupied
    values[~occupied] = 0
    return Omage(values.astype(np.float32))


def _steps(stage: str, fast: bool, steps: int) -> int:
    return steps or (FAST_STEPS if fast else PUBLISHED_STEPS)[stage]


def _values(image: Tensor) -> Floats:
    """(S, S, C) from 0 to 1 of an image (1, C, S, S) from -1 to 1."""
    values = (image[0].float().clamp(-1, 1).cpu().numpy().transpose(1, 2, 0) + 1) / 2
    return values.astype(np.float64)


def _geometry_picture(values: Floats) -> NDArray[np.uint8]:
    shown = views(Omage(values))["position"]
    return _enlarged(shown)


def _material_picture(values: Floats, occupied: NDArray[np.bool_]) -> NDArray[np.uint8]:
    omage = np.zeros((*occupied.shape, 12))
    omage[..., OCCUPANCY] = occupied
    omage[..., 7:] = values
    return _enlarged(views(Omage(omage))["albedo"])


def _enlarged(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    factor = max(1, PREVIEW_SIZE // len(picture))
    large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    return np.rint(np.clip(large, 0, 1) * 255).astype(np.uint8)
