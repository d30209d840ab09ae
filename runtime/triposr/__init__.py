"""TripoSR: one image to a triplane, to a density field, to a mesh (arXiv 2403.02151)."""
