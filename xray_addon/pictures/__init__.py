"""Draws pictures of meshes and X-Rays with NumPy only."""
