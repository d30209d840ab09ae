"""The model runtime as a separate process: its protocol, client and environment."""
