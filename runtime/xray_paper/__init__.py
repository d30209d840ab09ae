"""X-Ray as in its paper: a spatio-temporal diffusion model over layers, and an upsampler.

"X-Ray: A Sequential 3D Representation For Generation" (Hu et al., NeurIPS 2024, arXiv
2404.14329) treats the layers of an X-Ray as the frames of a video. A U-Net with 46 M parameters
denoises 8 layers of 64 x 64, conditioned by the image encoder and VAE of Stable Video Diffusion.
A decoder with 169 M parameters enlarges them to 256 x 256, conditioned by SDXL's VAE.
"""
