"""Installs, starts and uses the model runtime."""
