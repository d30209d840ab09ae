"""From an image to a mesh."""
