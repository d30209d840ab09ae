"""The published systems behind the one button."""
