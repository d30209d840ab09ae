"""JSON that others made: its size, nesting, numbers and fields are bounded, by one reader."""

from __future__ import annotations

import os
import threading
import tracemalloc

import pytest

from xray_addon.dataset.manifest import Item
from xray_addon.dataset.result import ItemResult
from xray_addon.files import json_schema as schema
from xray_addon.files.json_files import DEEPEST, parse_json, read_json
from xray_addon.files.names import is_clean_name, is_clean_path

POINT = schema.record({"x": schema.number(0, 1)}, {"name": schema.text(3)})


def test_what_fits_comes_back_without_what_is_not_known():
    text = '{"x": 1, "name": "abc", "other": [1]}'
    assert parse_json(text, POINT) == {"x": 1.0, "name": "abc"}
    assert parse_json("\ufeff" + text, POINT)["name"] == "abc"
    kept = schema.record({"x": schema.number()}, others=schema.plain)
    assert parse_json(text, kept)["other"] == [1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("[", "not JSON"),
        (b"\xff", "not UTF-8"),
        ("[1]", "must be an object"),
        ("{}", "lacks x"),
        ('{"x": "1"}', "x must be a number"),
        ('{"x": true}', "x must be a number"),
        ('{"x": 2}', "x must be a number from 0 to 1"),
        ('{"x": NaN}', "NaN is not a number"),
        ('{"x": Infinity}', "Infinity is not a number"),
        ('{"x": 1e999}', "not a finite number"),
        ('{"x": %s}' % ("9" * 500), "too long"),
        ('{"x": 1, "name": "abcd"}', "name must be text of at most 3"),
        ('{"x": 1, "name": "\\ud800"}', "half a character"),
        ('{"x": ' + "[" * 100_000, f"more than {DEEPEST} deep"),
        ('{"x": ' + '{"a":' * 100_000, f"more than {DEEPEST} deep"),
        ('{"x": 1, "a": "' + "[" * 100 + '", "x": 2}', "x must be a number from 0 to 1"),
        ('{"x": 1, "a": "\\"[' + "[" * 100 + '", "x": 2}', "x must be a number from 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused_by_field_and_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text, POINT)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (schema.integer(0, 3), ["0", "3.0"], ["-1", "4", "0.5", "true", '"1"', "1e300"]),
        (schema.flag, ["true"], ["1", "null"]),
        (schema.choice("a", 1), ['"a"', "1"], ['"b"', "true", "1.0"]),
        (schema.list_of(schema.flag, 1, 2), ["[true]"], ["[]", "[1]", "{}", "[true,true,true]"]),
        (schema.nullable(schema.flag), ["null", "true"], ["0"]),
        (schema.table_of(schema.flag), ["{}", '{"a": true}'], ["[]", '{"a": 1}']),
        (schema.table_of(schema.flag, schema.text(1)), ['{"a": true}'], ['{"ab": true}']),
        (schema.matching(is_clean_name, "a name"), ['"a"'], ['"../a"', "1", "null"]),
        (schema.plain, ["[[[[1]]]]", '{"a": "b"}'], ["[" * 20 + "]" * 20]),
    ],
)
def test_each_check(check, good, bad):
    for text in good:
        parse_json(text, check)
    for text in bad:
        with pytest.raises(ValueError, match=r"must be|nested"):
            parse_json(text, check)


def test_the_nesting_is_bounded_on_a_thread_with_a_small_stack():
    """Python's parser calls itself for each list, which would end the process there."""
    refused = []

    def parse():
        for depth in (DEEPEST + 1, 5_000, 500_000):
            try:
                parse_json("[" * depth + "]" * depth, schema.plain)
            except ValueError as error:
                refused.append(error)

    before = threading.stack_size(256 << 10)
    try:
        thread = threading.Thread(target=parse)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert len(refused) == 3


@pytest.mark.parametrize("unit", ["[],", "{},", '"ab",', '"\\u0100",', "-6,", '{"a":1},', "0.5,"])
def test_memory_is_at_most_48_times_the_size(unit):
    text = "[" + unit * (200_000 // len(unit)) + "0]"
    tracemalloc.start()
    parse_json(text, schema.plain)
    assert tracemalloc.get_traced_memory()[1] < 48 * len(text) + 2**16
    tracemalloc.stop()


def test_only_regular_files_of_the_right_size_are_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"x": 0}')
    assert read_json(path, POINT, largest=8) == {"x": 0}
    with pytest.raises(ValueError, match="larger than 7 bytes"):
        read_json(path, POINT, largest=7)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", POINT)
    for odd in (tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match=r"regular|directory|denied"):
            read_json(odd, POINT)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        with pytest.raises(OSError, match="regular"):
            read_json(tmp_path / "pipe.json", POINT)


@pytest.mark.parametrize(
    "name", ["a", "chair-01", "Küche", "a.b", "x" * 255, "a b", "CON1", "a..b"]
)
def test_clean_names(name):
    assert is_clean_name(name)
    assert is_clean_path(f"{name}/{name}")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "a\\b", "c:", "a\0", "a\n", "con", "NUL.txt", "lpt1", "a.",
     "a ", "x" * 256, "ü" * 128, "\udce9", "a*", "a?", 'a"', "a|b", "<a>", 3, None],
)  # fmt: skip
def test_names_that_mean_something_else_in_a_path(name):
    assert not is_clean_name(name)
    assert is_clean_path(name) == (name == "a/b")


def test_plain_data_is_checked_field_by_field():
    assert Item.from_dict({"uid": "a", "source": "b", "more": 1}) == Item("a", "b")
    assert ItemResult.from_dict({"uid": "", "status": "done", "seconds": 1}).seconds == 1
    for data in (
        {"uid": "a", "source": 1},
        {"uid": "../a", "source": "b"},
        {"uid": "a"},
        {"uid": ["a"], "source": "b"},
        [],
        None,
    ):
        with pytest.raises(ValueError, match="no Item"):
            Item.from_dict(data)
    for data in ({"uid": "a", "status": "done", "views": "3"}, {"uid": "a", "status": None}):
        with pytest.raises(ValueError, match="no ItemResult"):
            ItemResult.from_dict(data)
