"""Settings check themselves and travel as plain data."""

from __future__ import annotations

import json

import pytest

from xray_addon import CaptureSettings, GenerateSettings, XRayError


@pytest.mark.parametrize("settings", [CaptureSettings(), GenerateSettings(steps=4, seed=7)])
def test_plain_data_round_trips(settings):
    data = json.loads(json.dumps(settings.to_dict()))
    assert type(settings).from_dict(data) == settings


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"steps": 0}, "steps must lie between 1 and 1000"),
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
