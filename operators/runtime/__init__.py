"""The model runtime: installing it, starting it, talking to it."""
