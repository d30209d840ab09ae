"""Makes X-Rays and datasets of objects."""
