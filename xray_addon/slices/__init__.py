"""Slices: pictures of an object cut into slabs, and signed distances to it."""
