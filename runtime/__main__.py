"""The command line: ``python -m runtime serve | generate | train | pack | evaluate | download``.

Exit codes: 0 done, 1 some items failed, 2 usage, 3 the runtime failed, 130 cancelled.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xray_addon.errors import DONE, XRayError, exit_code
from xray_addon.files.folders import CACHE_VARIABLE
from xray_addon.files.images import images_in
from xray_addon.files.mesh_formats import check_format, lost_in
from xray_addon.image_folder import generate_each, output_files
from xray_addon.process.protocol import ONLINE_VARIABLE
from xray_addon.progress import Progress
from xray_addon.settings.arguments import add_setting
from xray_addon.settings.generate import GenerateSettings
from xray_addon.systems import PUBLISHED, find_system
from xray_addon.systems.arguments import (
    add_inputs,
    add_outputs,
    add_systems,
    read_inputs,
    read_systems,
)
from xray_addon.systems.extras import Extras, add_extras, read_extras
from xray_addon.systems.system import Inputs
from xray_addon.systems.weights import Offer

from . import server
from .checkpoints import download
from .errors import typed_error
from .images.kinds import check_inputs
from .registry import load

if TYPE_CHECKING:
    from .generator import Generator

MESH_FORMATS = (".glb", ".obj", ".stl")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors go to stderr, those of a bug with a
    traceback."""
    arguments = make_parser().parse_args(argv)
    if arguments.command == "serve":
        return server.serve(arguments.idle)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _fail(arguments, XRayError("cancelled", "Cancelled."))
    except Exception as error:  # noqa: BLE001 - the process border
        return _fail(arguments, _logged_error(error))


def _logged_error(error: Exception) -> XRayError:
    """`error` as an XRayError. A bug's traceback goes to stderr."""
    told = typed_error(error)
    if told.code == "internal":
        logging.getLogger("xray.runtime").error("details", exc_info=error)
    return told


def make_parser() -> argparse.ArgumentParser:
    """The arguments of all commands; those of generate come from the systems' descriptions."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime", description="The model runtime of X-Ray."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    serve = commands.add_parser("serve", help="answer JSON-RPC requests on stdin (Blender's side)")
    serve.add_argument(
        "--idle",
        type=float,
        default=server.IDLE_TIMEOUT,
        metavar="SECONDS",
        help="without a request, after which the weights leave the memory (default: %(default)g)",
    )

    generate = commands.add_parser("generate", help="make a mesh")
    add_inputs(generate)
    add_outputs(generate, MESH_FORMATS, required=True)
    add_extras(generate)
    generate.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    add_systems(generate)

    train = commands.add_parser("train", help="train a generator")
    train.add_argument("--config", required=True, metavar="FILE", help="the training's settings")
    train.add_argument("--data", required=True, metavar="DIR", help="the training data")
    train.add_argument("--out", required=True, metavar="DIR", help="checkpoints and the record")
    train.add_argument("--minutes", type=float, metavar="N", help="stop after so long")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    add_setting(train, GenerateSettings.__dataclass_fields__["device"])
    train.set_defaults(device="auto")

    evaluate = commands.add_parser("evaluate", help="measure a generator on known meshes")
    evaluate.add_argument("--data", required=True, metavar="DIR", help="meshes, or a dataset")
    evaluate.add_argument("--out", required=True, metavar="DIR", help="table, figures, pictures")
    evaluate.add_argument("--split", default="", help="of the data's manifest.csv, such as val")
    evaluate.add_argument("--views", type=int, default=1, metavar="N", help="of each mesh")
    evaluate.add_argument("--limit", type=int, metavar="N", help="take a random N of the meshes")
    evaluate.add_argument(
        "--gallery",
        metavar="DIR",
        help="training meshes to retrieve from (default: the train split of DIR's manifest.csv)",
    )
    evaluate.add_argument(
        "--protocol",
        default="camera",
        choices=("camera", "xray", "lari"),
        help="how they are compared: in the camera's frame, or as a paper does (default: camera)",
    )
    evaluate.add_argument(
        "--views-from",
        type=float,
        default=1.0,
        metavar="TIMES",
        help="see objects from so many times the usual distance, by a lens to match (default: 1)",
    )
    add_systems(evaluate)

    pack = commands.add_parser("pack", help="put many meshes into one small file, to train from")
    pack.add_argument("--data", required=True, metavar="DIR", help="the meshes")
    pack.add_argument("--out", required=True, metavar="FILE.zip", help="the file")
    pack.add_argument("--split", default="", help="of the data's manifest.csv, such as train")
    pack.add_argument(
        "--exclude", nargs="*", default=[], metavar="PACK", help="folders to leave out"
    )
    pack.add_argument(
        "--megabytes",
        type=float,
        default=32.0,
        metavar="N",
        help="size at most; the smallest meshes go in first (default: %(default)g)",
    )

    fetch = commands.add_parser("download", help="fetch published weights from their hub")
    fetch.add_argument("name", metavar="NAME", help=f"{', '.join(PUBLISHED)}, or owner/repo")
    fetch.add_argument("--cache", metavar="DIR", help=f"where to (default: ${CACHE_VARIABLE})")
    fetch.add_argument("--yes", action="store_true", help="licence and size need no confirmation")
    fetch.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "generate":
        return _generate(arguments)
    if arguments.command == "download":
        return _download(arguments)
    lines: list[str] = []
    with redirect_stdout(sys.stderr):
        # Imported only when needed: torch takes seconds.
        if arguments.command == "train":
            from . import training

            code = training.main(arguments, lines.append, _Reporter())
        elif arguments.command == "pack":
            from .meshes import packing

            code = packing.main(arguments, lines.append, _Reporter())
        else:
            from . import evaluation

            code = evaluation.main(arguments, lines.append, _Reporter())
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return code


def _generate(arguments: argparse.Namespace) -> int:
    settings, inputs = read_systems(arguments), read_inputs(arguments)
    system, extras = find_system(settings.generator), read_extras(arguments)
    system.check(inputs)
    start = time.monotonic()
    folder = inputs.image if inputs.image is not None and inputs.image.is_dir() else None
    images = images_in(folder) if folder is not None else []
    extras.check(system, several=folder is not None)
    out = arguments.out
    if folder is None:
        out = out if out.suffix else out.with_suffix(f".{arguments.format}")
        check_format(out, MESH_FORMATS)
        check_inputs(inputs)
    with redirect_stdout(sys.stderr):  # libraries may print; stdout is for one JSON object
        generator = load(settings.generator, settings.checkpoint or None, settings.device)
        if folder is None:
            code, suffix = DONE, out.suffix
            answer = _make(generator, inputs, settings, out, extras)
        else:
            suffix = f".{arguments.format}"

            def make(image: Path, mesh: Path) -> dict[str, Any]:
                given = replace(inputs, image=image)
                try:
                    check_inputs(given)
                    return _make(generator, given, settings, mesh, extras.of(mesh.stem))
                except Exception as error:  # one image must not stop the others
                    raise _logged_error(error) from error

            files = output_files(images, out, suffix)
            code, answer = generate_each(images, files, make, _say)
    if lost := lost_in(suffix):
        _say(f"{lost}.")
        answer["note"] = lost
    if arguments.json:
        _print_json(
            answer
            | {
                "settings": settings.to_dict(),
                "device": str(generator.device),
                "seconds": round(time.monotonic() - start, 3),
            }
        )
    return code


def _make(
    generator: Generator,
    inputs: Inputs,
    settings: GenerateSettings,
    out: Path,
    extras: Extras,
) -> dict[str, Any]:
    """Generate and write a mesh and its `extras`; returns what to report. Raises XRayError."""
    from .meshes.files import write_mesh

    generated = generator.generate(inputs, settings, _Reporter())
    write_mesh(out, generated.surface)
    return {
        "out": str(out),
        "vertices": len(generated.surface.vertices),
        "faces": len(generated.surface.faces),
        "notes": list(generated.notes),
        "chosen": dict(generated.chosen),
        **extras.write(generated, out),
    }


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _download(arguments: argparse.Namespace) -> int:
    def confirm(offer: Offer) -> bool:
        sys.stderr.write(f"{offer}\n")
        if arguments.yes:
            return True
        if not sys.stdin.isatty():
            sys.stderr.write("There is no terminal to confirm it in; pass --yes to confirm.\n")
            return False
        sys.stderr.write("Fetch this under that licence? [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    # A user who types this command allows the network; Blender sets "0" if it does not.
    online = os.environ.get(ONLINE_VARIABLE, "1") == "1"
    with redirect_stdout(sys.stderr):
        folder = download(
            arguments.name,
            confirm=confirm,
            online=online,
            cache=arguments.cache,
            progress=_Reporter(),
        )
    if arguments.json:
        _print_json({"folder": str(folder)})
    return DONE


class _Reporter:
    """Writes each new progress message to stderr."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, progress: Progress) -> None:
        line = progress.message or progress.stage
        if line != self._last:
            self._last = line
            sys.stderr.write(f"{line}\n")


def _fail(arguments: argparse.Namespace, error: XRayError) -> int:
    sys.stderr.write(f"error: {error}\n")
    if getattr(arguments, "json", False):
        _print_json({"error": error.to_dict()})
    return exit_code(error)


def _print_json(data: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(data) + "\n")


if __name__ == "__main__":
    sys.exit(main())
