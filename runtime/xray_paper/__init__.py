"""X-Ray as its paper has it: a spatio-temporal diffusion model over layers, and its upsampler.

"X-Ray: A Sequential 3D Representation For Generation" (Hu et al., NeurIPS 2024, arXiv
2404.14329): the layers of an X-Ray are the frames of a video. A U-Net of 46 M parameters denoises
8 layers of 64 x 64, conditioned by the image encoder and VAE of Stable Video Diffusion; a decoder
of 169 M enlarges them to 256 x 256 with the help of SDXL's VAE.
"""
