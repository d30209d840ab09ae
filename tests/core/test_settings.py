"""Settings check themselves and travel as plain data."""

from __future__ import annotations

import json

import pytest

from xray_addon import CaptureSettings, GenerateSettings, XRayError
from xray_addon.settings.dataset import DatasetSettings


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
        ({"cameras": "poses"}, "poses names no transforms.json"),
        ({"lights": "hdri"}, "hdri names no image"),
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
