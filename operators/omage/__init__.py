"""Omages in Blender: objects to images, images to objects, and materials from the network."""
