"""What Blender's interface asks of an extension: icons, texts, registering classes."""
