"""Text as a JSON string."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.log.quoting import ESCAPES_QUICKLY, encode_text, quote
from app.log.record import decode_block, encode_lines
from tests.kit.places import ROOT
from tests.kit.requiring import require

AT = "2026-11-22T06:08:00.123456Z"
MISSING = "raise ImportError('not made for this system')"
UNKNOWN = "__version__ = '0.0.25'; dumps = repr"


@pytest.fixture(autouse=True)
def _quick_where_it_can_be() -> None:
    """See that these tests are about the encoder that this machine can have."""
    can_be = os.uname().machine == "x86_64"
    require(find_spec("ssrjson") or not can_be, "ssrjson, see requirements-quick.txt")
    assert can_be == ESCAPES_QUICKLY


def to_json(text: str) -> str:
    """Return text as a JSON string, as the standard library does it."""
    return json.dumps(text, ensure_ascii=False)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 100_000))
def test_text_is_the_inside_of_a_json_string(text: str, times: int) -> None:
    """encode_text gives what a JSON string holds between its quotes, in however many pieces it was escaped."""
    much = text * min(times, 40_000 // (len(text) + 1))
    assert encode_text(much) == to_json(much)[1:-1].encode()


@given(st.text(st.characters(exclude_categories=["Cs"])).map(str.encode) | st.binary(), st.integers(0, 300))
def test_bytes_are_escaped_as_the_standard_library_does(text: bytes, before: int) -> None:
    """Wherever in the encoder's vectors a byte falls, it comes out as from Python's own."""
    padded = b"." * before + text
    assert quote(padded) == to_json(padded.decode("latin-1")).encode("latin-1")


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129])
def test_each_byte_is_escaped_at_each_place_of_a_vector(length: int) -> None:
    """However many bytes are taken at once, each of the 256 comes out right at each place, and so do its neighbours."""
    for place in range(length):
        for byte in range(256):
            text = b"." * place + bytes([byte]) + b'"' * (length - place - 1)
            assert quote(text) == to_json(text.decode("latin-1")).encode("latin-1")


@pytest.mark.parametrize("ssrjson", [MISSING, UNKNOWN])
def test_lines_are_escaped_without_the_quick_encoder(tmp_path: Path, ssrjson: str) -> None:
    """Where ssrjson is missing, or is not the one that was looked into, lines come out the same without it."""
    (tmp_path / "ssrjson.py").write_text(ssrjson)
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "from app.log.quoting import ESCAPES_QUICKLY; from app.log.record import encode_lines\n"
        "output = sys.stdin.buffer.read(); at = sys.argv[1]\n"
        "sys.stdout.buffer.writelines(block for block, _ in encode_lines(9_000, at, output, 0, len(output)))\n"
        "sys.exit(ESCAPES_QUICKLY)"
    )
    output = b'\x1b[1mone\x1b[0m "2" \\ \xf0\x9f\x9a\x80\n\xff\x00\n' * 3000
    result = subprocess.run([sys.executable, "-c", code, AT], input=output, capture_output=True, check=True)
    assert result.stdout == b"".join(block for block, _count in encode_lines(9_000, AT, output, 0, len(output)))
    texts = output.decode(errors="backslashreplace").splitlines()
    assert [(record.seq, record.line) for record in decode_block(result.stdout)] == list(enumerate(texts, 9_000))
