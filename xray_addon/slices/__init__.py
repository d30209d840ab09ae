"""Slices: what an object looks like cut into slabs, and signed distances to it."""
