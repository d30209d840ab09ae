"""Support for Blender's interface: icons, translations, class registration."""
