"""Entry point of ``ukb-infer`` and ``python -m ukb_infer``."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from ukb_infer.cli import main as run

    run()


if __name__ == "__main__":
    main()
