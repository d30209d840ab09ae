"""`XRayPaperGenerator`: one image to layers to a mesh, with checkpoints in the published format."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xray_addon.camera import Camera
from xray_addon.errors import XRayError, is_out_of_memory
from xray_addon.generated import Generated
from xray_addon.pictures.contact_sheet import layer_sheet
from xray_addon.progress import Progress, ProgressCallback, ignore_progress
from xray_addon.published import frames_to_xray
from xray_addon.reconstruction import reconstruct
from xray_addon.systems.system import Inputs
from xray_addon.systems.xray_paper import FRAME, SYSTEM, XRayPaperSettings

from ..generator import Generator
from ..images.cutout import cut_object
from ..images.framing import frame
from ..torch_helpers.devices import choose_device, flush_denormals
from ..torch_helpers.interrupting import interruptible
from . import parts as loading
from .conditioning import IMAGE_SIZE, embed, opaque, sdxl_latents, svd_latents, to_tensor
from .denoiser import Denoiser, faster_frames
from .parts import Parts
from .sampling import STEPS, sample, with_little_memory

# The published cameras are 0 to 45 degrees above the object. An image does not show the angle, and
# the middle has the smallest expected error.
ELEVATION = math.radians(22.5)


@dataclass(frozen=True, eq=False)
class Conditions:
    """The denoiser's conditioning: embedding (1, 1, D) and image_latents (1, 4, S, S)."""

    embedding: Tensor
    image_latents: Tensor


class XRayPaperGenerator(Generator):
    """The published X-Ray; load it with `runtime.load("xray-paper", checkpoint)`.

    The stages can be called separately: `condition`, `sample`, `upsample`, `decode`.
    """

    system = SYSTEM

    def __init__(self, parts: Parts, device: str, *, half: bool | None = None) -> None:
        flush_denormals()
        self.parts = parts
        self.device = device
        half = device.startswith("cuda") if half is None else half
        self._precision = torch.float16 if half else torch.float32
        self.scheduler = loading.load_scheduler(parts.svd)
        self._normalization = loading.load_normalization(parts.svd)
        self.denoiser = Denoiser(self._placed(loading.load_unet(parts.unet)))
        self._encoders: dict[str, Any] = {
            "clip": loading.load_image_encoder(parts.svd),
            "svd": loading.load_svd_vae(parts.svd),
        }
        self.upsampler: Any = None
        if parts.upsampler is not None and parts.sdxl_vae is not None:
            self._encoders["sdxl"] = loading.load_sdxl_vae(parts.sdxl_vae)
            self.upsampler = self._placed(loading.load_upsampler(parts.upsampler))
            faster_frames(self.upsampler)
        for encoder in self._encoders.values():
            self._placed(encoder)

    @classmethod
    def load(
        cls, checkpoint: str | None = None, device: str = "auto", *, half: bool | None = None
    ) -> XRayPaperGenerator:
        """Load the parts of `checkpoint` (see `Parts.find`).

        half : whether to use half precision; None means only on CUDA.

        Raises XRayError `missing_weights`, `incomplete_download`, `bad_weights`, `no_device`.
        """
        return cls(Parts.find(checkpoint), choose_device(device), half=half)

    def run(
        self, inputs: Inputs, settings: XRayPaperSettings, progress: ProgressCallback
    ) -> Generated:
        """A mesh with corner colours, and its layers."""
        cut = cut_object(inputs.image, settings, progress)
        rgba = frame(cut.rgba, IMAGE_SIZE, fill=FRAME.fill)
        return self.generate_framed(opaque(rgba), settings, progress)

    def generate_framed(
        self,
        rgb: NDArray[np.uint8],
        settings: XRayPaperSettings,
        progress: ProgressCallback = ignore_progress,
    ) -> Generated:
        """As `run`, but from an image (H, W, 3) prepared as for the published pipeline."""
        steps = settings.steps or STEPS
        if settings.batch_order != self.denoiser.batch_order:
            self.denoiser.set_batch_order(settings.batch_order)
        generator = torch.Generator().manual_seed(settings.seed)
        noise = torch.randn(self.noise_shape, generator=generator)
        state = Progress("condition", 0, 1, "Looking at the image")

        def tell(reached: Progress) -> None:
            nonlocal state
            state = reached
            progress(state)

        models = [self.denoiser, *self._encoders.values()]
        models += [self.upsampler] if self.upsampler is not None else []
        with interruptible(models, lambda: progress(state)):
            tell(state)
            conditions = self.condition(rgb)
            tell(Progress("sample", 0, steps, "Sampling the layers"))
            frames = self.sample(
                conditions,
                noise,
                steps=steps,
                progress=lambda n: tell(Progress("sample", n, steps, "Sampling the layers")),
            )
            if self.upsampler is not None:
                tell(Progress("upsample", 0, 1, "Enlarging the layers"))
                frames = self.upsample(frames, rgb)
        progress(Progress("mesh", 0, 2, "Reading the layers"))
        return self.decode(frames, progress)

    @property
    def noise_shape(self) -> tuple[int, int, int, int, int]:
        """The shape of the initial noise of `sample`: (1, layers, 8, S, S)."""
        d = self.denoiser
        return (1, d.frames, d.channels, d.size, d.size)

    @torch.no_grad()
    def condition(self, rgb: NDArray[np.uint8]) -> Conditions:
        """The denoiser's conditioning for the image (H, W, 3), on the CPU."""
        image = to_tensor(rgb)
        embedding = self._encode(
            "clip", lambda: embed(self._encoders["clip"], self._normalization, image)
        )
        latents = self._encode(
            "svd", lambda: svd_latents(self._encoders["svd"], image, self.denoiser.size)
        )
        return Conditions(embedding.cpu(), latents.cpu())

    def sample(
        self, conditions: Conditions, noise: Tensor, *, steps: int = STEPS, progress: Any = None
    ) -> Tensor:
        """Frames (8, 8, S, S), not clamped, on the CPU. noise : unit, with `noise_shape`."""
        frames = sample(
            self.denoiser,
            self.scheduler,
            conditions.embedding,
            conditions.image_latents,
            noise,
            steps=steps,
            release=self._free,
            on_step=progress or (lambda _: None),
        )
        return frames.cpu()

    @torch.no_grad()
    def upsample(self, frames: Tensor, rgb: NDArray[np.uint8]) -> Tensor:
        """Frames (8, 8, 4 S, 4 S) from frames (8, 8, S, S) and the image, on the CPU."""
        if self.upsampler is None:
            raise XRayError(
                "missing_weights",
                "This checkpoint has no upsampler.",
                "Use a checkpoint with checkpoint-<step>/vae, or skip the upsampling.",
            )
        latents = self.upsampler_latents(rgb, frames.shape[-1])
        parameter = next(self.upsampler.parameters())
        low = torch.cat([frames.clamp(-1, 1), latents.expand(len(frames), -1, -1, -1)], dim=1)
        low = low.to(parameter.device, parameter.dtype)

        def enlarge() -> Tensor:
            indicator = low.new_zeros(1, len(low))
            return self.upsampler(low, indicator, num_frames=len(low)).float().cpu()

        try:
            return enlarge()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self._free()
        return with_little_memory(enlarge)

    @torch.no_grad()
    def upsampler_latents(self, rgb: NDArray[np.uint8], size: int) -> Tensor:
        """The upsampler's conditioning for the image: (1, 4, size, size), on the CPU."""
        image = to_tensor(rgb)
        return self._encode("sdxl", lambda: sdxl_latents(self._encoders["sdxl"], image, size)).cpu()

    def decode(self, frames: Tensor, progress: ProgressCallback = ignore_progress) -> Generated:
        """Decode the layers, camera and mesh of `frames` (8, 8, S, S).

        As published, the hit channel is only used in the upsampler's output.
        """
        high = frames.shape[-1] > self.denoiser.size
        xray = frames_to_xray(frames.float().numpy(), use_hit=high)
        camera = published_camera(frames.shape[-1])
        progress(Progress("mesh", 1, 2, "Linking the layers", layer_sheet(xray)))
        surface = reconstruct(xray, camera)
        if not len(surface.faces):
            raise XRayError(
                "nothing_predicted",
                "The model found no surface in this image.",
                "Try an image that shows the whole object on a plain or transparent background.",
            )
        progress(Progress("mesh", 2, 2, "Done"))
        return Generated(surface, xray, camera)

    def _encode(self, name: str, work: Callable[[], Tensor]) -> Tensor:
        """Run `work` of an encoder, on the CPU if the device runs out of memory."""
        try:
            self._placed(self._encoders[name])
            return work()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self._free()
        return with_little_memory(work)

    def _placed(self, model: Any) -> Any:
        """`model` on the device, in half precision unless its config requires float32."""
        whole = getattr(getattr(model, "config", None), "force_upcast", False)
        return _moved(model, self.device, torch.float32 if whole else self._precision)

    def _free(self) -> None:
        """Move the encoders off the device; they are moved back when needed."""
        for encoder in self._encoders.values():
            _moved(encoder, "cpu", torch.float32)
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


load = XRayPaperGenerator.load


def _moved(model: Any, device: str, dtype: torch.dtype) -> Any:
    # diffusers warns about every cast, even if it changes nothing.
    changes = next(model.parameters()).dtype != dtype
    return model.to(device=device, dtype=dtype) if changes else model.to(device=device)


def published_camera(size: int) -> Camera:
    """The camera of the published data, upright: `size` px, rays through the pixels' corners."""
    seen = FRAME.camera(size, ELEVATION)
    return Camera(size, size, FRAME.fov_x, seen.camera_to_world, pixel_offset=0.0)
