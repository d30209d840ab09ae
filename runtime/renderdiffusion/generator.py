"""`RenderDiffusionGenerator`: an image, or nothing, to a mesh, by denoising a picture in 3D."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xray_addon.camera import Camera
from xray_addon.errors import XRayError
from xray_addon.generated import Generated
from xray_addon.progress import Progress, ProgressCallback, ignore_progress
from xray_addon.surface import Surface
from xray_addon.systems.renderdiffusion import FRAME, SYSTEM, RenderDiffusionSettings
from xray_addon.systems.system import Inputs

from ..generator import Generator
from ..images.cutout import cut_object
from ..images.framing import frame, frame_with_mask
from ..images.redrawing import read_mask
from ..meshes.extraction import Sparse, march
from ..meshes.meshing import MeshProgress, colored_surface, seek_surface
from ..meshes.pieces import without_crumbs
from ..meshes.smoothing import taubin
from ..torch_helpers.devices import choose_device, flush_denormals
from ..torch_helpers.memory import Chunks, memory_errors
from .cameras import find_camera
from .networks import RenderDiffusion
from .sampling import STEPS, Sampled, sample
from .weights import DEFAULT_WEIGHTS, load_model

log = logging.getLogger(__name__)

CAMERA_SIZE = 512  # px
# Azimuth and elevation of the denoised picture if there is no image.
MADE_UP_FROM = (math.radians(30), math.radians(20))
PREVIEW_SIZE = 256  # px along a side
PREVIEW_SECONDS = 0.5  # between two previews of the denoising
SHEET_COLUMNS = 4
# If a visible object is less dense than the threshold everywhere, it is meshed at this share of
# its greatest density.
FAINT = 0.5
VISIBLE = 0.5
# Pieces with less area than this share of the largest piece are left out.
CRUMB = 0.01
# Rounds of smoothing, against the steps of the planes' pixels.
SMOOTHING = 10
MEMORY_REMEDY = (
    "Close other programs that use it, lower the grid resolution, or set the device to the CPU."
)
# Points of the field at a time: enough to fit a CPU's cache, or to fill a graphics processor.
_CHUNK = {"cpu": 16_384, "cuda": 1 << 20, "mps": 1 << 18}


@dataclass(frozen=True, eq=False)
class _Picture:
    """The network's input: colours (1, 3, S, S), 0..1, on its background, and which pixels are kept
    (1, 1, S, S); None for all."""

    colors: Tensor
    known: Tensor | None


class RenderDiffusionGenerator(Generator):
    """RenderDiffusion; load it with `runtime.load("renderdiffusion")`.

    An image is reconstructed; an image with a mask is inpainted; without an image, an object is
    generated.
    """

    system = SYSTEM

    def __init__(self, model: RenderDiffusion, device: str) -> None:
        self.model = model
        self.device = device
        self.chunks = Chunks(_CHUNK[torch.device(device).type])

    @classmethod
    def load(cls, checkpoint: str | None = None, device: str = "auto") -> RenderDiffusionGenerator:
        """Load the weights at `checkpoint` (a safetensors file), or those that come with X-Ray.

        Raises XRayError: `missing_weights`, `bad_weights`, `no_device`.
        """
        flush_denormals()
        device = choose_device(device)
        path = Path(checkpoint or DEFAULT_WEIGHTS).expanduser()
        return cls(load_model(path, device), device)

    def run(
        self, inputs: Inputs, settings: RenderDiffusionSettings, progress: ProgressCallback
    ) -> Generated:
        """A mesh with corner colours or a texture, and pictures: "image", the denoised picture, and
        "orbit", views of the field.

        The viewer of the image, or without an image the object's front, is at -y.

        Raises XRayError (unreadable image, `no_object`, `bad_mask`, `nothing_predicted`,
        `out_of_memory`, ...) and `Cancelled`.
        """
        with torch.inference_mode(), memory_errors(self.device, MEMORY_REMEDY):
            return self._made(inputs, settings, progress)

    def _made(
        self, inputs: Inputs, settings: RenderDiffusionSettings, progress: ProgressCallback
    ) -> Generated:
        notes: list[str] = []

        def note(text: str) -> None:
            log.info("%s", text)
            notes.append(text)
            progress(Progress("image", 1, 1, text))

        picture = None
        if inputs.image is not None:
            picture = self._read(inputs, settings, progress, note)
        camera = self._camera(picture, settings, progress, note)
        sampled = self.sample(picture, camera, settings, progress)
        surface = self.surface(sampled.planes, settings, progress)
        pictures = {"image": _bytes(sampled.picture[0])}
        if settings.orbit_views:
            pictures["orbit"] = self.orbit(
                sampled.planes, settings.orbit_views, camera, progress=progress
            )
        if picture is not None:
            turn = _to_viewer(camera)
            surface = surface.transformed(turn)
            camera = replace(camera, camera_to_world=turn @ camera.camera_to_world)
        return Generated(
            surface, None, camera.resized(CAMERA_SIZE, CAMERA_SIZE), pictures, tuple(notes)
        )

    def _read(
        self,
        inputs: Inputs,
        settings: RenderDiffusionSettings,
        progress: ProgressCallback,
        note: Callable[[str], None],
    ) -> _Picture:
        """The image's object, cropped and scaled as in training."""
        cut = cut_object(inputs.image, settings, progress).rgba
        size = self.model.config.image_size
        if inputs.mask is None:
            return _Picture(self._on_background(frame(cut, size, fill=FRAME.fill)), None)
        height, width = cut.shape[:2]
        redrawn, own_size = read_mask(inputs.mask, width, height)
        if own_size != (width, height):
            note(
                f"The mask has {own_size[0]} x {own_size[1]} pixels and was resampled to the "
                f"image's {width} x {height}."
            )
        framed, redrawn = frame_with_mask(cut, redrawn, size, fill=FRAME.fill)
        known = torch.from_numpy(~redrawn)[None, None].to(self.device)
        return _Picture(self._on_background(framed), known)

    def _on_background(self, rgba: NDArray[np.uint8]) -> Tensor:
        """Colours (1, 3, S, S), 0..1, of an image (S, S, 4) on the network's background."""
        image = torch.from_numpy(rgba).to(self.device).permute(2, 0, 1)[None].float() / 255
        background = torch.tensor(self.model.config.background, device=self.device)
        return torch.lerp(background.view(1, 3, 1, 1), image[:, :3], image[:, 3:])

    def _camera(
        self,
        picture: _Picture | None,
        settings: RenderDiffusionSettings,
        progress: ProgressCallback,
        note: Callable[[str], None],
    ) -> Camera:
        """The picture's camera in the object's frame: found, or from the settings."""
        if picture is None:
            return self.model.config.camera(*MADE_UP_FROM)
        if not settings.find_camera:
            angles = math.radians(settings.azimuth), math.radians(settings.elevation)
            return self.model.config.camera(*angles)
        finding = Progress("camera", 0, 1, "Finding where the image was taken from")
        camera = find_camera(self.model, picture.colors[0], lambda: progress(finding))
        azimuth, elevation = (round(math.degrees(angle)) for angle in _angles(camera))
        note(f"The image was found to be from azimuth {azimuth}, elevation {elevation} degrees.")
        return camera

    def sample(
        self,
        picture: _Picture | None,
        camera: Camera,
        settings: RenderDiffusionSettings,
        progress: ProgressCallback = ignore_progress,
    ) -> Sampled:
        """The planes and the denoised picture.

        picture : the picture to reconstruct or inpaint; None to generate.
        """
        # Drawn on the CPU, so that a seed gives the same object on every device.
        random = torch.Generator().manual_seed(settings.seed)
        denoising = Progress("predict", 0, 0, "Denoising the picture")
        shown = time.monotonic()

        def noise(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=random).to(self.device)

        def report(step: int, of: int, clean: Tensor) -> None:
            nonlocal denoising, shown
            denoising = replace(denoising, step=step, of=of)
            preview = None
            if step == of or time.monotonic() - shown >= PREVIEW_SECONDS:
                preview = _preview(_bytes(clean[0]))
                shown = time.monotonic()
            progress(replace(denoising, preview=preview))

        progress(denoising)
        return sample(
            self.model,
            [camera],
            image=None if picture is None else picture.colors,
            known=None if picture is None else picture.known,
            t_r=settings.t_r,
            steps=settings.steps or STEPS,
            noise=noise,
            report=report,
        )

    def surface(
        self,
        planes: Tensor,
        settings: RenderDiffusionSettings,
        progress: ProgressCallback = ignore_progress,
    ) -> Surface:
        """The surface of the field of planes (1, 3, C, N, N) as a mesh in the object's frame.

        If a visible object is less dense than the settings' threshold everywhere, it is meshed at
        `FAINT` times its greatest density.

        Raises XRayError `nothing_predicted`, `out_of_memory`.
        """
        threshold, box = settings.density_threshold, self.model.config.box
        meshing = MeshProgress(progress)

        def field_on(side: int) -> Callable[[Tensor], Tensor]:
            def density(index: Tensor) -> Tensor:
                meshing.alive()
                grid = torch.stack([index // side**2, index // side % side, index % side], -1)
                return self._field(planes, grid * (2 * box / (side - 1)) - box)[:, 0]

            return lambda index: self.chunks(density, index)

        def seek(level: float) -> Sparse:
            return seek_surface(
                field_on,
                settings.grid_resolution,
                level,
                planes,
                meshing,
                unwrapped=settings.texture_size > 0,
            )

        sparse = seek(threshold)
        greatest = float(sparse.values.max()) + threshold
        if VISIBLE < greatest < threshold:
            log.warning("no density reaches %g; using %g", threshold, FAINT * greatest)
            sparse = seek(FAINT * greatest)
        meshing.making()
        vertices, faces = without_crumbs(*march(sparse, box, closed=True), CRUMB)
        vertices = taubin(vertices, faces, SMOOTHING).astype(np.float32)
        if not len(faces):
            raise XRayError(
                "nothing_predicted",
                f"The model sees no surface: the greatest density is {greatest:.3g}, the threshold "
                f"is {threshold:g}.",
                "Try an image that shows the whole object, a larger t_r, another seed or a lower "
                "surface density.",
            )

        def color_at(places: NDArray[np.float32]) -> NDArray[np.float32]:
            def color(points: Tensor) -> Tensor:
                meshing.alive()
                return self._field(planes, points)[:, 1:]

            return self.chunks(color, torch.from_numpy(places).to(self.device)).cpu().numpy()

        return colored_surface(vertices, faces, color_at, settings.texture_size, meshing)

    def _field(self, planes: Tensor, points: Tensor) -> Tensor:
        """Density and colour (N, 4) at points (N, 3) in the object's frame."""
        density, color = self.model.field(planes, points[None])
        return torch.cat([density[0, :, None], color[0]], dim=1)

    def orbit(
        self,
        planes: Tensor,
        views: int,
        camera: Camera,
        *,
        progress: ProgressCallback = ignore_progress,
    ) -> NDArray[np.uint8]:
        """Views around the field, side by side in rows of `SHEET_COLUMNS`: (H, W, 3).

        The first is from `camera`. The others have the same elevation and move to the right.
        """
        azimuth, elevation = _angles(camera)
        pictures = []
        for number in range(views):
            progress(Progress("orbit", number, views, "Drawing the views"))
            turned = self.model.config.camera(azimuth + 2 * math.pi * number / views, elevation)
            rendered = self.model.render(planes, [turned], skip_empty=True)
            pictures.append(_bytes(rendered.color[0]))
        return _sheet(pictures)


load = RenderDiffusionGenerator.load


def _angles(camera: Camera) -> tuple[float, float]:
    """Azimuth and elevation of a camera around the origin, radians; azimuth 0 is at -y."""
    x, y, z = camera.position
    return math.atan2(x, -y), math.atan2(z, math.hypot(x, y))


def _to_viewer(camera: Camera) -> NDArray[np.float64]:
    """(4, 4) rotation about z that moves `camera` to the -y side."""
    azimuth, _ = _angles(camera)
    matrix = np.eye(4)
    cosine, sine = math.cos(azimuth), math.sin(azimuth)
    matrix[:2, :2] = [[cosine, sine], [-sine, cosine]]
    return matrix


def _bytes(picture: Tensor) -> NDArray[np.uint8]:
    """(S, S, 3) of a picture (3, S, S), 0..1."""
    values = picture.float().clamp(0, 1).mul(255).round().byte()
    return values.permute(1, 2, 0).cpu().numpy()


def _preview(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(P, P, 4): enlarged and opaque."""
    factor = max(1, PREVIEW_SIZE // len(picture))
    large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    return np.concatenate([large, np.full_like(large[..., :1], 255)], axis=-1)


def _sheet(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures (S, S, 3) in rows of `SHEET_COLUMNS`; unused places are white."""
    columns = min(SHEET_COLUMNS, len(pictures))
    missing = -len(pictures) % columns
    padded = [*pictures, *[np.full_like(pictures[0], 255)] * missing]
    rows = [padded[start : start + columns] for start in range(0, len(padded), columns)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])
