"""Slice3D: one image to twelve slices, and slices to a signed distance field."""
