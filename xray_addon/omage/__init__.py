"""Omages: an object as one image of positions, normals and materials over its UV charts.

"An Object is Worth 64x64 Pixels" (Yan et al., 3DV 2025, arXiv 2408.03178).
"""

from .omage import Omage

__all__ = ["Omage"]
