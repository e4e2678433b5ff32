"""A five by seven bitmap font for the slate: capitals, digits and other characters of camera names."""

from __future__ import annotations

from typing import Final

GLYPH_WIDTH: Final = 5
GLYPH_HEIGHT: Final = 7

# Seven rows a glyph, five bits a row, the leftmost pixel is the highest bit.
_GLYPHS: Final = {
    " ": bytes.fromhex("00 00 00 00 00 00 00"),
    "A": bytes.fromhex("0e 11 11 1f 11 11 11"),
    "B": bytes.fromhex("1e 11 11 1e 11 11 1e"),
    "C": bytes.fromhex("0e 11 10 10 10 11 0e"),
    "D": bytes.fromhex("1e 11 11 11 11 11 1e"),
    "E": bytes.fromhex("1f 10 10 1e 10 10 1f"),
    "F": bytes.fromhex("1f 10 10 1e 10 10 10"),
    "G": bytes.fromhex("0e 11 10 17 11 11 0e"),
    "H": bytes.fromhex("11 11 11 1f 11 11 11"),
    "I": bytes.fromhex("0e 04 04 04 04 04 0e"),
    "J": bytes.fromhex("07 02 02 02 02 12 0c"),
    "K": bytes.fromhex("11 12 14 18 14 12 11"),
    "L": bytes.fromhex("10 10 10 10 10 10 1f"),
    "M": bytes.fromhex("11 1b 15 15 11 11 11"),
    "N": bytes.fromhex("11 19 15 13 11 11 11"),
    "O": bytes.fromhex("0e 11 11 11 11 11 0e"),
    "P": bytes.fromhex("1e 11 11 1e 10 10 10"),
    "Q": bytes.fromhex("0e 11 11 11 15 12 0d"),
    "R": bytes.fromhex("1e 11 11 1e 14 12 11"),
    "S": bytes.fromhex("0f 10 10 0e 01 01 1e"),
    "T": bytes.fromhex("1f 04 04 04 04 04 04"),
    "U": bytes.fromhex("11 11 11 11 11 11 0e"),
    "V": bytes.fromhex("11 11 11 11 11 0a 04"),
    "W": bytes.fromhex("11 11 11 15 15 1b 11"),
    "X": bytes.fromhex("11 11 0a 04 0a 11 11"),
    "Y": bytes.fromhex("11 11 0a 04 04 04 04"),
    "Z": bytes.fromhex("1f 01 02 04 08 10 1f"),
    "0": bytes.fromhex("0e 13 15 15 15 19 0e"),
    "1": bytes.fromhex("04 0c 04 04 04 04 0e"),
    "2": bytes.fromhex("0e 11 01 02 04 08 1f"),
    "3": bytes.fromhex("1e 01 01 0e 01 01 1e"),
    "4": bytes.fromhex("02 06 0a 12 1f 02 02"),
    "5": bytes.fromhex("1f 10 1e 01 01 11 0e"),
    "6": bytes.fromhex("06 08 10 1e 11 11 0e"),
    "7": bytes.fromhex("1f 01 02 04 04 08 08"),
    "8": bytes.fromhex("0e 11 11 0e 11 11 0e"),
    "9": bytes.fromhex("0e 11 11 0f 01 02 0c"),
    "-": bytes.fromhex("00 00 00 0e 00 00 00"),
    "_": bytes.fromhex("00 00 00 00 00 00 1f"),
    ".": bytes.fromhex("00 00 00 00 00 0c 0c"),
    ",": bytes.fromhex("00 00 00 00 0c 04 08"),
    ":": bytes.fromhex("00 0c 0c 00 0c 0c 00"),
    "'": bytes.fromhex("04 04 08 00 00 00 00"),
    "/": bytes.fromhex("01 01 02 04 08 10 10"),
    "(": bytes.fromhex("02 04 08 08 08 04 02"),
    ")": bytes.fromhex("08 04 02 02 02 04 08"),
    "#": bytes.fromhex("0a 0a 1f 0a 1f 0a 0a"),
    "&": bytes.fromhex("08 14 14 08 15 12 0d"),
    "+": bytes.fromhex("00 04 04 1f 04 04 00"),
    "!": bytes.fromhex("04 04 04 04 04 00 04"),
    "?": bytes.fromhex("0e 11 01 02 04 00 04"),
}


def glyph(character: str) -> bytes:
    """Rows of a character; a question mark for characters the font lacks."""
    return _GLYPHS.get(character) or _GLYPHS["?"]
