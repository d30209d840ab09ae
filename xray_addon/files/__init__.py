"""File formats, and writing files atomically."""
