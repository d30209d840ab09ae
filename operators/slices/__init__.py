"""Makes slices of objects and X-Rays, and meshes from slices."""
