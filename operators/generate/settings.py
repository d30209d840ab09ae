"""Converts generation settings between Blender's properties and the systems' dataclasses."""

from __future__ import annotations

from dataclasses import fields
from inspect import get_annotations
from typing import Any, TypeVar

from ...xray_addon.settings.generate import GenerateSettings
from ...xray_addon.settings.result import ResultSettings
from ...xray_addon.systems import SYSTEMS
from ...xray_addon.systems.arguments import common_field, own_settings
from ...xray_addon.systems.system import Need, System
from ..properties import (
    SHARED,
    chosen_system,
    copy_settings,
    preferences,
    set_setting,
    setting_properties,
    setting_value,
    system_settings,
)
from ..runtime.service import missing_by_hand, missing_weights

_T = TypeVar("_T")

# Names of settings in older files.
_RENAMED = {"freedom": "variation"}
_RENAMED_VALUES = {("batch_order", "mended"): "fixed"}


def with_systems(target: type[_T]) -> type[_T]:
    """Class decorator: give an operator the settings of all systems.

    A system's own settings are not remembered, because the next call may use another system.
    """
    properties = setting_properties(fields(GenerateSettings))
    for owners in own_settings().values():
        properties |= setting_properties([common_field(owners)], options={"SKIP_SAVE"})
    target.__annotations__ = {**properties, **get_annotations(target)}
    return target


def operator_settings(operator: Any) -> GenerateSettings:
    """The settings of the system in the operator's property `generator`.

    Raises XRayError `bad_settings` if a setting of another system was given.
    """
    system = SYSTEMS[operator.generator]
    values = {item.name: setting_value(item, operator) for item in fields(GenerateSettings)}
    items = {item.name: item for item in system.settings.own_fields()}
    # If several systems have a setting of the same name, the operator has one property, with the
    # default of the first.
    for name in own_settings():
        if not operator.properties.is_property_set(name):
            continue
        if name not in items:
            raise GenerateSettings.foreign(name, system.settings)
        values[name] = setting_value(items[name], operator)
    return GenerateSettings(**values)


def panel_settings(scene: Any) -> GenerateSettings:
    """The chosen system's settings from the panel settings `scene` and the preferences."""
    system, machine = chosen_system(), preferences()
    own = system_settings(scene, system)
    values = {item.name: setting_value(item, scene) for item in SHARED}
    names = [*(item.name for item in system.settings.own_fields()), "checkpoint"]
    items = system.settings.__dataclass_fields__
    values |= {name: setting_value(items[name], own) for name in names}
    device = machine.device if machine else "auto"
    return GenerateSettings(**values, generator=system.name, device=device)


def panel_values(scene: Any, system: System | None = None) -> tuple[Any, ...]:
    """All values that a generation with the settings of `scene` depends on, for comparison.

    system : by default the chosen one.
    """
    panel, system = scene.xray.generate, system or chosen_system()
    own, machine = system_settings(panel, system), preferences()
    names = [*(item.name for item in system.settings.own_fields()), "checkpoint"]
    images = [(image.name, image.filepath) if image else "" for image in (panel.image, panel.mask)]
    return (
        system.name,
        machine.device if machine else "",
        *images,
        own.category if system.categories else "",
        *(getattr(panel, item.name) for item in SHARED),
        *(getattr(own, name) for name in names),
        *missing_weights(scene),
        *missing_by_hand(scene),
    )


def set_panel(scene: Any, settings: GenerateSettings) -> None:
    """Set the system in the preferences, and its settings in the panel settings `scene`."""
    system, machine = SYSTEMS[settings.generator], preferences()
    if machine is not None:
        machine.generator = system.name
    own = system_settings(scene, system)
    for items, target in ((SHARED, scene), (system.settings.own_fields(), own)):
        for item in items:
            set_setting(item, target, getattr(settings, item.name))
    own.checkpoint = settings.checkpoint


def set_from_panel(operator: Any, scene: Any) -> None:
    """Copy the inputs and settings of the panel `scene`, and the preferences, to an operator."""
    system, machine = chosen_system(), preferences()
    own = system_settings(scene, system)
    copy_settings(SHARED, scene, operator)
    copy_settings(system.settings.own_fields(), own, operator)
    operator.generator, operator.checkpoint = system.name, own.checkpoint
    if machine is not None:
        operator.device = machine.device
    for name in ("image", "mask"):
        shown = getattr(scene, name) if getattr(system, name) is not Need.NONE else None
        setattr(operator, name, shown.name if shown else "")
    operator.category = own.category if system.categories else ""
    copy_settings(fields(ResultSettings), scene, operator)
    for name in ("variations", "keep_camera", "keep_layers"):
        setattr(operator, name, getattr(scene, name))


def settings_of_older(data: dict[str, Any]) -> GenerateSettings:
    """Read the settings stored in an object, also by versions without per-system settings.

    Settings of other systems are dropped. Raises XRayError `bad_settings`.
    """
    data = {
        _RENAMED.get(name, name): _RENAMED_VALUES.get((name, value), value)
        for name, value in data.items()
    }
    system: System | None = SYSTEMS.get(data.get("generator", ""))
    others = set(own_settings()) - set(system.settings.names() if system else ())
    return GenerateSettings.from_dict({k: v for k, v in data.items() if k not in others})
