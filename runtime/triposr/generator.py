"""`TripoSRGenerator`: one image to a mesh with TripoSR's published or self-trained weights."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xray_addon.camera import Camera
from xray_addon.errors import XRayError
from xray_addon.generated import Generated
from xray_addon.progress import Progress, ProgressCallback, ignore_progress
from xray_addon.surface import Surface
from xray_addon.systems.system import Inputs
from xray_addon.systems.triposr import FRAME, SYSTEM, TripoSRSettings

from ..checkpoints import locate
from ..generator import Generator
from ..images.cutout import cut_object
from ..meshes.extraction import Sparse, march
from ..meshes.meshing import MeshProgress, colored_surface, seek_surface
from ..torch_helpers.devices import choose_device, flush_denormals
from ..torch_helpers.interrupting import interruptible
from ..torch_helpers.memory import Chunks, memory_errors
from ..torch_helpers.rays import camera_rays
from . import field
from .extraction import GridField, density_level
from .model import TripoSR
from .preparation import prepare
from .weights import load_weights

log = logging.getLogger(__name__)

CAMERA_SIZE = 512
# If a visible object is less dense than the threshold everywhere, it is meshed at this share of
# its greatest density. (A density of 0.05 hides a twentieth of what is behind the box.)
VISIBLE = 0.05
FAINT = 0.7
# In the field the viewer is at +x and the image's right is +y; in X-Ray the viewer is at -y.
TO_WORLD = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
MEMORY_REMEDY = (
    "TripoSR needs about 6 GB. Close other programs that use it and release the runtime's memory, "
    "or set the device to the CPU."
)
# Points at a time: enough to fit a CPU's cache, or to fill a graphics processor.
_CHUNK = {"cpu": 16_384, "cuda": 1 << 20, "mps": 1 << 18}
_COLORED_AT_ONCE = 1 << 20  # points between two reports


class TripoSRGenerator(Generator):
    """TripoSR; load it with `runtime.load("triposr", checkpoint)`."""

    system = SYSTEM

    def __init__(self, model: TripoSR, device: str) -> None:
        self.model = model
        self.device = device
        self.chunks = Chunks(_CHUNK[torch.device(device).type])

    @classmethod
    def load(cls, checkpoint: str | None = None, device: str = "auto") -> TripoSRGenerator:
        """Load the weights at `checkpoint`, see `checkpoints.locate`; by default the published.

        Nothing is downloaded. Raises XRayError `missing_weights`, `incomplete_download`,
        `bad_weights`, `unsafe_weights`, `no_device`.
        """
        flush_denormals()
        device = choose_device(device)
        path = locate(checkpoint or "triposr")
        with memory_errors(device, MEMORY_REMEDY):
            return cls(load_weights(path, device), device)

    def run(
        self, inputs: Inputs, settings: TripoSRSettings, progress: ProgressCallback
    ) -> Generated:
        """A mesh with corner colours, or with a texture.

        Raises XRayError (unreadable image, `out_of_memory`, ...) and `Cancelled`.
        """
        surface = self.surface(
            self.encode(inputs.image, settings, progress=progress),
            settings.grid_resolution,
            settings.density_threshold,
            texture_size=settings.texture_size,
            progress=progress,
        )
        return Generated(surface, None, world_camera())

    def encode(
        self,
        image: Any,
        settings: TripoSRSettings | None = None,
        *,
        progress: ProgressCallback = ignore_progress,
    ) -> Tensor:
        """The scene code (3, c, 2P, 2P) of an image; for `surface`, `orbit` and `query`.

        image, settings : as in `generate`. Raises as `generate`.
        """
        cut = cut_object(image, settings or TripoSRSettings(), progress)
        predicting = Progress("predict", 0, 1, "Predicting the field")
        progress(predicting)
        with interruptible([self.model], lambda: progress(predicting)):
            planes = self.predict(prepare(cut.rgba))
        progress(Progress("predict", 1, 1, "Predicting the field"))
        return planes

    @torch.inference_mode()
    def predict(self, picture: NDArray[np.uint8]) -> Tensor:
        """The scene code (3, c, 2P, 2P) of a picture (S, S, 3) from `prepare`."""
        image = torch.from_numpy(picture).to(self.device).permute(2, 0, 1)[None].float() / 255
        with memory_errors(self.device, MEMORY_REMEDY):
            return self.model(image)[0]

    @torch.inference_mode()
    def query(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density (N,) and sRGB colour 0..1 (N, 3) at points (N, 3) in the field's axes."""
        raw = self._raw(planes, points.to(planes.device))
        return field.density(raw[:, 0], self.model.config.density_bias), raw[:, 1:].sigmoid()

    def _raw(self, planes: Tensor, points: Tensor) -> Tensor:
        radius = self.model.config.radius
        return self.chunks(lambda p: field.query(planes, self.model.decoder, p, radius), points)

    @torch.inference_mode()
    def surface(
        self,
        planes: Tensor,
        resolution: int,
        threshold: float,
        *,
        texture_size: int = 0,
        progress: ProgressCallback = ignore_progress,
    ) -> Surface:
        """The surface of density `threshold` as a mesh in world axes (viewer at -y, z up).

        resolution : grid points along each side of the box; fewer are used if the surface is
        `TooIntricate`. If a visible object is less dense than the threshold everywhere, it is
        meshed at `FAINT` times its greatest density. texture_size : px of the texture to bake the
        colours to; 0 gives corner colours instead.

        Raises XRayError `nothing_predicted`, `out_of_memory`.
        """
        meshing = MeshProgress(progress)

        def seek(level: float) -> Sparse:
            return seek_surface(
                lambda side: GridField(
                    planes, self.model.decoder, side, self.chunks, meshing.alive
                ),
                resolution,
                level,
                planes,
                meshing,
                unwrapped=texture_size > 0,
            )

        config = self.model.config
        with memory_errors(
            planes.device, "Lower the mesh resolution, or set the device to the CPU."
        ):
            level = density_level(threshold, config.density_bias)
            sparse = seek(level)
            greatest = math.exp(min(float(sparse.values.max()) + level + config.density_bias, 80))
            if VISIBLE < greatest < threshold:
                log.warning("no density reaches %g; using %g", threshold, FAINT * greatest)
                level = density_level(FAINT * greatest, config.density_bias)
                sparse = seek(level)
            meshing.making()
            vertices, faces = march(sparse, config.radius)
            if not len(faces):
                raise XRayError(
                    "nothing_predicted",
                    f"The model found no surface in this image: the greatest density is "
                    f"{greatest:.3g}, the threshold is {threshold:g}.",
                    "Try an image that shows the whole object on a plain or transparent "
                    "background, or another density threshold.",
                )

        def color_at(places: NDArray[np.float32]) -> NDArray[np.float32]:
            parts = []
            for part in torch.from_numpy(places).split(_COLORED_AT_ONCE):
                meshing.alive()
                parts.append(self.query(planes, part)[1].cpu())
            return torch.cat(parts).numpy()

        surface = colored_surface(vertices, faces, color_at, texture_size, meshing)
        return surface.transformed(TO_WORLD)

    @torch.inference_mode()
    def orbit(
        self,
        planes: Tensor,
        views: int = 30,
        size: int = 256,
        *,
        elevation: float = 0.0,
        progress: ProgressCallback = ignore_progress,
    ) -> NDArray[np.uint8]:
        """Pictures (views, size, size, 4) around the object; the first is from the image's side.

        Rendered from the field itself; RGBA with straight alpha. elevation : radians.
        """
        config = self.model.config
        # Whole pixels at a time, so that a ray's samples stay together.
        pixels = Chunks(max(1, self.chunks.size // config.ray_samples) * 16)
        pictures = []
        for number in range(views):
            progress(Progress("orbit", number, views, "Rendering the views"))
            camera = field.orbit_camera(2 * math.pi * number / views, elevation, size)
            rays = torch.cat(camera_rays([camera], size, planes.device), dim=-1)[0]

            def render(part: Tensor) -> Tensor:
                color, opacity = field.render_rays(
                    lambda p: self._raw(planes, p), part[:, :3], part[:, 3:], config
                )
                return torch.cat([color, opacity[:, None]], dim=1)

            rgba = pixels(render, rays).view(size, size, 4)
            alpha = rgba[..., 3:]
            # The field is rendered on white; remove that background again.
            color = (rgba[..., :3] - (1 - alpha)) / alpha.clamp(min=1e-4)
            image = torch.cat([torch.where(alpha > 1e-3, color, 0.0), alpha], dim=-1)
            pictures.append((image.clamp(0, 1) * 255).round().byte().cpu().numpy())
        return np.stack(pictures)


load = TripoSRGenerator.load


def world_camera(size: int = CAMERA_SIZE) -> Camera:
    """The camera that the model assumes for every image, in world axes."""
    return FRAME.camera(size)
