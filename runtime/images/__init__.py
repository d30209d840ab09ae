"""From an image file to the object in it."""
