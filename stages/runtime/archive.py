"""Open zip archives written by torch.save or np.savez, and only those that every reader reads the same way.

A zip file can be ambiguous: two records with the same name, two archives one after the other, records that overlap or
that unpack to more than the disk holds. Neither torch.save nor np.savez writes such a file.
"""

import os
import struct
import zipfile
from itertools import pairwise
from typing import BinaryIO

# From the specification of the format, PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.9 and 4.3.14 to 4.3.16.
HEADER = struct.Struct("<4s5H3I2H")  # before each record
DESCRIPTOR_BYTES = {0, 16, 24}  # after each record; 0 where there is none
END64, LOCATOR, END = struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI"), struct.Struct("<4s4H2IH")


def opened(file: BinaryIO) -> zipfile.ZipFile:
    """Return the archive that fills a seekable file, from its first byte to its last.

    Raises ValueError, or whatever zipfile raises, if the file is damaged or is anything but uncompressed records, one
    directly after the other.
    """
    archive = zipfile.ZipFile(file)
    entries = archive.infolist()
    names = [entry.orig_filename for entry in entries]  # exactly as in the file
    starts = [entry.header_offset for entry in entries]
    if (
        any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        or len(set(names)) < len(names)
        or names != archive.namelist()
        or starts[:1] != [0]  # something stands before the archive
        or _directory(file) != archive.start_dir  # or behind it, or there are two directories
    ):
        raise ValueError
    for entry, (start, following) in zip(entries, pairwise([*starts, archive.start_dir]), strict=True):
        file.seek(start)
        *_, name_bytes, extra_bytes = HEADER.unpack(file.read(HEADER.size))
        if following - (start + HEADER.size + name_bytes + extra_bytes + entry.file_size) not in DESCRIPTOR_BYTES:
            raise ValueError
    if archive.testzip():  # neither torch nor NumPy checks all checksums
        raise ValueError
    return archive


def _directory(file: BinaryIO) -> int:
    """Return where the directory begins, according to the end of the file. Raises ValueError if that is malformed."""
    end = file.seek(-END.size, os.SEEK_END)
    signature, *_, directory, comment_bytes = END.unpack(file.read())
    if signature != b"PK\5\6" or comment_bytes:
        raise ValueError
    if end >= LOCATOR.size + END64.size:
        file.seek(end - LOCATOR.size)
        signature, _, end64, _ = LOCATOR.unpack(file.read(LOCATOR.size))
        if signature == b"PK\6\7":
            if end64 != file.seek(end - LOCATOR.size - END64.size):
                raise ValueError
            *_, directory = END64.unpack(file.read(END64.size))
    return directory
