"""Fonts for the names in pictures: matplotlib's own and, for characters that it lacks, some of the system's."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from stages.plot.defaults import (
    FontEntry,
    FontProperties,
    FT2Font,
    findfont,
    findSystemFonts,
    fontManager,
    get_font,
    rc_context,
    rcParams,
    ttfFontProperty,
)

OWN = "DejaVu Sans"
REGULAR = (400, "normal", "normal")  # weight, style, stretch


@contextmanager
def fonts_for(names: Iterable[str]) -> Iterator[str]:
    """Add fonts of the system, while the block draws, for those characters of the names that matplotlib's font lacks.

    Yield the characters that no font has, sorted. If matplotlib's font has them all, the system's are not searched.
    """
    missing = {character for name in names for character in name if not character.isspace() and not drawn(character)}
    families = [OWN]
    for entry, characters in covering(missing, findSystemFonts() if missing else []):
        if all(entry.fname != known.fname for known in fontManager.ttflist):
            fontManager.addfont(entry.fname)
        families.append(entry.name)
        missing -= characters
    with rc_context({"font.family": families} if len(families) > 1 else {}):
        yield "".join(sorted(missing))


def drawn(character: str) -> bool:
    """Return whether a font in use has the character."""
    fonts = (get_font(findfont(FontProperties(family=[family]))) for family in rcParams["font.family"])
    return any(font.get_char_index(ord(character)) for font in fonts)


def covering(characters: set[str], paths: Iterable[str]) -> Iterator[tuple[FontEntry, set[str]]]:
    """Yield as few of these fonts as have the characters, those with the most first, each with what it adds.

    Of equal ones, a regular one comes before a bold or slanted one. The order of the paths does not matter.
    """
    fonts = []
    for path in sorted(paths):
        with suppress(Exception):  # a file that is damaged, or of a kind that matplotlib cannot draw, raises anything
            font = FT2Font(path)
            had = {character for character in characters if font.get_char_index(ord(character))}
            if had and font.family_name != OWN:
                fonts.append((ttfFontProperty(font), had))
    fonts.sort(key=lambda item: (item[0].weight, item[0].style, item[0].stretch) != REGULAR)
    missing = set(characters)
    while fonts and missing:
        entry, had = max(fonts, key=lambda item: len(item[1] & missing))
        if not had & missing:
            break
        yield entry, had & missing
        missing -= had
