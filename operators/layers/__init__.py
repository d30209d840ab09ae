"""An X-Ray as objects in the scene, a layer each."""
