"""Open zip archives written by torch.save or np.savez, and only those that every reader reads the same way.

A zip file can be ambiguous: two records with the same name, two archives one after the other, records that overlap or
that unpack to more than the disk holds. Neither torch.save nor np.savez writes such a file.
"""

import os
import re
import struct
import zipfile
from typing import BinaryIO

# The last three parts of a large archive, from the specification of the format, PKWARE's APPNOTE.TXT, sections 4.3.14
# to 4.3.16. A small one has only the last part.
TAIL = struct.Struct("<48xQ 4s4xQ4x 4s12xI2x")


RECORD = re.compile(  # what torch.save calls its records, in a folder named after the file
    r"([^/]+)/(data\.pkl|data/\d+|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id)"
)


def torch_pickle(file: BinaryIO) -> bytes:
    """Return the pickle in a seekable file, for which torch.load then reads the same one, from the file's first byte.

    Raises ValueError, or whatever zipfile raises, if the file is damaged or is not as torch.save writes it.
    """
    with opened(file) as archive:
        names = [RECORD.fullmatch(name) for name in archive.namelist()]
        folders = {name and name[1] for name in names}  # None if torch.save writes no such record
        folder = folders.pop()
        if folders or archive.read(f"{folder}/byteorder") != b"little":
            raise ValueError
        pickle = archive.read(f"{folder}/data.pkl")
    file.seek(0)
    return pickle


def opened(file: BinaryIO) -> zipfile.ZipFile:
    """Return the archive that fills a seekable file, from its first byte to its last.

    Raises ValueError, or whatever zipfile raises, if the file is damaged or is anything but uncompressed records.
    """
    archive = zipfile.ZipFile(file)
    entries = archive.infolist()
    names = [entry.orig_filename for entry in entries]  # exactly as in the file
    size = file.seek(0, os.SEEK_END)
    file.seek(size - TAIL.size)
    directory64, locator, end64, end, directory = TAIL.unpack(file.read())
    if locator == b"PK\6\7":
        directory = directory64 if end64 == size - TAIL.size else None
    if (
        any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        or len(set(names)) < len(names)
        or names != archive.namelist()
        or sum(entry.file_size for entry in entries) > size  # they overlap
        or min(entry.header_offset for entry in entries) != 0  # something stands before the archive
        or end != b"PK\5\6"  # or behind it
        or directory != archive.start_dir  # or there are two directories
        or archive.testzip()  # neither torch nor NumPy checks all checksums
    ):
        raise ValueError
    return archive
