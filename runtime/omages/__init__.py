"""Omages: a category to an object's geometry image, and that to its material (arXiv 2408.03178)."""
