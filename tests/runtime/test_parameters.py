"""Parameters before training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runtime.torch_helpers.parameters import normal_parameter

ROOT = Path(__file__).parents[2]


def test_values_are_drawn_by_torchs_seed():
    torch.manual_seed(3)
    first = normal_parameter(50, 60, std=0.1)
    torch.manual_seed(3)
    assert torch.equal(first, normal_parameter(50, 60, std=0.1))
    assert first.requires_grad
    assert float(first.detach().std()) == pytest.approx(0.1, rel=0.05)


def test_the_shapes_of_a_network_need_no_compiler():
    code = (
        "import sys, torch; "
        "from runtime.renderdiffusion.networks import RenderDiffusion, RenderDiffusionConfig; "
        "from runtime.triposr.model import TripoSR, TripoSRConfig; "
        "from runtime.xray.networks import make_network; "
        "from runtime.xray.networks.base import NetworkConfig; "
        "context = torch.device('meta'); "
        "context.__enter__(); "
        "RenderDiffusion(RenderDiffusionConfig()); "
        "TripoSR(TripoSRConfig()); "
        "make_network(NetworkConfig()); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
