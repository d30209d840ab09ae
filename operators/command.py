"""The command line: ``blender [-b scene.blend] -c xray capture|dataset|generate|import ...``.

Exit codes: 0 done, 1 some items failed, 2 usage, 3 the runtime failed, 130 cancelled. With
``--json`` one JSON object goes to standard output; progress and errors go to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import bpy

from ..xray_addon.dataset.attempt import Store
from ..xray_addon.dataset.manifest import Item, read_source, shard
from ..xray_addon.dataset.result import FAILED, REJECTED, STATUSES, ItemResult
from ..xray_addon.errors import DONE, RUNTIME_FAILED, SOME_FAILED, USAGE, XRayError, exit_code
from ..xray_addon.files.images import images_in
from ..xray_addon.files.json_files import parse_json
from ..xray_addon.files.json_schema import plain
from ..xray_addon.files.mesh_formats import lost_in
from ..xray_addon.files.png import write_png
from ..xray_addon.generated import Generated
from ..xray_addon.image_folder import generate_each, output_files
from ..xray_addon.pictures.contact_sheet import contact_sheet
from ..xray_addon.progress import Cancelled, Progress, ProgressCallback
from ..xray_addon.settings.arguments import (
    add_setting,
    add_settings,
    settings_from_arguments,
)
from ..xray_addon.settings.capture import CaptureSettings
from ..xray_addon.settings.dataset import DatasetSettings
from ..xray_addon.settings.result import ResultSettings
from ..xray_addon.systems import find_system
from ..xray_addon.systems.arguments import (
    add_inputs,
    add_outputs,
    add_systems,
    read_inputs,
    read_systems,
)
from ..xray_addon.systems.extras import Extras, add_extras, read_extras
from ..xray_addon.systems.system import Inputs
from . import open_file
from .convert.mesh_files import OUTPUTS, check_output, empty_file, save_objects
from .dataset import remote
from .dataset.capture import Captures, DatasetRun, dataset_steps
from .dataset.ops import load_objects, object_items
from .dataset.plain import file_steps, object_steps
from .dataset.preview import MOST_VIEWS, dataset_views
from .generate.generation import generate_mesh, inputs_name
from .interface.standard_output import output_to
from .layers.layers import FORMS, import_xray
from .omage import command as omage
from .tasks import jobs

_registered: list[Any] = []


def register() -> None:
    """Register ``blender -c xray``."""
    register: Any = bpy.utils.register_cli_command
    _registered.append(register("xray", main))


def unregister() -> None:
    """Undo `register`."""
    for handle in _registered:
        bpy.utils.unregister_cli_command(handle)
    _registered.clear()


def main(argv: Sequence[str]) -> int:
    """Run the command `argv` (without "xray") and return its exit code; never calls sys.exit."""
    try:
        arguments = _parsed(argv)
    except SystemExit as end:  # argparse has printed the reason
        return USAGE if end.code else DONE
    try:
        with _own_stdout() as arguments.answers, _interruptible():
            code, answer = arguments.run(arguments)
    except KeyboardInterrupt:
        code, answer = exit_code(Cancelled()), {"error": Cancelled().to_dict()}
    except XRayError as error:
        code = exit_code(error, arguments.failure)
        answer = {"error": error.to_dict()}
    if arguments.json:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    if "error" in answer:
        sys.stderr.write(f"xray: {XRayError.from_dict(answer['error'])}\n")
    return int(code)


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    objects_named = open_file.are_named(argv)
    arguments = _parser(objects_named).parse_args(list(argv))
    if objects_named and arguments.out is None and hasattr(arguments, "objects_named"):
        # argparse takes the OUT of `--objects A B OUT` for an object's name.
        names = arguments.objects or [""]
        if len(names) < 2 or names[-1] in bpy.data.objects:
            arguments.fail("the following arguments are required: OUT")
        arguments.out = Path(names.pop())
    return arguments


def _parser(objects_named: bool) -> argparse.ArgumentParser:
    """The parser. objects_named : whether an option names objects of the open file, not SOURCE."""
    parser = argparse.ArgumentParser(
        prog="blender -c xray", description="See 3D objects as layers of images."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    capture = commands.add_parser("capture", help="write meshes as X-Rays")
    capture.set_defaults(run=_capture, failure=SOME_FAILED)
    _add_places(
        capture,
        objects_named,
        "a mesh file, a .blend file, or a folder",
        "folder for xrays/ and images/",
    )
    add_settings(capture, CaptureSettings, skip=("combine",))
    add_setting(capture, DatasetSettings.__dataclass_fields__["bare_geometry"])
    _add_json(capture)

    dataset = commands.add_parser("dataset", help="make a dataset of many objects")
    dataset.set_defaults(run=_dataset, failure=SOME_FAILED)
    _add_places(
        dataset,
        objects_named,
        "a folder, a mesh file, or a manifest (.csv, .jsonl) with the column path",
        "the dataset's folder; existing items are kept",
    )
    dataset.add_argument(
        "--shard", metavar="I/N", default="1/1", help="only the Ith of N parts, I from 1 to N"
    )
    dataset.add_argument(
        "--replace", action="store_true", help="remove items that were made with different settings"
    )
    add_settings(dataset, DatasetSettings)
    _add_json(dataset)

    worker = commands.add_parser(
        "dataset-worker", help="make items of a dataset, one for each line of JSON on stdin"
    )
    worker.set_defaults(run=_dataset_worker, failure=SOME_FAILED, json=False)
    worker.add_argument("out", metavar="OUT", type=Path, help="the dataset's folder")
    worker.add_argument(
        "--progress", action="store_true", help="also write a line of JSON for each view"
    )
    add_settings(worker, DatasetSettings)

    renderer = commands.add_parser(
        remote.COMMAND,
        help="render pictures for another Blender, one for each line of JSON on stdin",
    )
    renderer.set_defaults(run=_render_worker, failure=SOME_FAILED, json=False)
    add_settings(renderer, DatasetSettings)

    generate = commands.add_parser("generate", help="make a mesh")
    generate.set_defaults(run=_generate, failure=RUNTIME_FAILED)
    add_inputs(generate)
    add_outputs(generate, OUTPUTS)
    add_extras(generate)
    open_file.add_objects(generate, "the pictures of image objects", "IMAGE")
    add_systems(generate)
    add_settings(generate, ResultSettings)
    _add_json(generate)

    imported = commands.add_parser("import", help="make a mesh file from an X-Ray file")
    imported.set_defaults(run=_import, failure=SOME_FAILED)
    imported.add_argument("file", metavar="FILE", type=Path, help="an X-Ray .npz")
    imported.add_argument("--as", dest="form", choices=FORMS, default="mesh", help="what to import")
    imported.add_argument(
        *("-o", "--out"),
        metavar="FILE",
        type=Path,
        help=f"{', '.join(OUTPUTS)}; default: <file>.glb beside it",
    )
    _add_json(imported)
    _add_preview(commands)
    omage.add_parser(commands)
    return parser


def _add_places(
    parser: argparse.ArgumentParser, objects_named: bool, source: str, out: str
) -> None:
    """Add SOURCE and OUT; only an optional OUT if objects are named in place of SOURCE."""
    if not objects_named:
        parser.add_argument("source", metavar="SOURCE", type=Path, help=source)
    parser.add_argument(
        "out", metavar="OUT", type=Path, nargs="?" if objects_named else None, help=out
    )
    open_file.add_objects(parser, "objects", "SOURCE")
    parser.set_defaults(objects_named=objects_named, fail=parser.error)


def _add_preview(commands: Any) -> None:
    """Add `preview` to the subcommands of ``blender -c xray``."""
    parser = commands.add_parser("preview", help="a contact sheet of a dataset as a PNG file")
    parser.set_defaults(run=_preview, failure=SOME_FAILED)
    parser.add_argument("dataset", metavar="DATASET", type=Path, help="the dataset's folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--uid", default="", metavar="U", help=f"the first {MOST_VIEWS} views of this item"
    )
    which.add_argument(
        "--sample", type=_positive, default=4, metavar="N", help="N random items (default: 4)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="seed of the choice (default: 0)"
    )
    parser.add_argument(
        "--layers", type=_positive, default=8, metavar="L", help="layers to show (default: 8)"
    )
    parser.add_argument("--out", required=True, metavar="FILE", type=Path, help="the PNG to write")
    _add_json(parser)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="answer with one JSON object")


Answer = tuple[int, dict[str, Any]]


def _capture(arguments: argparse.Namespace) -> Answer:
    settings = settings_from_arguments(CaptureSettings, arguments)
    if arguments.objects_named:
        steps = object_steps(open_file.solid_objects(arguments), arguments.out, settings)
    else:
        items = read_source(arguments.source)
        bare = getattr(arguments, "bare_geometry", False)
        steps = file_steps(items, arguments.out, settings, _say_line, bare_geometry=bare)
    run: DatasetRun = jobs.run(steps, _say)
    failed = [result for result in run.results if result.status in (REJECTED, FAILED)]
    for result in failed:
        sys.stderr.write(f"xray: {result.uid}: {result.reason}\n")
    answer = {
        "folder": str(arguments.out),
        "captured": [
            {name: getattr(result, name) for name in ("uid", "views", "hits", "dropped")}
            for result in run.results
            if result not in failed
        ],
        "failed": [
            {"uid": result.uid, **XRayError(result.code, result.reason).to_dict()}
            for result in failed
        ],
    }
    return (SOME_FAILED if failed else DONE), answer


def _dataset(arguments: argparse.Namespace) -> Answer:
    settings = settings_from_arguments(DatasetSettings, arguments)
    load = None
    if arguments.objects_named:
        items, load = object_items(open_file.solid_objects(arguments)), load_objects
        if not hasattr(arguments, "frame"):
            settings = replace(settings, frame=bpy.context.scene.frame_current)
    else:
        items = read_source(arguments.source)
    items = shard(items, arguments.shard)
    meter = _Meter()

    def say(result: ItemResult) -> None:
        meter.count(result)
        if result.status in (REJECTED, FAILED):
            log = f" Log: {result.log}" if result.log else ""
            _say_line(f"{result.uid}: {result.status}: {result.reason}{log}")

    run: DatasetRun = jobs.run(
        dataset_steps(
            items, arguments.out, settings, load, on_result=say, replace=arguments.replace
        ),
        meter.show,
    )
    counts = {status: run.count(status) for status in STATUSES}
    _say_line(", ".join(f"{count} {status}" for status, count in counts.items()))
    answer = {
        "folder": str(arguments.out),
        "counts": counts,
        "refused": [r.to_dict() for r in run.results if r.status in (REJECTED, FAILED)],
    }
    return (SOME_FAILED if counts[FAILED] else DONE), answer


def _dataset_worker(arguments: argparse.Namespace) -> Answer:

    def write(line: dict[str, Any]) -> None:
        arguments.answers.write(json.dumps(line) + "\n")
        arguments.answers.flush()

    def answer(result: ItemResult) -> None:
        write(result.to_dict())

    def show(progress: Progress) -> None:
        if arguments.progress:
            write({"message": progress.message})

    with contextlib.ExitStack() as stack:
        try:
            settings = settings_from_arguments(DatasetSettings, arguments)
            captures = stack.enter_context(Captures(Store(arguments.out, settings)))
        except XRayError as error:
            answer(ItemResult.refused("", error))
            raise
        # `for line in sys.stdin` would read ahead.
        while line := sys.stdin.readline():
            if not line.strip():
                continue
            try:
                item = Item.from_dict(parse_json(line, plain))
            except ValueError as error:
                result = ItemResult("", FAILED, "bad_item", f"This line is not an item: {error}.")
            else:
                result = _worked(captures, item, show)
            answer(result)
    return DONE, {}


def _render_worker(arguments: argparse.Namespace) -> Answer:
    settings = settings_from_arguments(DatasetSettings, arguments)
    for line in remote.serve(settings, sys.stdin):
        arguments.answers.write(json.dumps(line) + "\n")
        arguments.answers.flush()
    return DONE, {}


def _worked(captures: Captures, item: Item, on_progress: ProgressCallback) -> ItemResult:
    try:
        result: ItemResult = jobs.run(captures.steps(item), on_progress)
    except Cancelled:
        raise
    except XRayError as error:  # the caller of this worker stops the run, see `stop_on`
        return ItemResult.refused(item.uid, error)
    return result


def _generate(arguments: argparse.Namespace) -> Answer:
    settings = read_systems(arguments)
    system = find_system(settings.generator)
    inputs = _inputs(arguments)
    for given in inputs:
        system.check(given)
    image = inputs[0].image
    is_folder = isinstance(image, Path) and image.is_dir()
    keeps_file = bool(bpy.data.filepath) or isinstance(image, bpy.types.Image)
    mask = inputs[0].mask
    if isinstance(mask, bpy.types.Image) and (is_folder or not keeps_file):
        raise XRayError(
            "bad_settings",
            f"The mask {mask.name} is an image of the open file, which is closed for this.",
            "Save the mask to a file.",
        )
    result = settings_from_arguments(ResultSettings, arguments)
    extras = read_extras(arguments)
    extras.check(system, several=is_folder or len(inputs) > 1)

    def make(inputs: Sequence[Inputs], out: Path, extras: Extras) -> dict[str, Any]:
        if keeps_file and not is_folder:
            open_file.leave_edit_mode()  # the meshes are added to its scene
        else:
            empty_file()
        results: list[Generated] = []
        objects: list[Any] = [
            generate_mesh(
                each, settings, result=result, on_generated=results.append, on_progress=_say
            )
            for each in inputs
        ]
        save_objects(objects, out)
        answer = {"out": str(out), "faces": sum(len(obj.data.polygons) for obj in objects)}
        if len(inputs) == 1:
            return answer | extras.write(results[0], out)
        pictures: list[str] = []
        for obj, generated in zip(objects, results, strict=True):
            own = extras.of(bpy.path.clean_name(obj.name))
            pictures += own.write(generated, out).get("pictures", [])
        return answer | ({"pictures": pictures} if extras.pictures else {})

    if is_folder:
        folder, suffix = arguments.out or Path(), f".{arguments.format}"
        images = images_in(image)
        files = output_files(images, folder, suffix)
        code, answer = generate_each(
            images,
            files,
            lambda one, out: make([replace(inputs[0], image=one)], out, extras.of(out.stem)),
            _say_line,
        )
    else:
        out = arguments.out or Path(f"{inputs_name(inputs[0], system)}.{arguments.format}")
        check_output(out)
        code, suffix = DONE, out.suffix
        answer = make(inputs, out, extras)
    return code, answer | _note(suffix, quads=result.topology == "quads")


def _inputs(arguments: argparse.Namespace) -> list[Inputs]:
    """The inputs to generate from: the image, or the images shown by the named objects."""
    given = read_inputs(arguments)
    mask = open_file.image_of(given.mask)
    if not (arguments.collection or arguments.selected or arguments.objects):
        return [replace(given, image=open_file.image_of(given.image), mask=mask)]
    if given.image is not None:
        raise XRayError(
            "unused_input",
            "Both an image and objects of the open file are given.",
            "Leave out one of them.",
        )
    images = open_file.reference_images(arguments)
    return [replace(given, image=image, mask=mask) for image in images]


def _note(suffix: str, *, quads: bool = False) -> dict[str, str]:
    """Print what a file with `suffix` cannot store; also returned for the JSON answer."""
    lost = lost_in(suffix, quads=quads)
    if lost:
        _say_line(f"{lost}.")
    return {"note": lost} if lost else {}


def _import(arguments: argparse.Namespace) -> Answer:
    out = arguments.out or arguments.file.with_suffix(".glb")
    check_output(out)
    empty_file()
    objects = import_xray(arguments.file.absolute(), arguments.form)
    save_objects(objects, out)
    return DONE, {"out": str(out), "objects": len(objects)} | _note(out.suffix)


def _preview(arguments: argparse.Namespace) -> Answer:
    views = dataset_views(
        arguments.dataset,
        uid=arguments.uid,
        sample=arguments.sample,
        seed=abs(arguments.seed),
    )
    try:
        write_png(arguments.out, contact_sheet(views, layers=arguments.layers))
    except OSError as error:
        raise XRayError(
            "cannot_write",
            f"{arguments.out} cannot be written ({error.strerror or error}).",
            "Choose another file.",
        ) from error
    return DONE, {"out": str(arguments.out), "views": [view.title for view in views]}


def _say(progress: Progress) -> None:
    """Print the progress on one line of a terminal."""
    if sys.stderr.isatty():
        count = f" {progress.step}/{progress.of}" if progress.of else ""
        sys.stderr.write(f"\r{progress.stage}{count} {progress.message}\x1b[K")
        if progress.of and progress.step == progress.of:
            sys.stderr.write("\n")


def _say_line(text: str) -> None:
    """Print a line; on a terminal it replaces the progress line."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    sys.stderr.write(f"{clear}xray: {text}\n")
    sys.stderr.flush()


class _Meter:
    """Progress with the rate and the time left, based only on newly made items."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._made = self._known = 0

    def count(self, result: ItemResult) -> None:
        """Count one more finished item."""
        if result.seconds:
            self._made += 1
        else:
            self._known += 1

    def show(self, progress: Progress) -> None:
        """Print the terminal's progress line."""
        message = progress.message
        passed = time.monotonic() - self._started
        if self._made and passed > 0:
            rate = self._made / passed
            left = int((progress.of - self._made - self._known) / rate)
            clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
            message = f"{rate:.2g}/s, {clock} left  {message}"
        _say(Progress(progress.stage, progress.step, progress.of, message))


@contextlib.contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """Redirect what Blender and its importers print to stderr; yields the real stdout."""
    with (
        output_to(2) as kept,
        contextlib.redirect_stdout(sys.stderr),
        os.fdopen(os.dup(kept), "w", encoding="utf-8") as answers,
    ):
        yield answers


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Make Ctrl-C raise KeyboardInterrupt; Blender replaces Python's signal handler."""
    before: Callable[..., Any] | int | None = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )
    try:
        yield
    finally:
        # None means that Blender's C code set the handler, so Python cannot restore it.
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
