"""Omages: generates a category's geometry image, then its material (arXiv 2408.03178)."""
