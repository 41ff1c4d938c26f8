"""The card of a module, ``MODULE.md``: what it is, how good it is, its limits, and the items of TRIPOD+AI."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ukb_infer._version import __version__
from ukb_infer.modules.calibration import half_width_of
from ukb_infer.modules.manifest import ModuleManifest
from ukb_infer.modules.tripod import filled_items
from ukb_infer.storage import atomic_write_text

CARD_NAME = "MODULE.md"
#: Sections that follow from the manifest.
CALIBRATION, _LIMITS = "Calibration", "## Limits"
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
    lines += [_LIMITS, "", *(f"- {limit}" for limit in card.limits), ""]
    missing = sum(1 for *_, text in card.items if not text)
    lines += [
        "## TRIPOD+AI", "",
        f"Items after Collins et al., BMJ 2024;385:e078378, in our words. {missing} of {len(card.items)} are missing: "
        "only the authors of a study can write them.", "",
        "| item | section | asked for | answer |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [_row(*item) for item in card.items]
    return "\n".join([*lines, ""])


def _row(number: str, section: str, asked: str, text: str) -> str:
    return f"| {number} | {section} | {asked} | {_cell(text) or MISSING + asked} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def update_card(folder: Path, before: ModuleManifest, after: ModuleManifest) -> None:
    """Let a module's card follow its manifest; what else was written in it stays. Modules without a card stay without.

    Args:
        folder: of the module.
        before: manifest that the card was written for.
        after: manifest now.

    Raises:
        OSError: the card cannot be read or written.
    """
    path = folder / CARD_NAME
    if path.is_file():
        atomic_write_text(path, updated_card(path.read_text(encoding="utf-8"), before, after))


def updated_card(text: str, before: ModuleManifest, after: ModuleManifest) -> str:
    """A card in which warning, calibration, limits and items of TRIPOD+AI are those of another manifest.

    Args:
        text: of the card; only lines are replaced that are as they were written for ``before``.
        before: manifest that the card was written for.
        after: manifest now.
    """
    cards = [Card(name=m.name, known=known_of_module(m), tables={}) for m in (before, after)]
    old, new = ([_row(*item) for item in card.items] for card in cards)
    swapped = dict(zip(old, new, strict=True))
    gone = {f"- {limit}" for limit in limits_of_module(before)} - {f"- {limit}" for limit in limits_of_module(after)}
    added = [f"- {limit}" for limit in limits_of_module(after) if limit not in limits_of_module(before)]
    lines = [swapped.get(line, line) for line in _without_section(text.splitlines(), CALIBRATION) if line not in gone]
    lines[:1] = [line.replace(before.name, after.name) for line in lines[:1]]
    if f"**{before.warning}**" in lines and before.warning != after.warning:
        at = lines.index(f"**{before.warning}**")
        lines[at : at + (1 if after.warning else 2)] = [f"**{after.warning}**"] if after.warning else []
    at = lines.index(_LIMITS) if _LIMITS in lines else len(lines)
    lines[at:at] = [f"## {CALIBRATION}", "", *calibration_markdown(after).splitlines(), ""]
    end = next((k for k, line in enumerate(lines) if line.startswith("- ") and _LIMITS in lines[:k]), len(lines))
    lines[end:end] = [line for line in added if line not in lines]
    missing = sum(MISSING in line for line in lines)
    return re.sub(r"\b\d+( of \d+ are missing)", rf"{missing}\1", "\n".join([*lines, ""]))


def _without_section(lines: list[str], title: str) -> list[str]:
    """Lines without those from a heading to the next."""
    if f"## {title}" not in lines:
        return lines
    first = lines.index(f"## {title}")
    last = next((k for k in range(first + 1, len(lines)) if lines[k].startswith("## ")), len(lines))
    return lines[:first] + lines[last:]


def calibration_markdown(manifest: ModuleManifest) -> str:
    """How each target is calibrated, as a table."""
    lines = [
        "| target | method | factor of the variance | half width of the 95 % interval, sd | fitted on |",
        "|---|---|---|---|---|",
    ]
    for target in manifest.targets:
        own = target.calibration
        method = "probability" if own.curve else own.method
        half = None if target.kind == "binary" or own.method == "none" else half_width_of(own, 0.95)
        cells = (target.name, method, f"{own.factor:.4g}", "-" if half is None else f"{half:.4g}", own.fitted_on or "-")
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines)


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
        "12f": _recalibration(manifest),
        "13": f"None for {', '.join(binary)}; probabilities can be calibrated." if binary else "Does not apply.",
        "22": "The module folder: `module.json`, and weights with their SHA-256.",
        "26": manifest.warning,
    }  # fmt: skip


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def _recalibration(manifest: ModuleManifest) -> str:
    fitted = dict.fromkeys(t.calibration.fitted_on for t in manifest.targets if t.calibration.method != "none")
    if not fitted:
        return "None yet: `ukb-infer calibrate` adds it."
    return "Intervals and probabilities are calibrated on " + listed([words for words in fitted if words]) + "."


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
        limits.append(f"Intervals are not calibrated: {listed(uncalibrated)}.")
    reference = manifest.outputs.outliers
    limits.append(
        "Unusual scans are not noticed: the module has no outlier reference (`ukb-infer modules fit-outliers`)."
        if reference is None
        else f"Outlier scores compare a scan with {reference.fitted_on}."
    )
    return limits
