"""One HTML file from the template, the built script and the data beside them in ``page/``."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ukb_infer.errors import RunError, UsageError
from ukb_infer.report.packing import encode
from ukb_infer.storage import atomic_path

PAGE = Path(__file__).with_name("page")
#: What the template's places are called: ``{{title}}``.
_OPEN, _CLOSE = "{{", "}}"


def script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("&", "\\u0026")


def blob(name: str, data: bytes) -> str:
    """Bytes as an element that the page's script reads.

    Args:
        name: its id.
        data: its content.
    """
    return f'<script type="text/plain" id="{html.escape(name)}" data-size="{len(data)}">{encode(data)}</script>\n'


def check_name(out: Path) -> None:
    """Refuse a name that a browser would not open as a page.

    Raises:
        UsageError: it does not end in .html, or is a folder.
    """
    if out.is_dir():
        raise UsageError(f"{out} is a folder; expected the name of a page, such as {out / 'report.html'}", field="out")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out} does not end in .html; the report is a page for a browser", field="out")


def write_page(out: Path, title: str, head: Mapping[str, Any], blobs: Iterable[tuple[str, bytes]] = ()) -> Path:
    """Write a page, whole or not at all.

    Args:
        out: the file; its folder is made.
        title: of the page.
        head: what the page says of the run and its columns.
        blobs: names and contents of columns and pictures.

    Raises:
        RunError: it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(out) as partial, partial.open("w", encoding="ascii", errors="xmlcharrefreplace") as file:
            file.writelines(page_pieces(title, head, blobs))
    except OSError as error:
        raise RunError(f"`out` {out} cannot be written ({error.strerror}); choose another place") from error
    return out


def page_pieces(title: str, head: Mapping[str, Any], blobs: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    """The page, piece by piece; the text that shows at once comes first, the columns last.

    Args:
        title: of the page.
        head: what the page says of the run and its columns.
        blobs: names and contents of columns and pictures.
    """
    template, script, style = (
        (PAGE / name).read_text(encoding="utf-8") for name in ("template.html", "built/report.js", "report.css")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {"title": html.escape(title), "style": style, "script": script, "digest": digest,
              "head": script_json(head)}  # fmt: skip
    before, _, after = template.partition(f"{_OPEN}blobs{_CLOSE}")
    yield _filled(before, values)
    for name, data in blobs:
        yield blob(name, data)
    yield after


def _filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its places filled, each once, so that no value is read as a template."""
    pieces = []
    rest = template
    while _OPEN in rest:
        before, _, rest = rest.partition(_OPEN)
        name, _, rest = rest.partition(_CLOSE)
        pieces += [before, values[name]]
    return "".join((*pieces, rest))
