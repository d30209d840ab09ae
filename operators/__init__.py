"""Blender's operators and command, thin callers of the plain functions beside them."""


def register() -> None:
    """Register the operators and the command line."""
    from . import command, ops_capture, ops_generate, ops_import, ops_runtime, properties
    from .registration import register_classes

    register_classes(
        ops_capture.CLASSES + ops_generate.CLASSES + ops_import.CLASSES + ops_runtime.CLASSES
    )
    properties.register()
    command.register()


def unregister() -> None:
    """Cancel what runs, stop the runtime, take back everything `register` did."""
    from . import command, jobs, ops_capture, ops_generate, ops_import, ops_runtime, properties
    from . import runtime_service as service
    from .registration import unregister_classes

    jobs.shut_down()
    service.shut_down()
    command.unregister()
    properties.unregister()
    unregister_classes(
        ops_capture.CLASSES + ops_generate.CLASSES + ops_import.CLASSES + ops_runtime.CLASSES
    )
