"""Omages in Blender: converts objects to images and back, and makes materials with the network."""
