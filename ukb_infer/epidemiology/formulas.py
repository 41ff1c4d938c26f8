"""Formulas: which variables they use, and their matrices for estimates and for measurements."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ukb_infer.errors import RunError, UsageError
from ukb_infer.text import suggest

Float64 = NDArray[np.float64]

_TEXT = re.compile(r"'[^']*'|\"[^\"]*\"")
#: A name that is not a function, an attribute or a keyword argument.
_NAME = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\b(?![\w.]*\s*\()(?!\s*=(?!=))(?!\.\w)")
_EXAMPLE = '"liverFat ~ age + sex + bmi"'


def names_in(model: str) -> tuple[str, ...]:
    """Variables of a formula, in order.

    >>> names_in("log(liverFat) ~ bs(age, df=4) * C(site, contr.treatment('a')) + sex")
    ('liverFat', 'age', 'site', 'sex')

    Raises:
        UsageError: it has no left side.
    """
    if model.count("~") != 1 or not model.split("~")[0].strip() or not model.split("~")[1].strip():
        raise UsageError(field="model", got=model, expected=f"outcome ~ covariates, e.g. {_EXAMPLE}")
    found = _NAME.findall(_TEXT.sub("''", model.replace("`", "")))
    return tuple(dict.fromkeys(n for n in found if not keyword.iskeyword(n)))


class Formula:
    """A formula with the coding (categories, centres, knots) that it took from one table.

    Args:
        model: in formulaic's language.
        frame: (N rows) values of all its variables, none missing.

    Raises:
        UsageError: not a formula, an unknown function, or a text that cannot be an outcome.
        RunError: formulaic is not installed.
    """

    def __init__(self, model: str, frame: pd.DataFrame) -> None:
        try:
            from formulaic import Formula as Parsed
        except ImportError as error:
            raise RunError('formulas need formulaic: pip install "ukb-infer[epidemiology]"') from error
        self.model = model
        matrices = self._evaluate(lambda: Parsed(model).get_model_matrix(frame, na_action="ignore"))
        self._spec: Any = matrices.model_spec
        columns = list(matrices.lhs.columns)
        if len(columns) > 2 or (len(columns) == 2 and "[" not in columns[0]):
            raise UsageError(
                f"`model`: the outcome of {model!r} has {len(columns)} columns, expected a number or yes/no"
            )
        self.outcome: str = columns[-1]
        self.terms: tuple[str, ...] = tuple(matrices.rhs.columns)

    def matrices(self, frame: pd.DataFrame) -> tuple[Float64, Float64]:
        """(N,) outcome and (N, p) design of rows.

        Args:
            frame: values of all variables.

        Raises:
            UsageError: a transformation is not defined for all rows.
        """
        found = self._evaluate(lambda: self._spec.get_model_matrix(frame, na_action="ignore"))
        outcome = np.asarray(found.lhs, np.float64)[:, -1]
        design = np.asarray(found.rhs, np.float64)
        for name, column in zip((self.outcome, *self.terms), (outcome, *design.T), strict=True):
            if bad := int((~np.isfinite(column)).sum()):
                raise UsageError(
                    f"`model`: {name} is not a number for {bad} of {len(column)} scans; use a transformation that is "
                    "defined for every estimate and measurement (an estimate can be 0 or negative)"
                )
        return outcome, design

    def _evaluate(self, make: Callable[[], Any]) -> Any:
        """Matrices, or an error in words."""
        from formulaic.errors import FormulaicError

        try:
            with np.errstate(all="ignore"):  # what is not a number is refused below
                return make()
        except (FormulaicError, NameError, TypeError, ValueError, SyntaxError) as error:
            text = " ".join(str(error).split())[:250]
            raise UsageError(
                f"`model`: {self.model!r} cannot be evaluated ({text}); expected e.g. {_EXAMPLE}"
            ) from error


def check_names(names: tuple[str, ...], known: Mapping[str, str]) -> None:
    """Refuse names that neither the run nor the phenotypes have.

    Args:
        names: used in the formula.
        known: where each known name comes from.

    Raises:
        UsageError: unknown name.
    """
    for name in names:
        if name not in known:
            raise UsageError(
                f"{name!r} is neither a target of the run nor a column of the phenotypes{suggest(name, known)}"
                "; add it to the phenotypes, or correct the name"
            )
