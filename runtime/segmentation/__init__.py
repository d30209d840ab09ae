"""The small network that tells an object from its background, and its training."""
