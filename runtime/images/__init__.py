"""Reads image files and cuts out the object."""
