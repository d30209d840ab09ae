"""How a dataset is made of many objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .base import Settings, setting
from .visibility import visible_in_setting

# Camera rules that place the cameras. Poses and the scene's camera have fixed positions.
_PLACED = ("hemisphere", "sphere", "turntable", "ring")
_LIT = ("cycles", "eevee", "cast")
# Settings that Slice3D's rule for views replaces.
_BY_SLICES = (
    *("normalize", "cameras", "poses", "views", "elevation", "distance", "fov", "jitter"),
    "seed",
)


@dataclass
class DatasetSettings(Settings):
    """How a dataset is made of many objects. Lengths are in units of the object's longest side.

    The field metadata `part` marks settings that do not affect an item's bytes: "run" affects only
    how the run works, "gate" only whether an item is kept.
    """

    views: int = setting(
        4, "Number of camera views per object", min=1, max=10_000, only=("cameras", _PLACED)
    )
    layers: int = setting(16, "Surfaces kept along each ray, nearest first", min=1, max=256)
    size: int = setting(
        256, "Width and height of the X-Ray in pixels", min=8, max=8192, unit="pixels"
    )
    seed: int = setting(
        0, "Seed of cameras, lights and rendering, combined with the uid", min=0, max=2**31 - 1
    )
    normalize: str = setting(
        "unit",
        "Where the object is moved to, and how it is scaled",
        choices={
            "unit": "The bounding box's centre to the origin, its longest side to 1, as published",
            "none": "The object stays where it is, in its size",
        },
    )
    visible_in: str = visible_in_setting()
    pose: str = setting(
        "frame",
        "Pose of animated objects",
        choices={"frame": "A frame of the animation", "rest": "The rest pose of armatures"},
    )
    frame: int = setting(
        1,
        "Frame of the animation; objects of the file open in Blender are captured as shown",
        min=-1_048_574,
        max=1_048_574,
    )

    cameras: str = setting(
        "hemisphere",
        "Where the cameras stand",
        choices={
            "hemisphere": "Random, at 0 to 45 degrees above the horizon, as published",
            "sphere": "Random, on all sides",
            "turntable": "Evenly spaced, at one elevation",
            "ring": "Evenly spaced, by turns above and below",
            "poses": "Read from a transforms.json",
            "scene": "The file's own camera",
        },
    )
    poses: str = setting(
        "", "The transforms.json for 'poses'", only=("cameras", ("poses",)), path=True
    )
    elevation: float = setting(
        20.0,
        "Elevation in degrees for turntable and ring",
        min=-89.0,
        max=89.0,
        unit="degrees",
        only=("cameras", ("turntable", "ring")),
    )
    distance: float = setting(
        1.2,
        "Distance from the camera to the object's centre",
        min=0.01,
        max=1e6,
        only=("cameras", _PLACED),
    )
    fov: float = setting(
        49.13434207760448,
        "Horizontal field of view in degrees",
        min=0.1,
        max=179.0,
        unit="degrees",
        label="Field of View",
        only=("cameras", _PLACED),
    )
    jitter: float = setting(
        0.0,
        "Random shift of each camera, as a share of its distance",
        min=0.0,
        max=0.9,
        unit="factor",
        only=("cameras", _PLACED),
    )

    image: str = setting(
        "cycles",
        "Renderer of the reference images",
        choices={
            "cycles": "Cycles, as published",
            "eevee": "EEVEE; needs a display or a GPU",
            "workbench": "Workbench: flat colours in its own light; needs a display or a GPU",
            "cast": "The built-in shader, much faster than the others",
            "none": "No images",
        },
        labels={"eevee": "EEVEE", "cast": "Built-in"},
    )
    image_size: int = setting(
        512,
        "Width and height of the images in pixels",
        min=8,
        max=8192,
        unit="pixels",
        only=("image", (*_LIT, "workbench")),
    )
    samples: int = setting(
        32, "Render samples per pixel", min=1, max=65_536, only=("image", ("cycles", "eevee"))
    )
    denoise: bool = setting(True, "Denoise Cycles renders", only=("image", ("cycles",)))
    device: str = setting(
        "auto",
        "Render device of Cycles",
        choices={
            "auto": "The GPU if one is enabled in Blender's preferences, otherwise the CPU",
            "cpu": "The processor",
            "gpu": "The GPU that is enabled in Blender's preferences",
        },
        labels={"cpu": "CPU", "gpu": "GPU"},
        only=("image", ("cycles",)),
        part="run",
    )
    lights: str = setting(
        "even",
        "What lights the objects; Workbench always uses its own light",
        choices={
            "even": "Soft light from all sides, as in the published images",
            "studio": "Soft light and a sun over the viewer's shoulder",
            "random": "Another light for each view",
            "hdri": "An environment image",
            "scene": "The file's own lights",
        },
        labels={"hdri": "HDRI"},
        only=("image", _LIT),
    )
    hdri: str = setting(
        "",
        "The environment image for 'hdri'",
        only=("lights", ("hdri",)),
        path=True,
        label="HDRI",
    )

    materials: str = setting(
        "bake",
        "What happens to materials that are more than textures, colour attributes and constants",
        choices={
            "bake": "Bake their colours into textures",
            "skip": "Skip the object and report it",
        },
    )
    bare_geometry: bool = setting(
        False,
        "Read glTF files that require an extension which Blender lacks: their shape alone, without "
        "materials",
    )
    bake_size: int = setting(
        1024,
        "Width and height of baked textures in pixels",
        min=16,
        max=8192,
        unit="pixels",
        only=("materials", ("bake",)),
    )
    alpha_clip: bool = setting(False, "Let rays through where a material's alpha clips")
    ids: bool = setting(False, "Also write each hit's object, material and face", label="IDs")
    slices: bool = setting(
        False,
        "Also write Slice3D's training data: images, twelve slices a view and signed distances in "
        "its layout. Objects and cameras are placed by its rule: evenly around, 10 degrees below "
        "to 40 above, the box's diagonal 0.75 to 1.1 (12 views are usual)",
    )
    slice_alignment: str = setting(
        "camera",
        "Axes that slices are cut along",
        choices={"camera": "The axes of the camera", "axis": "The axes of the world"},
        labels={"axis": "World"},
        only=("slices", (True,)),
    )
    slice_shading: str = setting(
        "cast",
        "What draws the slices",
        choices={"cast": "The built-in shader, fast", "cycles": "Cycles as published, far slower"},
        labels={"cast": "Built-in"},
        only=("slices", (True,)),
    )

    omage: str = setting(
        "",
        "Also write each object as an omage of these resolutions, such as 1024,64; empty for none",
    )

    near: float = setting(
        0.6,
        "Nearest depth that training uses; with another value all items are made again",
        min=0.0,
        max=1e6,
    )
    far: float = setting(
        1.8,
        "Farthest depth that training uses; with another value all items are made again",
        min=0.0,
        max=1e6,
    )
    min_iou: float = setting(
        0.9,
        "Reject objects with a view whose silhouette IoU (image against first layer) is lower; "
        "0 keeps all",
        min=0.0,
        max=1.0,
        unit="factor",
        on=0.9,
        label="Min IoU",
        part="gate",
    )
    min_hits: int = setting(
        1,
        "Reject objects with a view that has fewer hits; 0 keeps all",
        min=0,
        max=2**31 - 1,
        on=1,
        part="gate",
    )
    max_dropped: float = setting(
        1.0,
        "Reject objects that lose a larger share of hits behind the last layer",
        min=0,
        max=1,
        unit="factor",
        part="gate",
    )
    max_outside: float = setting(
        1.0,
        "Reject objects with a larger share of hits outside near and far",
        min=0,
        max=1,
        unit="factor",
        part="gate",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cameras == "poses" and not self.poses:
            raise self._bad("poses", "is empty: it must be the path of a transforms.json")
        if self.lights == "hdri" and not self.hdri:
            raise self._bad("hdri", "is empty: it must be the path of an image")
        if self.lights in ("hdri", "scene") and self.image == "cast":
            raise self._bad("lights", f"cannot be {self.lights!r} with the built-in shader")
        if self.slices and self.image == "none":
            raise self._bad("image", "cannot be 'none': slices come with the image they explain")
        if self.omage and not all(8 <= size <= 8192 for size in self.omage_resolutions):
            raise self._bad("omage", f"must be resolutions from 8 to 8192, got {self.omage!r}")
        if not self.near < self.far:
            raise self._bad("far", f"must be more than near, got {self.near:g} and {self.far:g}")

    @property
    def omage_resolutions(self) -> tuple[int, ...]:
        """The resolutions in `omage`, the largest first; 0 for invalid numbers."""
        parts = {part.strip() for part in self.omage.split(",")} if self.omage else set()
        sizes = {int(part) if part.isdecimal() else 0 for part in parts}
        return tuple(sorted(sizes, reverse=True))

    @classmethod
    def counts(cls, name: str, values: Any) -> bool:
        """Whether the setting `name` is used; the seed is used if anything is random."""
        if values.slices and name in _BY_SLICES:
            return name in ("views", "seed")
        if name == "omage":
            return bool(values.omage)
        if name == "samples" and values.slices and values.slice_shading == "cycles":
            return True
        if name == "seed":
            return (
                values.cameras in ("hemisphere", "sphere")
                or (cls.counts("jitter", values) and values.jitter > 0)
                or values.image == "cycles"
                or (cls.counts("lights", values) and values.lights == "random")
            )
        return super().counts(name, values)
