"""Checkpoints: the state of a member and of every random generator, written atomically."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ukb_infer.errors import RunError
from ukb_infer.storage import atomic_path
from ukb_infer.training.history import write_history

#: Incremented whenever the format of the state changes.
CHECKPOINT_FORMAT = 3


@dataclass(frozen=True)
class Checkpoint:
    """Checkpoint of a member.

    Attributes:
        path: file; ``history.csv`` is written next to it.
        device: of the training.
        identity: what a resumed training must have in common with the original one.
    """

    path: Path
    device: torch.device
    identity: str

    def save(self, state: dict[str, Any]) -> None:
        """Write the state and its history; on a full disk the previous one stays.

        Raises:
            RunError: it cannot be written.
        """
        on_cuda = self.device.type == "cuda"
        generators = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if on_cuda else []}
        whole = {"format": CHECKPOINT_FORMAT, "identity": self.identity, "generators": generators, "state": state}
        try:
            with atomic_path(self.path) as partial:
                torch.save(whole, partial)
            write_history(self.path.parent, state["history"])
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            reason = " ".join(str(error).split())[:160]
            raise RunError(
                f"{self.path}: cannot be written ({reason}); free space or restore access, then run the same "
                "command again; the previous checkpoint is kept"
            ) from error

    def load(self) -> dict[str, Any] | None:
        """The state, with all generators restored; None if nothing was saved yet.

        Raises:
            RunError: it cannot be read, or belongs to another training or another version of the program.
        """
        if not self.path.exists():
            return None
        try:
            whole: Any = torch.load(self.path, map_location=self.device, weights_only=True)
        except Exception as error:
            raise RunError(
                f"{self.path}: cannot be read ({type(error).__name__}); remove it to train this member again"
            ) from error
        if not isinstance(whole, dict) or whole.get("format") != CHECKPOINT_FORMAT:
            raise RunError(
                f"{self.path} was written by another version of ukb-infer, which alone can resume it; finish it "
                f"there, or remove {self.path.parent} to train this member again"
            )
        if whole["identity"] != self.identity:
            raise RunError(
                f"{self.path.name} in the work folder belongs to other settings or data; use another folder or "
                "remove it"
            )
        torch.set_rng_state(whole["generators"]["cpu"].cpu())
        if len(whole["generators"]["cuda"]) == torch.cuda.device_count() and self.device.type == "cuda":
            torch.cuda.set_rng_state_all([s.cpu() for s in whole["generators"]["cuda"]])
        state: dict[str, Any] = whole["state"]
        return state
