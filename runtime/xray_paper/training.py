"""Training of X-Ray at paper scale: the diffusion model, or the upsampler.

python -m runtime train --config runtime/xray_paper/diffusion.json --data DIR --out DIR [--resume]

--data is a dataset in the published layout. --out gets the metrics (see `training.run`) and
`checkpoint-<step>/unet` (or `vae`), as in the published training, with `training.pt` beside it for
resuming.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from xray_addon.camera import PUBLISHED_FOV_X, Camera
from xray_addon.errors import XRayError
from xray_addon.published import FAR, NEAR

from ..checkpoints import locate
from ..training import run
from ..training.configs import RunConfig
from ..training.trainer import Trainer as SharedTrainer
from ..training.trainer import full_disk_told, resuming
from . import parts as loading
from .conditioning import embed, sdxl_latents, svd_latents
from .data import ShuffledViews, Views, list_views

STATE = "training.pt"
LOW_SIZE = 64  # px of the layers that the upsampler enlarges
# added_time_ids of the published training: frames per second, motion, noise on the image.
FPS, MOTION = 7.0, 127.0
# Number of points at which the upsampler's loss compares neighbouring normals.
NORMAL_POINTS, NEIGHBOURS, NORMAL_WEIGHT = 2048, 30, 0.002


@dataclass
class TrainingConfig(RunConfig):
    """How one part is trained. The defaults are the published ones of the diffusion model.

    part : "diffusion" or "upsampler". network : its configuration as in config.json, to start
    from random weights; empty for the published size. start_from : a checkpoint to start from
    instead; "" for none. svd, sdxl_vae : pretrained folders or hub ids.
    conditioning_dropout : share of samples without the embedding, share without both, and share
    without the latents. sigma_mean, sigma_std : of the logarithm of the noise; image_noise_* : of
    the noise on the image. upsampler_noise : maximum noise on the upsampler's input. min_iou :
    minimum silhouette IoU of image and first layer; a view below it is replaced by another.
    hold_out : every n-th view is left out. keep : number of checkpoints to keep.
    """

    example: ClassVar[str] = "runtime/xray_paper/diffusion.json"
    network_settings: ClassVar[tuple[str, ...]] = ("part", "network")

    generator: str = "xray-paper"
    part: str = "diffusion"
    network: dict[str, Any] = field(default_factory=dict)
    start_from: str = ""
    svd: str = "svd"
    sdxl_vae: str = "sdxl-vae"
    seed: int = 1243
    batch: int = 14
    steps: int = 1_000_000
    learning_rate: float = 1e-4
    warmup: float = 0.0
    final_rate: float = 1.0
    conditioning_dropout: float = 0.1
    sigma_mean: float = 0.7
    sigma_std: float = 1.6
    image_noise_mean: float = -3.0
    image_noise_std: float = 0.5
    upsampler_noise: float = 0.2
    near: float = NEAR
    far: float = FAR
    min_iou: float = 0.7
    hold_out: int = 10
    checkpoint_steps: int = 1000
    keep: int = 3
    workers: int = 4

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise ValueError(f"part must be one of {', '.join(PARTS)}, got {self.part!r}")
        if min(self.batch, self.steps, self.checkpoint_steps, self.keep) < 1:
            raise ValueError("batch, steps, checkpoint_steps and keep must be 1 or more")

    def length(self) -> int:
        """Samples of the whole run."""
        return self.steps * self.batch


# ----------------------------------------------------------------------------------------- losses


def diffusion_loss(
    model: Any,
    frames: Tensor,
    embedding: Tensor,
    image_latents: Tensor,
    image_noise: Tensor,
    config: TrainingConfig,
    random: torch.Generator,
) -> Tensor:
    """The weighted denoising loss of EDM (Karras et al. 2022) in its v-prediction form.

    frames (B, F, 8, S, S), embedding (B, 1, D), image_latents (B, 4, S, S), image_noise (B,):
    standard deviation of the noise on the image.
    """
    batch, device = len(frames), frames.device
    sigma = (torch.randn(batch, generator=random) * config.sigma_std + config.sigma_mean).exp()
    noise = torch.randn(frames.shape, generator=random).to(device)
    drop = torch.rand(batch, generator=random).to(device)
    spread = sigma.to(device).view(-1, 1, 1, 1, 1)
    noised = frames + spread * noise
    # One random number decides on both conditions (Brooks et al. 2023).
    share = config.conditioning_dropout
    keep_embedding = (drop >= 2 * share).float().view(-1, 1, 1)
    keep_latents = ((drop < share) | (drop >= 3 * share)).float().view(-1, 1, 1, 1)
    image = (image_latents * keep_latents)[:, None].expand(-1, frames.shape[1], -1, -1, -1)
    scaled = noised / (spread**2 + 1).sqrt()
    ids = frames.new_tensor([FPS, MOTION]).expand(batch, -1)
    ids = torch.cat([ids, image_noise.to(ids)[:, None]], dim=1)
    output = model(
        torch.cat([scaled, image], dim=2),
        (sigma.log() / 4).to(device),
        embedding * keep_embedding,
        ids,
    ).sample.float()
    denoised = noised / (spread**2 + 1) - output * spread / (spread**2 + 1).sqrt()
    weight = (1 + spread**2) / spread**2
    return (weight * (denoised - frames) ** 2).mean()


def upsampler_loss(
    output: Tensor, target: Tensor, camera: Camera, random: torch.Generator
) -> Tensor:
    """BCE of the hits, MSE over the hit surface, and the difference of neighbouring normals.

    output, target : (F, 8, H, W); the output's hit channel is a logit.
    """
    hit = target[:, 7] > 0
    loss = functional.binary_cross_entropy_with_logits(output[:, 7], hit.float())
    if not bool(hit.any()):
        return loss
    values = output[:, :7].movedim(1, -1)[hit]
    loss = loss + functional.mse_loss(values, target[:, :7].movedim(1, -1)[hit])
    return loss + NORMAL_WEIGHT * _unlike_normals(values[:, 1:4], target, hit, camera, random)


def _unlike_normals(
    normals: Tensor, target: Tensor, hit: Tensor, camera: Camera, random: torch.Generator
) -> Tensor:
    """Mean of 1 - cos between a predicted normal (N, 3) and those of its nearest points."""
    count = len(normals)
    if count < 2:
        return normals.new_zeros(())
    chosen = torch.randperm(count, generator=random)[:NORMAL_POINTS].to(normals.device)
    _, row, column = (index[chosen].cpu().numpy() for index in hit.nonzero(as_tuple=True))
    rays = torch.from_numpy(camera.ray_directions(row, column)).to(normals)
    points = rays * (target[:, 0][hit][chosen, None] + 1)
    unit = functional.normalize(normals[chosen], dim=1)
    neighbours = min(NEIGHBOURS + 1, len(chosen))
    nearest = torch.cdist(points, points).topk(neighbours, largest=False).indices[:, 1:]
    return 1 - (unit[:, None] * unit[nearest]).sum(dim=-1).mean()


# ----------------------------------------------------------------------------------------- parts


class _Diffusion:
    """The denoiser and its conditioning."""

    folder = loading.UNET
    full = loading.FULL_UNET
    new = staticmethod(loading.new_unet)
    load = staticmethod(loading.load_unet)
    prefix = ""

    def __init__(self, config: TrainingConfig, network: dict[str, Any], device: torch.device):
        svd = locate(config.svd)
        self.config = config
        self.size = int(network["sample_size"])
        self.layers = int(network["num_frames"])
        self._encoder = loading.load_image_encoder(svd).to(device)
        self._vae = loading.load_svd_vae(svd).to(device)
        self._normalization = loading.load_normalization(svd)

    def loss(self, model: Any, batch: dict[str, Tensor], random: torch.Generator) -> Tensor:
        config, image = self.config, batch["image"]
        noise = torch.randn(len(image), generator=random)
        sigma = (noise * config.image_noise_std + config.image_noise_mean).exp()
        grain = torch.randn(image.shape, generator=random).to(image)
        with torch.no_grad():
            # Reduced on the CPU, as in generating, so that the values are the same.
            embedding = embed(self._encoder, self._normalization, image.cpu()).to(image)
            noisy = image + grain * sigma.to(image).view(-1, 1, 1, 1)
            latents = svd_latents(self._vae, noisy, self.size)
        return diffusion_loss(model, batch["frames"], embedding, latents, sigma, config, random)


class _Upsampler:
    """The upsampler and its conditioning."""

    folder = loading.UPSAMPLER
    full = loading.FULL_UPSAMPLER
    new = staticmethod(loading.make_upsampler)
    load = staticmethod(loading.load_upsampler)
    prefix = "decoder."
    layers = 8

    def __init__(self, config: TrainingConfig, network: dict[str, Any], device: torch.device):
        self.config = config
        self._factor = 2 ** (len(network["block_out_channels"]) - 1)
        self._low = LOW_SIZE
        self.size = LOW_SIZE * self._factor
        self._vae = loading.load_sdxl_vae(locate(config.sdxl_vae)).to(device)
        self._camera = Camera.look_at(
            (0.0, -1.0, 0.0), fov_x=PUBLISHED_FOV_X, width=self.size, height=self.size
        )

    def loss(self, model: Any, batch: dict[str, Tensor], random: torch.Generator) -> Tensor:
        with torch.no_grad():
            latents = sdxl_latents(self._vae, batch["image"], self._low)
        total = latents.new_zeros(())
        for target, image in zip(batch["frames"], latents, strict=True):
            low = functional.interpolate(target, size=(self._low, self._low), mode="nearest")
            noise = torch.randn(low.shape, generator=random).to(low)
            strength = float(torch.rand((), generator=random)) * self.config.upsampler_noise
            low = low.clamp(-1, 1) + strength * noise
            x = torch.cat([low, image.expand(len(low), -1, -1, -1)], dim=1)
            output = model(x, x.new_zeros(1, len(x)), num_frames=len(x)).float()
            total = total + upsampler_loss(output, target, self._camera, random)
        return total / len(latents)


PARTS: dict[str, Any] = {"diffusion": _Diffusion, "upsampler": _Upsampler}


class Trainer(SharedTrainer[TrainingConfig]):
    """The network of one part and its optimiser. Checkpoints have the published format."""

    def __init__(self, config: TrainingConfig, device: str) -> None:
        super().__init__(config, device)
        kind = PARTS[config.part]
        self.folder: str = kind.folder
        self._prefix: str = kind.prefix
        if config.start_from:
            start = loading.find_part(locate(config.start_from), kind.folder)
            if start is None:
                raise XRayError(
                    "missing_weights",
                    f"There is no checkpoint-<step>/{kind.folder} in {config.start_from}.",
                    "Correct start_from, or leave it empty.",
                )
            self.network = loading.read_config(start)
            self.model = kind.load(start)
        else:
            self.network = config.network or kind.full
            self.model = loading.build(Path("network"), kind.new, self.network)
        self.part = kind(config, self.network, self.device)
        self.model.to(self.device).train().requires_grad_(True)
        self.optimizers = [
            torch.optim.AdamW(
                self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
            )
        ]
        self._saved_steps = 0

    def dataset(self, data: Path) -> ShuffledViews:
        """The views in `data`, shuffled."""
        config, part = self.config, self.part
        views = Views(
            list_views(data, hold_out=config.hold_out),
            layers=part.layers,
            size=part.size,
            near=config.near,
            far=config.far,
            min_iou=config.min_iou,
        )
        return ShuffledViews(views, config.seed, config.batch, self.steps)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of the part."""
        # Depends only on the seed and the step, so a resumed run continues identically.
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.steps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return {"loss": self.part.loss(self.model, batch, random)}

    @classmethod
    def has_run(cls, folder: Path) -> bool:
        """Whether `folder` contains a run that can be resumed."""
        return any(folder.glob("checkpoint-*"))

    def is_due(self, seconds: float) -> bool:  # noqa: ARG002
        """Whether to save now: every `checkpoint_steps` steps, as in the published training."""
        return self.steps - self._saved_steps >= self.config.checkpoint_steps

    def save(self, folder: Path) -> None:
        """Write `checkpoint-<step>` atomically; raises XRayError `no_space`."""
        state = {
            "config": asdict(self.config),
            "optimizer": self.optimizers[0].state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
        }
        final = folder / f"checkpoint-{self.steps}"
        with full_disk_told(folder), _whole_folder(final) as temporary:
            self.save_weights(temporary)
            torch.save(state, temporary / STATE)
        self._saved_steps = self.steps
        ours = sorted(folder.glob(f"checkpoint-*/{STATE}"), key=lambda path: _step(path.parent))
        for old in ours[: -self.config.keep]:
            shutil.rmtree(old.parent)

    def save_weights(self, folder: Path) -> None:
        """Write the network's folder, as in the published training, into `folder`."""
        tensors = {
            self._prefix + name: value.detach().float().cpu().contiguous()
            for name, value in self.model.state_dict().items()
        }
        part = folder / self.folder
        part.mkdir()
        (part / "config.json").write_text(json.dumps(self.network, indent=2), "utf-8")
        save_file(tensors, part / f"{loading.WEIGHTS}.safetensors", {"format": "pt"})

    def resume(self, folder: Path) -> None:
        """Continue from the latest checkpoint in `folder`, or from weights if there are only these.

        From weights it continues at their step, but with a new optimiser. Raises XRayError
        `bad_checkpoint`, and those of `find_part`.
        """
        part = loading.find_part(folder, self.folder)
        if part is None:
            raise XRayError(
                "bad_checkpoint",
                f"There is no run to resume in {folder}.",
                "Train without --resume; `start_from` in the configuration starts from weights.",
            )
        with resuming(part.parent):
            weights, _ = loading.read_state(part, loading.WEIGHTS)
            self.model.load_state_dict(
                {name.removeprefix(self._prefix): value for name, value in weights.items()}
            )
            if (part.parent / STATE).is_file():
                state = torch.load(part.parent / STATE, map_location="cpu", weights_only=True)
                self.check_same(state["config"], part.parent / STATE)
                self.optimizers[0].load_state_dict(state["optimizer"])
                self.steps, self.seconds = int(state["steps"]), float(state["seconds"])
            else:
                self.steps = max(0, _step(part.parent))
        self.samples = self.steps * self.config.batch
        self._saved_steps = self.steps


train = partial(run.train, Trainer)


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


@contextmanager
def _whole_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final` that replaces it at the end."""
    temporary = final.with_name(f".{final.name}-{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if final.exists():
            shutil.rmtree(final)
        temporary.replace(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
