"""Training of X-Ray at paper scale: the diffusion model, or the upsampler.

python -m runtime train --config runtime/xray_paper/diffusion.json --data DIR --out DIR [--resume]

DIR holds a dataset in the published layout. --out gets `checkpoint-<step>/unet` (or `vae`), the
same folder as the published training leaves, with `training.pt` beside it, which a resumed run
needs, and `metrics.jsonl`.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from xray_addon.camera import PUBLISHED_FOV_X, Camera
from xray_addon.errors import XRayError
from xray_addon.progress import Cancelled, Progress, ProgressCallback, ignore_progress
from xray_addon.published import FAR, NEAR

from ..checkpoints import locate
from ..training.configs import read_config
from . import parts as loading
from .conditioning import embed, sdxl_latents, svd_latents
from .data import Shuffled, Views, list_views

log = logging.getLogger(__name__)

STATE = "training.pt"
LOG_STEPS = 50
LOW_SIZE = 64  # px of the layers that the upsampler enlarges
# added_time_ids as the published training sends them: frames a second, motion, noise on the image.
FPS, MOTION = 7.0, 127.0
# The upsampler's loss looks at this many points for how alike neighbouring normals are.
NORMAL_POINTS, NEIGHBOURS, NORMAL_WEIGHT = 2048, 30, 0.002


@dataclass
class TrainingConfig:
    """How one part is trained; the defaults are the published ones of the diffusion model.

    part : "diffusion" or "upsampler". network : its configuration as in config.json where it
    starts from random weights, empty for the published size. start_from : a checkpoint to start
    from instead, "" for none. svd, sdxl_vae : pretrained folders or hub ids.
    conditioning_dropout : share of samples without embedding, without both, without latents
    each. sigma_mean, sigma_std : of the noise's logarithm; image_noise_* the image's.
    upsampler_noise : greatest noise on the upsampler's input. min_iou : of image and first layer,
    below which another view is taken. hold_out : every n-th view is left out. keep : checkpoints.
    """

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
    weight_decay: float = 1e-2
    gradient_norm: float = 1.0
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

    @classmethod
    def read(cls, path: Path) -> TrainingConfig:
        """From a JSON file; raises XRayError `bad_config`."""
        return read_config(cls, path, "runtime/xray_paper/diffusion.json")


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
    # One throw decides for both conditions: embedding, both, latents (Brooks et al. 2023).
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
    """BCE of the hits, MSE over the hit surface, and how unlike neighbouring normals are.

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
    """The denoiser and what conditions it."""

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
            embedding = embed(self._encoder, self._normalization, image.cpu()).to(image)
            noisy = image + grain * sigma.to(image).view(-1, 1, 1, 1)
            latents = svd_latents(self._vae, noisy, self.size)
        return diffusion_loss(model, batch["frames"], embedding, latents, sigma, config, random)


class _Upsampler:
    """The upsampler and what conditions it."""

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


class Trainer:
    """A network, its optimiser and where they are; `save` and `resume` keep all."""

    def __init__(self, config: TrainingConfig, device: str) -> None:
        torch.manual_seed(config.seed)
        torch.set_flush_denormal(True)
        self.config = config
        self.device = torch.device(device)
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
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.steps = 0
        self.seconds = 0.0

    @property
    def samples(self) -> int:
        """Views seen so far."""
        return self.steps * self.config.batch

    def step(self, batch: dict[str, Tensor]) -> float:
        """One update; the loss."""
        batch = {name: value.to(self.device) for name, value in batch.items()}
        # A function of the seed and the step alone: a resumed run goes on as the whole one would.
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.steps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.part.loss(self.model, batch, random)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_norm)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.steps += 1
        return float(loss.detach())

    def save(self, out: Path) -> Path:
        """Write `checkpoint-<step>`, whole or not at all; the folder. Raises XRayError."""
        final = out / f"checkpoint-{self.steps}"
        tensors = {
            self._prefix + name: value.detach().float().cpu().contiguous()
            for name, value in self.model.state_dict().items()
        }
        state = {
            "config": asdict(self.config),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
        }
        with _whole_folder(final) as temporary:
            part = temporary / self.folder
            part.mkdir()
            (part / "config.json").write_text(json.dumps(self.network, indent=2), "utf-8")
            save_file(tensors, part / f"{loading.WEIGHTS}.safetensors", {"format": "pt"})
            torch.save(state, temporary / STATE)
        ours = sorted(out.glob(f"checkpoint-*/{STATE}"), key=lambda path: _step(path.parent))
        for old in ours[: -self.config.keep]:
            shutil.rmtree(old.parent)
        return final

    def resume(self, out: Path) -> None:
        """Go on from the highest checkpoint in `out`. Raises XRayError `bad_checkpoint`."""
        part = loading.find_part(out, self.folder)
        state_file = part.parent / STATE if part else None
        if part is None or state_file is None or not state_file.is_file():
            raise XRayError(
                "bad_checkpoint",
                f"There is no run to resume in {out}.",
                "Train without --resume; `start_from` in the configuration takes weights alone.",
            )
        try:
            state = torch.load(state_file, map_location="cpu", weights_only=True)
            weights, _ = loading.read_state(part, loading.WEIGHTS)
            named = {name.removeprefix(self._prefix): value for name, value in weights.items()}
            self.model.load_state_dict(named)
            self.optimizer.load_state_dict(state["optimizer"])
            self.steps, self.seconds = int(state["steps"]), float(state["seconds"])
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
            raise XRayError(
                "bad_checkpoint",
                f"The run in {part.parent} cannot be resumed ({error}).",
                "Give the configuration it was trained with, or train without --resume.",
            ) from error


def train(
    config: TrainingConfig,
    data: Path,
    out: Path,
    *,
    minutes: float | None = None,
    resume: bool = False,
    device: str = "cpu",
    progress: ProgressCallback = ignore_progress,
) -> Trainer:
    """Train until `config.steps`, for `minutes` at most, or until `progress` cancels.

    However it ends, a checkpoint is left in `out`. Raises XRayError.
    """
    if not resume and any(out.glob(f"checkpoint-*/{STATE}")):
        raise XRayError(
            "bad_settings",
            f"{out} holds a training run already.",
            "Go on with it by --resume, or choose another folder.",
        )
    trainer = Trainer(config, device)
    if resume:
        trainer.resume(out)
    part = trainer.part
    views = Views(
        list_views(data, hold_out=config.hold_out),
        layers=part.layers,
        size=part.size,
        near=config.near,
        far=config.far,
        min_iou=config.min_iou,
    )
    out.mkdir(parents=True, exist_ok=True)
    loader = DataLoader(
        views,
        batch_size=config.batch,
        sampler=Shuffled(len(views), config.seed, trainer.samples),
        num_workers=config.workers,
        drop_last=False,
    )
    began, before, saved = time.monotonic(), trainer.seconds, trainer.steps
    recent: list[float] = []
    try:
        for batch in loader:
            if trainer.steps >= config.steps:
                break
            recent.append(trainer.step(batch))
            elapsed = time.monotonic() - began
            trainer.seconds = before + elapsed
            if trainer.steps % LOG_STEPS == 0 or trainer.steps == config.steps:
                _report(trainer, recent, out, progress)
                recent = []
            if minutes is not None and elapsed >= minutes * 60:
                break
            if trainer.steps - saved >= config.checkpoint_steps:
                trainer.save(out)
                saved = trainer.steps
    except (Cancelled, KeyboardInterrupt):
        log.info("cancelled after %d steps", trainer.steps)
        raise
    finally:
        trainer.save(out)
    return trainer


def _report(trainer: Trainer, recent: list[float], out: Path, progress: ProgressCallback) -> None:
    line = {
        "steps": trainer.steps,
        "seconds": round(trainer.seconds, 1),
        "loss": round(sum(recent) / len(recent), 6),
    }
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    text = f"step {trainer.steps}, loss {line['loss']:.4f}"
    progress(Progress("train", trainer.steps, trainer.config.steps, text))


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


@contextmanager
def _whole_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final` that takes its place at the end."""
    temporary = final.with_name(f".{final.name}-{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if final.exists():
            shutil.rmtree(final)
        temporary.replace(final)
    except (OSError, SafetensorError, RuntimeError) as error:
        # Torch's writer says no more than that it failed; safetensors says why in words.
        words = ("No space left", "PytorchStreamWriter failed")
        if getattr(error, "errno", 0) != errno.ENOSPC and not any(w in str(error) for w in words):
            raise
        raise XRayError(
            "no_space",
            f"The disk of {final.parent} is full; {final.name} was not written.",
            "Free some space and go on with --resume: the last whole checkpoint is kept.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
