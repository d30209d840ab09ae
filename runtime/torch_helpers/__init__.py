"""Small helpers around torch that every system uses."""
