"""Mesh files, packed meshes and mesh processing."""
