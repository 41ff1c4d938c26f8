"""Text files in any encoding that spreadsheets write, and messages for other files."""

from __future__ import annotations

import codecs
from pathlib import Path

from ukb_infer.errors import UsageError

_IN_R = "in R: write.csv(x, FILE, row.names = FALSE)"
#: First bytes of a SAS data set.
_SAS = b"\0" * 12 + b"\xc2\xea\x81\x60"
#: First bytes of other files, what they are, and how to convert them to text.
_BINARY: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a spreadsheet (.xlsx, .ods) or a zip", "save the sheet as `CSV UTF-8`"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", "save the sheet as `CSV UTF-8`"),
    (b"\x1f\x8b", "compressed (gzip, or R's .rds and .RData)", f"unpack it with gunzip; {_IN_R}"),
    (b"BZh", "compressed (bzip2)", "unpack it with bunzip2"),
    (b"\xfd7zXZ", "compressed (xz)", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)", "unpack it with unzstd"),
    (b"RDX", "an R workspace", _IN_R),
    (b"PAR1", "a Parquet file", "name it .parquet, or write it as CSV"),
    (b"$FL", "an SPSS file (.sav)", "in SPSS: File, Save As, CSV"),
    (_SAS, "a SAS data set", "in SAS: proc export dbms=csv"),
    (b"<stata_dta>", "a Stata file (.dta)", "in Stata: export delimited using FILE, nolabel"),
    (b"%PDF", "a PDF", "export the table as CSV"),
)
_HEAD_BYTES = 4096


def encoding_of(path: Path, where: str) -> str:
    """Encoding of a text file: by its byte order mark, UTF-16 without one, else UTF-8.

    Args:
        path: of the file.
        where: begins the messages, e.g. ``exclude``.

    Raises:
        UsageError: unreadable or not text; says what it is and how to convert it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise UsageError(f"{where}: cannot be read ({error.strerror}); check the path and its permissions") from error
    for start, what, remedy in _BINARY:
        if head.startswith(start):
            raise UsageError(f"{where}: is {what}, expected text; {remedy}")
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    nulls = [head[k::2].count(0) for k in (0, 1)]
    for half, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if nulls[half] > len(head) // 4 and nulls[1 - half] == 0:
            return encoding
    if any(nulls):
        raise UsageError(f"{where}: contains a NUL byte, expected text; save it as CSV in UTF-8")
    return "utf-8-sig"


def read_text(path: Path, where: str, max_bytes: int) -> str:
    """The whole text; bytes that are not Unicode are kept, so that file names survive.

    Args:
        path: of the file.
        where: begins the messages.
        max_bytes: largest size that is read.

    Raises:
        UsageError: too large, unreadable or not text.
    """
    encoding = encoding_of(path, where)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise UsageError(
                f"{where}: {size} bytes is too large for a list, expected at most {max_bytes}; check the path"
            )
        errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
        text = path.read_text(encoding=encoding, errors=errors)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{where}: cannot be read as text ({error}); save it as CSV in UTF-8") from error
    if "\0" in text:
        raise UsageError(f"{where}: contains a NUL byte, expected a text list, one scan per line")
    return text
