"""RenderDiffusion: a 2D diffusion model whose bottleneck is a rendered 3D field (arXiv 2211.09869).

Its authors published neither code nor weights; this is a re-implementation from the paper's text
with a format and weights of its own.
"""
