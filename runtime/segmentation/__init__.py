"""The small network that separates an object from its background, and its training."""
