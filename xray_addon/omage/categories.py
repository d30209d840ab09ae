"""The 63 categories of Amazon Berkeley Objects that the published omage networks know."""

from __future__ import annotations

# In the order of their numbers.
CATEGORIES = (
    "air conditioner", "bag", "battery charger", "bed", "bench", "birdhouse", "book or journal",
    "bottle rack", "bowl", "cabinet", "candle holder", "cart", "chair", "clock", "clothes hook",
    "clothes rack", "container or basket", "cooking pan", "cup", "dining set", "dresser",
    "drink coaster", "easel", "electrical cable", "exercise equipment", "exercise mat",
    "exercise weight", "fan", "figurine or sculpture", "file folder", "fire pit", "floor mat",
    "heater", "holder", "instrument stand", "jar", "ladder", "lamp", "laptop stand", "mattress",
    "mirror", "mount", "mouse pad", "office appliance", "ottoman", "picture frame or painting",
    "pillow", "plant or flower pot", "rug", "shelf", "shredder", "soap dispenser", "sofa",
    "speaker stand", "sports equipment", "step stool", "table", "tent", "trash can", "tray",
    "vanity", "vase", "wagon",
)  # fmt: skip
