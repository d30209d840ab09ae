"""Weights files that are damaged, of another kind, or dangerous."""

from __future__ import annotations

import os
import random

import pytest
import torch

from runtime.torch_helpers.tensors import read_tensors
from xray_addon.errors import XRayError

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")


def refused(path) -> XRayError:
    with pytest.raises(XRayError) as caught:
        read_tensors(path)
    assert caught.value.remedy
    return caught.value


def test_both_formats_of_torch_are_read(tmp_path):
    for zipped in (True, False):
        torch.save(
            {"a": torch.arange(3)}, tmp_path / "w.bin", _use_new_zipfile_serialization=zipped
        )
        assert torch.equal(read_tensors(tmp_path / "w.bin")["a"], torch.arange(3))


def test_a_web_page_in_place_of_weights_is_not_taken_for_an_attack(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"<!DOCTYPE html><html>gone</html>")
    error = refused(tmp_path / "w.bin")
    assert error.code == "bad_weights"
    assert "contains no tensors" in error.message
    assert "weights_only" not in str(error)  # torch's advice is to trust the file


class Attack:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_told_from_damage(tmp_path, zipped):
    torch.save({"a": Attack()}, tmp_path / "w.bin", _use_new_zipfile_serialization=zipped)
    assert refused(tmp_path / "w.bin").code == "unsafe_weights"


@pytest.mark.parametrize("zipped", [True, False])
def test_however_a_file_is_damaged_it_is_told(tmp_path, zipped):
    path = tmp_path / "w.bin"
    torch.save({"a": torch.zeros(100)}, path, _use_new_zipfile_serialization=zipped)
    whole, draw = path.read_bytes(), random.Random(0)
    codes = []
    for _ in range(200):
        content = bytearray(whole[: draw.randrange(1, len(whole))])
        for _ in range(draw.randrange(4)):
            content[draw.randrange(min(len(content), 600))] = draw.randrange(256)
        path.write_bytes(content)
        try:
            read_tensors(path)
        except XRayError as error:
            codes.append(error.code)
    assert len(codes) > 190
    assert set(codes) <= {"bad_weights", "unsafe_weights"}


def test_short_memory_is_not_taken_for_damage(tmp_path, monkeypatch):
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.bin")

    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(RuntimeError, match="allocate"):
        read_tensors(tmp_path / "w.bin")
