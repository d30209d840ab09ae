"""Mesh files, packed meshes and work on meshes."""
