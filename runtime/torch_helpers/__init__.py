"""Small torch helpers shared by all systems."""
