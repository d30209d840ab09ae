"""Settings check themselves and travel as plain data."""

from __future__ import annotations

import copy
import dataclasses
import json
from types import SimpleNamespace

import pytest

from xray_addon import CaptureSettings, GenerateSettings, XRayError
from xray_addon.settings.dataset import DatasetSettings
from xray_addon.systems.triposr import TripoSRSettings
from xray_addon.systems.xray import XRaySettings


@pytest.mark.parametrize(
    "settings", [CaptureSettings(), GenerateSettings(steps=4, seed=7), DatasetSettings(ids=True)]
)
def test_plain_data_round_trips(settings):
    data = json.loads(json.dumps(settings.to_dict()))
    assert type(settings).from_dict(data) == settings


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"steps": -1}, "steps must lie between 0 and 1000"),
        ({"seed": "7"}, "seed must be int"),
        ({"seed": True}, "seed must be int"),
        ({"device": "tpu"}, "device must be one of"),
        ({"colour": 1}, "colour is not a setting"),
    ],
)
def test_bad_settings_are_refused_by_name(data, message):
    with pytest.raises(XRayError, match=message) as caught:
        GenerateSettings.from_dict(data)
    assert caught.value.code == "bad_settings"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cameras": "poses"}, "poses is empty"),
        ({"lights": "hdri"}, "hdri is empty"),
        ({"lights": "scene", "image": "cast"}, "built-in shader"),
        ({"near": 2.0}, "far must be more than near"),
    ],
)
def test_settings_that_do_not_go_together(values, message):
    with pytest.raises(XRayError, match=message):
        DatasetSettings(**values)


def test_options_for_what_is_not_default():
    settings = DatasetSettings(views=2, ids=True, denoise=False, hdri="a b.hdr", elevation=-5.0)
    assert settings.to_arguments() == [
        "--views=2",
        "--elevation=-5.0",
        "--no-denoise",
        "--hdri=a b.hdr",
        "--ids",
    ]


@pytest.mark.parametrize(
    ("values", "name", "used"),
    [
        ({}, "layers", True),
        ({}, "elevation", False),
        ({"cameras": "ring"}, "elevation", True),
        ({"image": "cast"}, "denoise", False),
        # Where no image is lit, the one that would light it does not count either.
        ({"lights": "hdri", "hdri": "a.hdr", "image": "workbench"}, "hdri", False),
        ({"cameras": "ring", "image": "cast"}, "seed", False),
        ({"cameras": "ring", "image": "cast", "jitter": 0.1}, "seed", True),
    ],
)
def test_a_setting_that_nothing_reads_is_not_used(values, name, used):
    settings = DatasetSettings(**values)
    assert settings.is_used(name) is used
    assert DatasetSettings.counts(name, SimpleNamespace(**settings.to_dict())) is used


def test_the_settings_are_those_of_the_system():
    assert type(GenerateSettings()) is XRaySettings
    settings = GenerateSettings(generator="triposr", grid_resolution=64)
    assert type(settings) is TripoSRSettings
    assert type(GenerateSettings.from_dict(settings.to_dict())) is TripoSRSettings
    assert TripoSRSettings().generator == "triposr"
    assert copy.copy(settings) == dataclasses.replace(settings) == settings


@pytest.mark.parametrize(
    "make", [GenerateSettings.from_dict, lambda data: GenerateSettings(**data)]
)
def test_a_setting_of_another_system_is_refused_with_the_name_of_its_owner(make):
    with pytest.raises(XRayError) as caught:
        make({"generator": "xray", "object_size": 0.5})
    assert caught.value.code == "bad_settings"
    assert "object_size is a setting of Slice3D, not of X-Ray" in caught.value.message
    with pytest.raises(
        XRayError, match=r"steps is a setting of X-Ray and .* and X-Ray \(paper scale\)"
    ):
        make({"generator": "triposr", "steps": 4})
    with pytest.raises(XRayError, match="no generator called 'magic'") as caught:
        make({"generator": "magic"})
    assert caught.value.code == "unknown_generator"


def test_options_name_the_system():
    assert TripoSRSettings(texture_size=512).to_arguments() == [
        "--generator=triposr",
        "--texture-size=512",
    ]
    assert XRaySettings(seed=3).to_arguments() == ["--seed=3"]
