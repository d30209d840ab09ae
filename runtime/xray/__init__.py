"""The X-Ray generator: one image to layers of depth, normal and colour, to a mesh."""
