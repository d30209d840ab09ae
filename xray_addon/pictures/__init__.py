"""Pictures of meshes and of X-Rays, drawn with NumPy alone."""
