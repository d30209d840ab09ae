"""Generates meshes from images."""
