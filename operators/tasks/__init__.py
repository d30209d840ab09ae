"""Long work in Blender: a queue of tasks, and the operators that start and watch them."""
