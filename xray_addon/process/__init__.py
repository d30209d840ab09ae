"""The model runtime as a process: its protocol, its client, its environment."""
