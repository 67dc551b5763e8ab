"""Strings and their bytes: cut between tokens, decoded as they arrive, made printable."""

import codecs
import re
from collections.abc import Iterable, Iterator

PIECE = 1 << 16  # characters that are tokenised at a time
# No vocabulary has a token that extends across such a place (bpe: see the pattern of GPT-2).
BOUNDARY = re.compile(r"(?<=\S)(?=[ \n])")


def cut(chunks: Iterable[str], size: int = PIECE) -> Iterator[str]:
    """Cuts a text between tokens, so that encoding the pieces one by one encodes the text.

    Args:
        chunks: the text in parts of any length, split anywhere.
        size: minimum length of a piece in characters, except for the last; longer where a text
            has neither spaces nor line breaks.
    """
    rest, searched = "", size
    for chunk in chunks:
        rest += chunk
        start = 0
        while found := BOUNDARY.search(rest, max(searched, start + size)):
            yield rest[start : found.start()]
            start = found.start()
            searched = size
        rest = rest[start:]
        searched = max(size, len(rest) - 1)
    if rest:
        yield rest


def utf8(text: str) -> bytes:
    """The bytes of a text; half a surrogate pair, which UTF-8 cannot encode, is refused."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        point = ord(text[error.start])
        raise ValueError(f"text must not hold half a surrogate pair (U+{point:04X})") from error


def text_of_bytes(parts: Iterable[bytes]) -> Iterator[str]:
    """The text of bytes that arrive in parts; a character is given with its last byte."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for part in parts:
        if text := decoder.decode(part):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def beginnings(part: bytes) -> int:
    """How many characters of a text in UTF-8 begin in some of its bytes."""
    return sum(byte & 0xC0 != 0x80 for byte in part)


def printable(text: str) -> str:
    """A text on one line: ``␣`` for a space, and Python's escapes for what cannot be printed."""
    text = text.replace(" ", "␣")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printable_bytes(part: bytes) -> str:
    """The text of bytes, or their hexadecimal codes if they are not whole characters."""
    try:
        return printable(part.decode())
    except UnicodeDecodeError:
        return "".join(f"<{byte:02X}>" for byte in part)
