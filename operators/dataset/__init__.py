"""From objects to X-Rays and datasets."""
