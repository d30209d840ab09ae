"""One dataclass per job: the single source for panel, operator, command line and runtime.

Each field carries its help text and limits in its metadata, which the panel's properties and
the command line's arguments are made from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from ..errors import XRayError

# What the runtime's registry holds; Blender's process never imports the runtime to ask it.
GENERATORS = ("xray", "triposr", "xray-paper")


def _setting(default: Any, help: str, **limits: Any) -> Any:
    return field(default=default, metadata={"help": help, **limits})


class Settings:
    """What the settings dataclasses share: checked values and plain data in and out."""

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]
            value, meta = getattr(self, item.name), item.metadata
            kind = type(item.default)
            if kind is float and type(value) is int:
                value = float(value)
                setattr(self, item.name, value)
            if type(value) is not kind:
                raise self._bad(item.name, f"must be {kind.__name__}, got {value!r}")
            if "choices" in meta and value not in meta["choices"]:
                raise self._bad(item.name, f"must be one of {meta['choices']}, got {value!r}")
            if "min" in meta and not meta["min"] <= value <= meta["max"]:
                raise self._bad(
                    item.name, f"must lie between {meta['min']} and {meta['max']}, got {value}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)  # type: ignore[call-overload]

    def to_arguments(self) -> list[str]:
        """The command line's options that give these settings, without those at their default."""
        options = []
        for item in fields(self):  # type: ignore[arg-type]
            value, name = getattr(self, item.name), item.name.replace("_", "-")
            if value == item.default:
                continue
            if isinstance(value, bool):
                options.append(f"--{name}" if value else f"--no-{name}")
            else:
                options.append(f"--{name}={value}")
        return options

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; raises XRayError `bad_settings` for names it does not know."""
        known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(data) - known)
        if unknown:
            raise cls._bad(unknown[0], "is not a setting")
        return cls(**data)

    @classmethod
    def _bad(cls, name: str, reason: str) -> XRayError:
        return XRayError("bad_settings", f"{name} {reason}.", "Correct the setting and try again.")


@dataclass
class CaptureSettings(Settings):
    """How meshes become X-Rays."""

    views: int = _setting(4, "Number of camera views an object", min=1, max=10_000)
    layers: int = _setting(16, "Surfaces kept along each ray, nearest first", min=1, max=256)
    size: int = _setting(256, "Width and height of the X-Ray in pixels", min=8, max=8192)
    seed: int = _setting(0, "Seed of the camera positions", min=0, max=2**31 - 1)
    camera: str = _setting(
        "sampled",
        "Where the object is seen from",
        choices=("sampled", "scene"),
    )
    combine: bool = _setting(False, "Capture the selected objects as one instead of each by itself")


# The rules for cameras that place them; poses and the scene's camera are where they are.
_PLACED = ("hemisphere", "sphere", "turntable", "ring")
_LIT = ("cycles", "eevee", "cast")


@dataclass
class DatasetSettings(Settings):
    """How a dataset is made of many objects. Lengths are in units of the object's longest side.

    In the metadata of a field, `only` says for which values of another setting it counts, and
    `part` what it decides where that is not an item's bytes: the "run", or what is kept, a "gate".
    """

    views: int = _setting(
        4, "Number of camera views an object", min=1, max=10_000, only=("cameras", _PLACED)
    )
    layers: int = _setting(16, "Surfaces kept along each ray, nearest first", min=1, max=256)
    size: int = _setting(256, "Width and height of the X-Ray in pixels", min=8, max=8192)
    seed: int = _setting(
        0, "Seed of cameras, lights and rendering, together with the uid", min=0, max=2**31 - 1
    )
    normalize: str = _setting(
        "unit",
        "'unit' moves the bounding box's centre to the origin and scales its longest side to 1, "
        "as published; 'none' leaves the object as it is",
        choices=("unit", "none"),
    )
    pose: str = _setting(
        "frame", "Armatures at 'rest', or everything at a 'frame'", choices=("frame", "rest")
    )
    frame: int = _setting(
        1,
        "Frame of the animation; in Blender objects of the open file are captured as shown",
        min=-1_048_574,
        max=1_048_574,
    )

    cameras: str = _setting(
        "hemisphere",
        "'hemisphere' is the published rule: random, 0 to 45 degrees above; 'sphere' is random all "
        "around; 'turntable' evenly around at one elevation; 'ring' evenly around, above and "
        "below in turn; 'poses' from a transforms.json; 'scene' is the file's own camera",
        choices=("hemisphere", "sphere", "turntable", "ring", "poses", "scene"),
    )
    poses: str = _setting(
        "", "The transforms.json that 'poses' reads", only=("cameras", ("poses",))
    )
    elevation: float = _setting(
        20.0,
        "Degrees above for turntable and ring",
        min=-89.0,
        max=89.0,
        only=("cameras", ("turntable", "ring")),
    )
    distance: float = _setting(
        1.2, "From the camera to the object's centre", min=0.01, max=1e6, only=("cameras", _PLACED)
    )
    fov: float = _setting(
        49.13434207760448,
        "Horizontal field of view in degrees",
        min=0.1,
        max=179.0,
        only=("cameras", _PLACED),
    )
    jitter: float = _setting(
        0.0,
        "Random shift of each camera, as a share of its distance",
        min=0.0,
        max=0.9,
        only=("cameras", _PLACED),
    )

    image: str = _setting(
        "cycles",
        "What makes the reference images; 'cast' is the built-in shader, far faster",
        choices=("cycles", "eevee", "workbench", "cast", "none"),
    )
    image_size: int = _setting(
        512,
        "Width and height of the images in pixels",
        min=8,
        max=8192,
        only=("image", (*_LIT, "workbench")),
    )
    samples: int = _setting(
        32, "Render samples a pixel", min=1, max=65_536, only=("image", ("cycles", "eevee"))
    )
    denoise: bool = _setting(True, "Denoise what Cycles renders", only=("image", ("cycles",)))
    device: str = _setting(
        "auto",
        "What Cycles renders on; 'auto' is the GPU where Blender's preferences name one",
        choices=("auto", "cpu", "gpu"),
        only=("image", ("cycles",)),
        part="run",
    )
    lights: str = _setting(
        "even",
        "'even' is soft light from all sides, as in the published images; 'studio' adds a sun over "
        "the viewer's shoulder; 'random' is another for each view; 'hdri' an image; 'scene' what "
        "the file brings along. Workbench has its own",
        choices=("even", "studio", "random", "hdri", "scene"),
        only=("image", _LIT),
    )
    hdri: str = _setting(
        "", "The environment image that 'hdri' lights with", only=("lights", ("hdri",))
    )

    materials: str = _setting(
        "bake",
        "Materials that are more than textures, colour attributes and constants: 'bake' them, "
        "or 'skip' the object and say so",
        choices=("bake", "skip"),
    )
    bake_size: int = _setting(
        1024,
        "Width and height of baked textures in pixels",
        min=16,
        max=8192,
        only=("materials", ("bake",)),
    )
    alpha_clip: bool = _setting(False, "Let rays through where a material's alpha clips")
    ids: bool = _setting(False, "Also write each hit's object, material and face")

    near: float = _setting(0.6, "Nearest depth that training uses", min=0.0, max=1e6)
    far: float = _setting(1.8, "Farthest depth that training uses", min=0.0, max=1e6)
    min_iou: float = _setting(
        0.9,
        "Reject objects with a view where image and first layer agree less (intersection over "
        "union); 0 keeps all",
        min=0.0,
        max=1.0,
        part="gate",
    )
    min_hits: int = _setting(
        1,
        "Reject objects with a view of fewer hits; 0 keeps all",
        min=0,
        max=2**31 - 1,
        part="gate",
    )
    max_dropped: float = _setting(
        1.0,
        "Reject objects that lose a larger share of hits behind the last layer",
        min=0,
        max=1,
        part="gate",
    )
    max_outside: float = _setting(
        1.0,
        "Reject objects with a larger share of hits out of near and far",
        min=0,
        max=1,
        part="gate",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cameras == "poses" and not self.poses:
            raise self._bad("poses", "names no transforms.json")
        if self.lights == "hdri" and not self.hdri:
            raise self._bad("hdri", "names no image")
        if self.lights in ("hdri", "scene") and self.image == "cast":
            raise self._bad("lights", f"cannot be {self.lights!r} with the built-in shader")
        if not self.near < self.far:
            raise self._bad("far", f"must be more than near, got {self.near:g} and {self.far:g}")


def is_used(settings: Any, name: str) -> bool:
    """Whether the setting `name` counts, with the others as they are in `settings`.

    settings : `DatasetSettings`, or Blender's properties of the same names.
    """
    if name == "seed":
        return (
            settings.cameras in ("hemisphere", "sphere")
            or (is_used(settings, "jitter") and settings.jitter > 0)
            or settings.image == "cycles"
            or (is_used(settings, "lights") and settings.lights == "random")
        )
    only = DatasetSettings.__dataclass_fields__[name].metadata.get("only")
    return only is None or (is_used(settings, only[0]) and getattr(settings, only[0]) in only[1])


@dataclass
class GenerateSettings(Settings):
    """How one image becomes a mesh."""

    generator: str = _setting("xray", "Name of the generator")
    checkpoint: str = _setting(
        "",
        "Path of other weights, for TripoSR and xray-paper also a hub id; empty for X-Ray's own or "
        "TripoSR's published ones; xray-paper needs one",
    )
    steps: int = _setting(
        0,
        "Steps of the sampling; 0 takes the generator's own: 8 for xray (1 is one pass without "
        "sampling), 25 for xray-paper. TripoSR has only one pass",
        min=0,
        max=1000,
    )
    seed: int = _setting(
        0, "Seed of the sampling; the same seed gives the same mesh", min=0, max=2**31 - 1
    )
    freedom: float = _setting(
        0.4,
        "xray: how far what the image does not show may go from the likeliest; 0 makes all seeds "
        "alike, 1 starts from noise alone",
        min=0.0,
        max=1.0,
    )
    device: str = _setting("auto", "Where the model runs", choices=("auto", "cpu", "cuda", "mps"))
    remove_background: str = _setting(
        "auto",
        "How the object is cut out: by its alpha channel, by rembg, off a plain background or by "
        "the built-in network; 'auto' takes the first that serves",
        choices=("auto", "alpha", "rembg", "plain", "built-in"),
    )
    margin: float = _setting(
        0.0,
        "Moves the cut-out's edge: outwards above 0, inwards below, in percent of the image's "
        "longer side",
        min=-10.0,
        max=10.0,
    )
    mesh_resolution: int = _setting(
        256,
        "TripoSR: grid points along each side of the box that is meshed; fewer are taken where the "
        "mesh would have more than three million triangles",
        min=32,
        max=512,
    )
    density_threshold: float = _setting(
        25.0, "TripoSR: density of the field where the surface is", min=0.01, max=10_000.0
    )
    texture_size: int = _setting(
        0, "TripoSR: side of a baked texture in pixels; 0 keeps vertex colours", min=0, max=8192
    )
    batch_order: str = _setting(
        "mended",
        "xray-paper: 'published' repeats the mix-up of guided and unguided layers in diffusers "
        "0.25, which the published numbers have",
        choices=("mended", "published"),
    )


@dataclass
class ResultSettings(Settings):
    """What a generated mesh is made into. The default leaves it as the generator gives it."""

    topology: str = _setting(
        "triangles",
        "'quads' remeshes into even quads, closed, without the finest details",
        choices=("triangles", "quads"),
    )
    target_faces: int = _setting(
        0, "About how many faces; 0 for as many as there are", min=0, max=10_000_000
    )
    symmetry: str = _setting(
        "none",
        "Mirror across the middle of this axis: 'x' keeps the right half, 'y' the half that the "
        "image shows, 'z' the upper one",
        choices=("none", "x", "y", "z"),
    )
    height: float = _setting(0.0, "Height in metres; 0 leaves the size", min=0.0, max=1e6)
    color: str = _setting(
        "attribute",
        "Colours as an 'attribute' of the mesh, or as a 'texture' on a UV map",
        choices=("attribute", "texture"),
    )
    bake_size: int = _setting(
        1024,
        "Width and height of that texture in pixels",
        min=16,
        max=8192,
        only=("color", ("texture",)),
    )
    smooth_angle: float = _setting(
        0.0,
        "Edges sharper than this many degrees look sharp; 0 keeps the generator's own shading",
        min=0.0,
        max=180.0,
    )
    asset: bool = _setting(False, "Mark as an asset, with a preview")
