"""Write docs/reasons.md from the reason codes in ukb_infer.reasons."""

from __future__ import annotations

from pathlib import Path

from ukb_infer.reasons import reason_table


def main() -> None:
    (Path(__file__).parents[1] / "docs" / "reasons.md").write_text(reason_table(), encoding="utf-8")


if __name__ == "__main__":
    main()
