"""A 5x7 bitmap font for burning a name and a clock into test pictures.

The av wheel has no drawtext filter, and one small alphabet does not justify an imaging library.
"""

from __future__ import annotations

from typing import Final

GLYPH_WIDTH: Final = 5
GLYPH_HEIGHT: Final = 7

_ART: Final = """
!     -     .     /     0     1     2     3     4     5     6     7     8     9
..#.. ..... ..... ..... .###. ..#.. .###. ##### ...#. ##### ..##. ##### .###. .###.
..#.. ..... ..... ....# #...# .##.. #...# ...#. ..##. #.... .#... ....# #...# #...#
..#.. ..... ..... ...#. #..## ..#.. ....# ..#.. .#.#. ####. #.... ...#. #...# #...#
..#.. ##### ..... ..#.. #.#.# ..#.. ...#. ...#. #..#. ....# ####. ..#.. .###. .####
..#.. ..... ..... .#... ##..# ..#.. ..#.. ....# ##### ....# #...# .#... #...# ....#
..... ..... .##.. #.... #...# ..#.. .#... #...# ...#. #...# #...# .#... #...# ...#.
..#.. ..... .##.. ..... .###. .###. ##### .###. ...#. .###. .###. .#... .###. .##..
:     ?     A     B     C     D     E     F     G     H     I     J     K     L
..... .###. .###. ####. .###. ###.. ##### ##### .###. #...# .###. ..### #...# #....
.##.. #...# #...# #...# #...# #..#. #.... #.... #...# #...# ..#.. ...#. #..#. #....
.##.. ....# #...# #...# #.... #...# #.... #.... #.... #...# ..#.. ...#. #.#.. #....
..... ...#. #...# ####. #.... #...# ####. ####. #.### ##### ..#.. ...#. ##... #....
.##.. ..#.. ##### #...# #.... #...# #.... #.... #...# #...# ..#.. ...#. #.#.. #....
.##.. ..... #...# #...# #...# #..#. #.... #.... #...# #...# ..#.. #..#. #..#. #....
..... ..#.. #...# ####. .###. ###.. ##### #.... .#### #...# .###. .##.. #...# #####
M     N     O     P     Q     R     S     T     U     V     W     X     Y     Z
#...# #...# .###. ####. .###. ####. .#### ##### #...# #...# #...# #...# #...# #####
##.## #...# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# #...# #...# ....#
#.#.# ##..# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# .#.#. #...# ...#.
#.#.# #.#.# #...# ####. #...# ####. .###. ..#.. #...# #...# #.#.# ..#.. .#.#. ..#..
#...# #..## #...# #.... #.#.# #.#.. ....# ..#.. #...# #...# #.#.# .#.#. ..#.. .#...
#...# #...# #...# #.... #..#. #..#. ....# ..#.. #...# .#.#. #.#.# #...# ..#.. #....
#...# #...# .###. #.... .##.# #...# ####. ..#.. .###. ..#.. .#.#. #...# ..#.. #####
"""


def _parse(art: str) -> dict[str, tuple[str, ...]]:
    lines = art.strip("\n").splitlines()
    glyphs: dict[str, tuple[str, ...]] = {" ": ("." * GLYPH_WIDTH,) * GLYPH_HEIGHT}
    for top in range(0, len(lines), GLYPH_HEIGHT + 1):
        for index, character in enumerate(lines[top].split()):
            left = index * (GLYPH_WIDTH + 1)
            rows = lines[top + 1 : top + 1 + GLYPH_HEIGHT]
            glyphs[character] = tuple(row[left : left + GLYPH_WIDTH] for row in rows)
    return glyphs


GLYPHS: Final = _parse(_ART)


def text_rows(text: str, scale: int, ink: int, paper: int) -> list[bytes]:
    """`text` as 8-bit pixel rows, one per glyph row and `scale` times as wide; unknown characters become "?".

    Every row is `width(text, scale)` bytes long; a caller paints each row `scale` times for square pixels.
    """
    glyphs = [GLYPHS.get(character, GLYPHS["?"]) for character in text.upper()]
    on, off = bytes([ink]) * scale, bytes([paper]) * scale
    return [
        off.join([b"", *(b"".join(on if dot == "#" else off for dot in glyph[row]) for glyph in glyphs), b""])
        for row in range(GLYPH_HEIGHT)
    ]


def width(text: str, scale: int) -> int:
    """How many pixels wide `text_rows` makes `text`: glyphs with one blank column before, between and after."""
    return (len(text) * (GLYPH_WIDTH + 1) + 1) * scale
