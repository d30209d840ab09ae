"""A dataset of X-Rays on disk: what belongs to it, what is refused, and how it is published."""
