"""The card of a module, ``MODULE.md``: what it is, how good it is, its limits, and the items of TRIPOD+AI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ukb_infer._version import __version__
from ukb_infer.modules.manifest import ModuleManifest
from ukb_infer.modules.tripod import filled_items

CARD_NAME = "MODULE.md"
MISSING = "**missing**: "
#: Most names in a sentence.
MOST_NAMED = 8

#: Items that hold for whatever this program estimates.
COMMON = {
    "7": "Scans are read and checked by ukb-infer, for everyone alike: each is used, repaired and flagged, or refused "
    "with a reason code; image quality is measured.",
    "9a": "All pixels; nothing was chosen.",
    "9c": "Nobody: images are not judged by people.",
    "11": "Missing labels are masked, target by target; scans without any label are left out; scans that cannot be "
    "read are refused.",
    "12b": "Pixels are scaled linearly, for all scans alike; targets are standardized over all labels.",
    "12e": "Agreement (ICC(2,1), R², MAE, bias), calibration (coverage of the intervals, AUCE), and whether the "
    "standard deviation ranks errors; for 0/1 targets AUROC, Brier score, calibration error and slope.",
    "12g": "By `ukb-infer predict` or `cross-validate`, from images alone.",
    "15": "Per target mean, standard deviation and prediction interval; of 0/1 targets a probability, with 0.5 as the "
    "threshold of the class.",
    "18f": f"ukb-infer {__version__}, Apache-2.0.",
    "27a": "A scan that cannot be used has no estimate but a reason; quality flags and outlier scores mark others.",
    "27b": "None but looking at flagged scans: `ukb-infer report`.",
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says.

    Attributes:
        name: of the module or evaluation.
        warning: shown first; "" for none.
        known: text by number of the item of TRIPOD+AI, beside :data:`COMMON`.
        limits: one sentence each.
        tables: Markdown by title.
    """

    name: str
    warning: str = ""
    known: Mapping[str, str]
    limits: Sequence[str] = ()
    tables: Mapping[str, str]

    @property
    def items(self) -> list[tuple[str, str, str, str]]:
        """Number, section, what is asked for, and what is known or ""."""
        known = {**COMMON, **{number: text for number, text in self.known.items() if text}}
        return [(item.number, item.section, item.asked, text) for item, text in filled_items(known)]


def card_markdown(card: Card) -> str:
    """The card as Markdown."""
    lines = [f"# {card.name}", ""]
    lines += [f"**{card.warning}**", ""] if card.warning else []
    for title, table in card.tables.items():
        lines += [f"## {title}", "", table.strip(), ""]
    lines += ["## Limits", "", *(f"- {limit}" for limit in card.limits), ""]
    missing = sum(1 for *_, text in card.items if not text)
    lines += [
        "## TRIPOD+AI", "",
        f"Items after Collins et al., BMJ 2024;385:e078378, in our words. {missing} of {len(card.items)} are missing: "
        "only the authors of a study can write them.", "",
        "| item | section | asked for | answer |", "|---|---|---|---|",
    ]  # fmt: skip
    rows = ((n, section, asked, _cell(text) or MISSING + asked) for n, section, asked, text in card.items)
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def known_of_module(manifest: ModuleManifest) -> dict[str, str]:
    """Items that a module's manifest answers."""
    targets, training = manifest.targets, manifest.training
    binary = [t.name for t in targets if t.kind == "binary"]
    settings = ("optimizer", "learning_rate", "iterations", "batch_size", "init")
    steps = "".join(f", {name} {training[name]}" for name in settings if name in training)
    count, share = len(manifest.members) or training.get("networks", ""), training.get("validation")
    return {
        "1": f"Development of {manifest.name} {manifest.version}, which estimates {len(targets)} targets from MRI.",
        "3b": manifest.intended_use,
        "4": "Development.",
        "5a": manifest.provenance,
        "8a": "Labels of: " + listed([f"{t.name} ({t.unit})" if t.unit else t.name for t in targets]) + ".",
        "9b": f"The images of {_input(manifest)}.",
        "10": f"All scans with a label ({training['scans']}); no calculation." if "scans" in training else "",
        "12a": f"Each network set aside a share of {share:g} of its participants to choose its weights; both visits of "
        "a participant are always together." if isinstance(share, int | float) else "",
        "12c": f"{count} {manifest.network.encoder} networks in an ensemble{steps}. Settings: `module.json`.",
        "12f": "`module.json` says how each target is calibrated; without `ukb-infer calibrate` none is.",
        "13": f"None for {', '.join(binary)}; probabilities can be calibrated." if binary else "Does not apply.",
        "22": "The module folder: `module.json`, and weights with their SHA-256.",
        "26": manifest.warning,
    }  # fmt: skip


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def _input(manifest: ModuleManifest) -> str:
    recipe = getattr(manifest.input, "recipe", "")
    channels = ", ".join(getattr(manifest.input, "channels", ()))
    return f"recipe {recipe} ({channels})" if recipe else "the module's input"


def limits_of_module(manifest: ModuleManifest) -> list[str]:
    """Limits that hold for a module whatever its accuracy."""
    uncalibrated = [t.name for t in manifest.targets if t.calibration.method == "none" and t.kind != "binary"]
    limits = [
        "Estimates are not measurements; they are for research, not for decisions about single people.",
        "Accuracy and calibration hold for people and scanners like those that it was trained and calibrated on.",
        "Estimates shrink toward the mean of the training data: small and large values are estimated less extreme.",
    ]
    if uncalibrated:
        limits.append(f"Intervals were not calibrated when this was written: {listed(uncalibrated)}.")
    return limits
