"""The layers of an X-Ray as objects in the scene."""
