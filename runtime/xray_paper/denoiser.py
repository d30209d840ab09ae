"""The published denoiser, with the same results but faster.

`Denoiser` changes a `UNetSpatioTemporalConditionModel` in three ways:

- The image's embedding is a single token. Attention to one token always returns that token's
  value (Vaswani et al. 2017, eq. 1, with one key), and it does not change between steps, so it is
  looked up.
- Convolutions over frames (3 x 1 x 1) run as 2D convolutions over an image whose rows are the
  frames, because libraries have better kernels for these.
- On CUDA a step is recorded once and replayed (CUDA graphs), because launching about two thousand
  small kernels would dominate the time.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xray_addon.systems.xray_paper import TIME_IDS

log = logging.getLogger(__name__)

BATCH_ORDERS = ("fixed", "published")
_WARM_UP = 3  # steps before recording a CUDA graph, for libraries to choose their kernels


class FrameConvolution(nn.Module):
    """A `Conv3d` of kernel (k, 1, 1) as a `Conv2d` over (frames, pixels)."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight = nn.Parameter(convolution.weight.detach().squeeze(-1), requires_grad=False)
        self.bias = convolution.bias
        self.padding = (int(convolution.padding[0]), 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) to (B, C', F, H, W)."""
        y = functional.conv2d(x.flatten(3), self.weight, self.bias, padding=self.padding)
        return y.unflatten(3, x.shape[3:])


def faster_frames(model: nn.Module) -> None:
    """Replace the convolutions over frames in `model`."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv3d) and tuple(child.kernel_size[1:]) == (1, 1):
                setattr(module, name, FrameConvolution(child))


class _Lookup:
    """Replaces the attention to the single token of each item in the batch."""

    def __init__(self, attention: Any) -> None:
        self._attention = attention
        self._values: Tensor | None = None  # (B, C)

    def set_tokens(self, tokens: Tensor) -> None:
        """tokens : (B, D), one per item."""
        values = self._attention.to_out[0](self._attention.to_v(tokens))
        self._values = _replaced(self._values, values)

    def rows(self, count: int, first: int, items: int, *, mixed: bool) -> Tensor:
        """(count, 1, C): the values for the rows of `items` batch items, starting at `first`.

        mixed : pair the rows (item, pixel) with tokens in the order (pixel, item).
        """
        assert self._values is not None
        each = count // items
        if mixed:
            spread = self._values.repeat(each, 1)
        else:
            spread = self._values.repeat_interleave(each, dim=0)
        return spread[first * each : first * each + count, None]


class Denoiser(nn.Module):
    """A `UNetSpatioTemporalConditionModel` for sampling. It modifies `unet` and takes ownership.

    batch_order : "fixed" gives every row the token of its own item. "published" reproduces a bug
        of diffusers before 0.26, whose temporal blocks mix up the items of a batch; the published
        results have it.
    """

    def __init__(self, unet: Any, batch_order: str = "fixed") -> None:
        super().__init__()
        self.unet = unet
        self.set_batch_order(batch_order)
        self.frames = int(unet.config.num_frames)
        self.size = int(unet.config.sample_size)
        self.channels = int(unet.config.out_channels)
        self._lookups: list[_Lookup] = []
        self._range = (0, 1)  # first item and number of items in the current pass
        for name, block in unet.named_modules():
            if hasattr(block, "attn2"):
                lookup = _Lookup(block.attn2)
                self._lookups.append(lookup)
                temporal = "temporal_transformer_blocks" in name
                block.attn2.set_processor(self._processor(lookup, temporal))
                block.norm2 = nn.Identity()  # the query is not used any more
        faster_frames(unet)
        self._image: Tensor | None = None  # (B, F, 4, S, S)
        self._ids = torch.empty(0)  # (B, 3)

    def set_batch_order(self, order: str) -> None:
        """Choose "fixed" or "published"."""
        if order not in BATCH_ORDERS:
            raise ValueError(f"batch_order must be one of {BATCH_ORDERS}, got {order!r}")
        self.batch_order = order
        self._graph: _Graph | None = None

    def _processor(self, lookup: _Lookup, temporal: bool) -> Any:
        def attend(_attention: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
            mixed = temporal and self.batch_order == "published"
            return lookup.rows(hidden_states.shape[0], *self._range, mixed=mixed)

        return attend

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.unet.conv_in.weight.dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.unet.conv_in.weight.device

    def condition(self, embedding: Tensor, image_latents: Tensor) -> None:
        """Set the conditioning of the following steps.

        embedding : (B, 1, D). image_latents : (B, 4, S, S).
        """
        tokens = embedding[:, 0].to(self.device, self.dtype)
        for lookup in self._lookups:
            lookup.set_tokens(tokens)
        image = image_latents.to(self.device, self.dtype)
        before = self._image
        self._image = _replaced(before, image[:, None].repeat(1, self.frames, 1, 1, 1))
        if self._image is not before:
            self._ids = image.new_tensor(TIME_IDS).repeat(len(image), 1)
            self._graph = None

    def forward(self, scaled: Tensor, time: Tensor) -> Tensor:
        """The network's output (B, F, 8, S, S) for scaled frames, all items at once.

        time : c_noise, 1/4 ln sigma.
        """
        assert self._image is not None
        if self.device.type != "cuda":
            return self._pass(scaled, time, 0)
        if self._graph is None:
            self._graph = _Graph(self, scaled, time)
        return self._graph(scaled, time)

    def one_by_one(self, scaled: Tensor, time: Tensor) -> Tensor:
        """As `forward`, but one item at a time to save memory."""
        self._graph = None
        return torch.cat([self._pass(scaled[i : i + 1], time, i) for i in range(len(scaled))])

    def _pass(self, scaled: Tensor, time: Tensor, first: int) -> Tensor:
        assert self._image is not None
        items = len(scaled)
        self._range = (first, items)
        image = self._image[first : first + items]
        x = torch.cat([scaled.to(self.dtype), image], dim=2)
        # The tokens are looked up; diffusers only reshapes these.
        unused = image.new_zeros(items, 1, 1)
        return self.unet(x, time, unused, self._ids[first : first + items]).sample.float()


def _replaced(old: Tensor | None, new: Tensor) -> Tensor:
    """`new`, copied into the memory of `old` if it fits, because a recorded step reads it there."""
    if old is None or old.shape != new.shape:
        return new
    return old.copy_(new)


class _Graph:
    """One recorded step. Replaying it takes a single launch."""

    def __init__(self, denoiser: Denoiser, scaled: Tensor, time: Tensor) -> None:
        self._scaled, self._time = scaled.clone(), time.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                denoiser._pass(self._scaled, self._time, 0)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._out = denoiser._pass(self._scaled, self._time, 0)

    def __call__(self, scaled: Tensor, time: Tensor) -> Tensor:
        self._scaled.copy_(scaled)
        self._time.copy_(time)
        self._graph.replay()
        return self._out
