"""Make the tables of docs/quality.md anew from the measures, the default limits and the reasons."""

from __future__ import annotations

from pathlib import Path

from ukb_infer.quality.page import with_tables


def main() -> None:
    page = Path(__file__).parents[1] / "docs" / "quality.md"
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
