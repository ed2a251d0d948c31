"""The names of columns, in the one form in which they are compared."""

import unicodedata


def normal_name(name: str) -> str:
    """Return a name without space around it, letters with accents as single characters (NFC): `Größe` is one name."""
    return unicodedata.normalize("NFC", name).strip()
