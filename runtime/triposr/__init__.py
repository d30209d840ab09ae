"""TripoSR: from one image to a triplane, a density field and a mesh (arXiv 2403.02151)."""
