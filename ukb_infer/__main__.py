"""Entry point of ``ukb-infer`` and ``python -m ukb_infer``."""

from __future__ import annotations

import os

from ukb_infer.interrupts import prepare_signals


def main() -> None:
    """Run the command line."""
    # Torch's threads would spin while they wait and so take the cores from the processes that project scans.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    prepare_signals()
    from ukb_infer.cli import main as run

    run()


if __name__ == "__main__":
    main()
