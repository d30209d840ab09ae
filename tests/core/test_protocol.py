"""Every message survives the trip, and no line, however broken, is more than an error."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xray_addon.errors import XRayError
from xray_addon.process import protocol
from xray_addon.process.protocol import (
    MAX_LINE,
    GenerateParams,
    ProtocolError,
    Request,
    Response,
    RuntimeStatus,
    decode,
    encode,
    read_messages,
)
from xray_addon.progress import Cancelled, Progress
from xray_addon.settings.generate import GenerateSettings
from xray_addon.systems.system import Inputs

text = st.text('aZ0é\u2028\n"{', max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=10,
)
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
members = st.sampled_from(["jsonrpc", "method", "params", "id", "result", "error"])


@pytest.mark.parametrize(
    "message",
    [
        Request("generate", {"image": "a.png"}, 3),
        Request("progress", {"id": 3}),
        Response(3, {"file": "out.npz"}),
        Response("three", {}),
    ],
)
def test_a_message_survives_the_trip(message: protocol.Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == message


def test_any_file_name_survives_the_trip() -> None:
    name = "C:\\Bilder\\Stühle \u2028 \U0001f4a1 \udcff\n.png"
    message = decode(encode(Request("generate", {"image": name}, 1)))
    assert isinstance(message, Request)
    assert message.params["image"] == name


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (XRayError("out_of_memory", "Full.", "Close programs.", "/log"), protocol.SERVER_ERROR),
        (Cancelled(), protocol.REQUEST_CANCELLED),
        (ProtocolError(protocol.METHOD_NOT_FOUND, "No."), protocol.METHOD_NOT_FOUND),
    ],
)
def test_an_error_keeps_its_code_remedy_and_log(error: XRayError, number: int) -> None:
    line = encode(Response(1, error=error))
    assert json.loads(line)["error"]["code"] == number
    message = decode(line)
    assert isinstance(message, Response)
    assert message.error is not None
    assert message.error.to_dict() == error.to_dict()


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (b"", protocol.PARSE_ERROR),
        (b"{", protocol.PARSE_ERROR),
        (b"\xff\xfe", protocol.PARSE_ERROR),
        (b"[" * 100_000, protocol.PARSE_ERROR),
        (b'{"id": ' + b"9" * 10_000 + b"}", protocol.PARSE_ERROR),
        (b" " * (MAX_LINE + 1), protocol.PARSE_ERROR),
        (b"[]", protocol.INVALID_REQUEST),
        (b"1", protocol.INVALID_REQUEST),
        (b'{"method": "status", "id": 1}', protocol.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": 1}', protocol.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": 1}', protocol.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": [1], "result": {}}', protocol.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": true, "result": {}}', protocol.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": 1, "result": 1}', protocol.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "x", "params": [1]}', protocol.INVALID_PARAMS),
    ],
)
def test_a_malformed_line_is_a_json_rpc_error(line: bytes, number: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(line)
    assert caught.value.rpc_code == number
    assert caught.value.remedy


@patient
@given(st.binary(max_size=200) | st.dictionaries(members, json_values).map(json.dumps))
def test_no_line_raises_anything_else(line: bytes | str) -> None:
    try:
        message = decode(line if isinstance(line, bytes) else line.encode())
    except ProtocolError as error:
        encode(Response(error.id, error=error))
    else:
        assert isinstance(message, Request | Response)


@patient
@given(st.dictionaries(st.sampled_from(["id", "stage", "step", "of", "message"]), json_values))
def test_no_progress_or_status_raises_anything_else(params: dict[str, object]) -> None:
    for read in (protocol.progress_from_params, RuntimeStatus.from_dict):
        try:
            read(params)
        except ProtocolError:
            continue


def test_reading_goes_on_after_a_broken_and_after_an_endless_line() -> None:
    good = encode(Request("status", {}, 1))
    stream = io.BytesIO(b"noise\n\n" + good + b"x" * (3 * MAX_LINE) + b"\n" + good + b'{"cut')
    kinds = [type(message) for message in read_messages(stream)]
    assert kinds == [ProtocolError, Request, ProtocolError, Request, ProtocolError]


def test_reading_ends_where_the_stream_breaks() -> None:
    class Broken(io.BytesIO):
        def readline(self, _size: int | None = -1, /) -> bytes:
            raise OSError("the pipe is broken")

    assert list(read_messages(Broken())) == []


def test_a_message_too_long_for_a_line_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        encode(Request("generate", {"image": "x" * MAX_LINE}, 1))


def test_generate_params_are_checked() -> None:
    params = GenerateParams(
        Inputs("a.png", None, "chair"), "/tmp", GenerateSettings(generator="xray-paper", steps=4)
    )
    assert GenerateParams.from_dict(params.to_dict()) == params
    with pytest.raises(ProtocolError) as caught:
        GenerateParams.from_dict({"inputs": {"image": "a.png"}, "folder": 1, "settings": {}})
    assert caught.value.rpc_code == protocol.INVALID_PARAMS
    with pytest.raises(XRayError, match="steps must lie between"):
        GenerateParams.from_dict({**params.to_dict(), "settings": {"steps": -1}})


def test_progress_and_status_survive_the_trip() -> None:
    progress = Progress("sample", 3, 10, "Sampling")
    params = protocol.progress_to_params(7, progress, "a.npy")
    assert protocol.progress_from_params(params) == (7, progress, "a.npy")
    status = RuntimeStatus(pid=1, busy=True, memory=5, idle_seconds=1.5, versions={"torch": "2"})
    assert RuntimeStatus.from_dict(status.to_dict()) == status
    assert RuntimeStatus.from_dict({**status.to_dict(), "newer": 1}) == status
