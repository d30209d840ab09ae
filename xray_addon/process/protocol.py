"""The messages between Blender and the model runtime: JSON-RPC 2.0, one JSON object per line.

Requests, all sent by Blender::

    initialize {protocol}                -> {protocol, pid, versions}
    generate {inputs, folder, settings}  -> {file, seconds, device}   the file is `Generated.save`'s
    cut_out {inputs, folder, settings}   -> {file, how, at_border}    an .npy of what a model sees
    offer {name}                         -> `Offer`                   what a download would fetch
    download {name, revision}            -> {folder}                  of the commit that was offered
    cancel {id}                          -> {cancelled}               id of one of the last four
    status {}                            -> `RuntimeStatus`
    release {}                           -> {released}                removes weights from memory
    shutdown {}                          -> {}                        then the runtime exits

Inputs are {image, mask, category}: file paths and a name, or "" if not given.

During generation, the runtime sends the notification ``progress {id, stage, step, of, message,
preview}``; `preview` is empty or the path of an `.npy` file in the request's folder.
Lines are UTF-8 and end with a line feed. Arrays are passed in files that the messages name.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from ..errors import XRayError
from ..files.json_files import parse_json
from ..files.json_schema import LARGEST_INTEGER, plain
from ..progress import Progress
from ..settings.generate import GenerateSettings
from ..systems.system import Inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOCOL_VERSION = 2

# A normal line has some hundred bytes. A longer one than this is invalid and never kept in memory.
MAX_LINE = 1 << 20
LONGEST_TEXT, LONGEST_ID = 4000, 200  # characters of a message text, and of an id

INITIALIZE = "initialize"
GENERATE = "generate"
CUT_OUT = "cut_out"
OFFER = "offer"
DOWNLOAD = "download"
CANCEL = "cancel"
STATUS = "status"
RELEASE = "release"
SHUTDOWN = "shutdown"
PROGRESS = "progress"

# In the environment of the runtime's process: "1" if the user allows it the network, otherwise "0".
ONLINE_VARIABLE = "XRAY_ONLINE"

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
SERVER_ERROR = -32000  # an XRayError, complete in the error's data
REQUEST_CANCELLED = -32800  # as in the Language Server Protocol

Id = int | str | None


@dataclass(frozen=True)
class Request:
    """A call, or a notification if `id` is None."""

    method: str
    params: dict[str, Any] = field(default_factory=dict)
    id: Id = None


@dataclass(frozen=True)
class Response:
    """The answer to the request `id` (None if that was unreadable): a result or an error."""

    id: Id
    result: dict[str, Any] | None = None
    error: XRayError | None = None


Message = Request | Response


class ProtocolError(XRayError):
    """A message that is not valid JSON-RPC.

    rpc_code : one of the JSON-RPC error codes above.
    id : of the message, if it could be read.
    """

    def __init__(self, rpc_code: int, message: str, id: Id = None) -> None:
        super().__init__(
            "bad_message", message, "Restart the runtime; if it happens again, report it."
        )
        self.rpc_code = rpc_code
        self.id = id


def encode(message: Message) -> bytes:
    """One line with its line feed. Raises ValueError if it is too long or cannot be JSON."""
    data: dict[str, Any] = {"jsonrpc": "2.0"}
    if isinstance(message, Request):
        data |= {"method": message.method, "params": message.params}
        if message.id is not None:
            data["id"] = message.id
    else:
        data["id"] = message.id
        if message.error is None:
            data["result"] = message.result or {}
        else:
            data["error"] = error_to_rpc(message.error)
    # ASCII preserves lone surrogates, which undecodable file names contain.
    line = json.dumps(data, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError(f"a message of {len(line)} bytes is longer than {MAX_LINE}")
    return line


def decode(line: bytes) -> Message:
    """The message on one line. Raises ProtocolError, which can be sent back, if it is invalid."""
    if len(line) > MAX_LINE:
        raise ProtocolError(PARSE_ERROR, f"A line is longer than {MAX_LINE} bytes.")
    try:
        data = parse_json(line, plain, largest=MAX_LINE)
    except ValueError as error:
        raise ProtocolError(PARSE_ERROR, f"A line is not JSON ({error}).") from error
    if not isinstance(data, dict):
        raise ProtocolError(INVALID_REQUEST, "A message is not a JSON object.")
    number = data.get("id")
    if not is_id(number):
        raise ProtocolError(INVALID_REQUEST, "A message's id is no number and no short string.")
    if data.get("jsonrpc") != "2.0":
        raise ProtocolError(INVALID_REQUEST, 'A message lacks "jsonrpc": "2.0".', number)
    if "method" in data:
        return _request(data, number)
    if ("result" in data) == ("error" in data):
        raise ProtocolError(
            INVALID_REQUEST, "A message is neither a request nor a response.", number
        )
    if "error" in data:
        return Response(number, error=error_from_rpc(data["error"]))
    if not isinstance(data["result"], dict):
        raise ProtocolError(INVALID_REQUEST, "A result is not a JSON object.", number)
    return Response(number, data["result"])


def read_messages(stream: BinaryIO) -> Iterator[Message | ProtocolError]:
    """Every message until the stream ends. Yields the error of each invalid line.

    Blocks between messages, and keeps at most MAX_LINE bytes of a line.
    """
    while line := _read_line(stream):
        rest = line
        while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
            rest = _read_line(stream)  # the rest of a line that is too long is dropped
        if not line.isspace():
            try:
                yield decode(line)
            except ProtocolError as error:
                yield error


def _read_line(stream: BinaryIO) -> bytes:
    """At most MAX_LINE + 1 bytes; empty at the end, or if the pipe is broken or closed."""
    try:
        return stream.readline(MAX_LINE + 1)
    except (OSError, ValueError):
        return b""


def _request(data: dict[str, Any], id: Id) -> Request:
    method, params = data["method"], data.get("params", {})
    if not isinstance(method, str):
        raise ProtocolError(INVALID_REQUEST, "A method's name is not a string.", id)
    if not isinstance(params, dict):
        raise ProtocolError(INVALID_PARAMS, f"The parameters of {method} are not named.", id)
    return Request(method, params, id)


def is_id(value: Any) -> bool:
    """Whether `value` is a valid id: a number, a short string, or None."""
    if isinstance(value, str):
        return len(value) <= LONGEST_ID
    return value is None or (type(value) is int and abs(value) <= LARGEST_INTEGER)


def error_to_rpc(error: XRayError) -> dict[str, Any]:
    """A JSON-RPC error object with the complete `error` as its data."""
    if isinstance(error, ProtocolError):
        number = error.rpc_code
    else:
        number = REQUEST_CANCELLED if error.code == "cancelled" else SERVER_ERROR
    # An error that quotes a long message could itself be longer than a line may be.
    told = {name: text[:LONGEST_TEXT] for name, text in error.to_dict().items()}
    return {"code": number, "message": told["message"], "data": told}


def error_from_rpc(data: Any) -> XRayError:
    """The inverse of `error_to_rpc`, for any JSON value."""
    if not isinstance(data, dict):
        return ProtocolError(INVALID_REQUEST, "An error is not a JSON object.")
    details = data.get("data")
    if isinstance(details, dict) and "code" in details:
        number = data.get("code")
        if details["code"] == "bad_message" and isinstance(number, int):
            return ProtocolError(number, str(details.get("message", "")))
        return XRayError.from_dict(details)
    return XRayError("internal", str(data.get("message", "Unknown error.")))


@dataclass(frozen=True)
class GenerateParams:
    """The parameters of `generate` and `cut_out`.

    inputs : image and mask as file paths, or None.
    folder : existing folder that the result's file is written to.
    """

    inputs: Inputs
    folder: str
    settings: GenerateSettings

    def to_dict(self) -> dict[str, Any]:
        """The request's parameters."""
        given = {"image": self.inputs.image or "", "mask": self.inputs.mask or ""}
        return {
            "inputs": given | {"category": self.inputs.category},
            "folder": self.folder,
            "settings": self.settings.to_dict(),
        }

    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises ProtocolError (wrong type), XRayError `bad_settings`."""
        inputs, folder, settings = (params.get(name) for name in ("inputs", "folder", "settings"))
        names = ("image", "mask", "category")
        if not (
            isinstance(inputs, dict)
            and all(isinstance(inputs.get(name, ""), str) for name in names)
            and isinstance(folder, str)
            and isinstance(settings, dict)
        ):
            raise ProtocolError(
                INVALID_PARAMS,
                "The objects inputs and settings and the string folder are needed.",
            )
        image, mask, category = (inputs.get(name, "") for name in names)
        given = Inputs(image or None, mask or None, category)
        return cls(given, folder, GenerateSettings.from_dict(settings))


@dataclass(frozen=True)
class WeightsParams:
    """The parameters of `offer` and `download`.

    name : of the checkpoint, see `xray_addon.systems.weights`.
    revision : the offered commit, which the user has confirmed; nothing else is downloaded.
    """

    name: str
    revision: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The request's parameters."""
        return asdict(self)

    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises ProtocolError for wrong types."""
        name, revision = params.get("name"), params.get("revision", "")
        if not (isinstance(name, str) and isinstance(revision, str)):
            raise ProtocolError(INVALID_PARAMS, "The strings name and revision are needed.")
        return cls(name, revision)


@dataclass(frozen=True)
class RuntimeStatus:
    """The state of the runtime.

    pid : of the runtime's process.
    busy : whether it is generating.
    generator, checkpoint, device : what is loaded, and where ("cpu", "cuda:0", "mps"); "" if
        nothing is loaded.
    device_name : for display, e.g. "NVIDIA RTX A4000"; "" if nothing is loaded.
    memory : bytes of device memory that weights and caches use; on the CPU, bytes of the process,
        0 if unknown.
    memory_total : bytes of the device's memory; 0 if unknown.
    idle_seconds : since the last request ended.
    versions : of python, torch, diffusers...; only installed ones.
    """

    pid: int = 0
    busy: bool = False
    generator: str = ""
    checkpoint: str = ""
    device: str = ""
    device_name: str = ""
    memory: int = 0
    memory_total: int = 0
    idle_seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; ignores unknown names. Raises ProtocolError for wrong types."""
        values = {item.name: data[item.name] for item in fields(cls) if item.name in data}
        for name, value in values.items():
            kind = type(getattr(cls(), name))
            if kind is float and type(value) is int:
                continue
            if type(value) is not kind:
                raise ProtocolError(INVALID_PARAMS, f"The status has a wrong {name}: {value!r}.")
        return cls(**values)


def progress_to_params(id: Id, progress: Progress, preview: str = "") -> dict[str, Any]:
    """The parameters of the notification `progress` for the request `id`.

    preview : path of the file with the progress's picture, or "".
    """
    return {
        "id": id,
        "stage": progress.stage[:LONGEST_TEXT],
        "step": int(progress.step),  # array libraries have their own integer types
        "of": int(progress.of),
        "message": progress.message[:LONGEST_TEXT],
        "preview": preview,
    }


def progress_from_params(params: dict[str, Any]) -> tuple[Id, Progress, str]:
    """The inverse of `progress_to_params`: id, report, preview's path.

    Raises ProtocolError for wrong types.
    """
    request, preview = params.get("id"), params.get("preview", "")
    stage, message = params.get("stage"), params.get("message", "")
    step, of = params.get("step", 0), params.get("of", 0)
    if not all(isinstance(text, str) for text in (stage, message, preview)):
        raise ProtocolError(INVALID_PARAMS, "A progress has no stage, or a wrong message or file.")
    counts = all(type(n) is int and 0 <= n <= LARGEST_INTEGER for n in (step, of))
    if not counts or request is None or not is_id(request):
        raise ProtocolError(INVALID_PARAMS, "A progress has a wrong id, step or of.")
    return request, Progress(str(stage), step, of, message), preview
