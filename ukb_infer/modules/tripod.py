"""The items of TRIPOD+AI, in our words: what a report of a prediction model should say.

Source: Collins et al., TRIPOD+AI statement, BMJ 2024;385:e078378.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """An item: its number, the section it belongs to, and what is asked for."""

    number: str
    section: str
    asked: str


_TABLE = """
1 | Title | that a prediction model is developed or evaluated, for whom, which outcome
2 | Abstract | a structured summary
3a | Background | the context and why the model is wanted
3b | Background | who it is for, its purpose, who is to use it
3c | Background | known health inequalities between groups
4 | Objectives | whether development, evaluation or both
5a | Data | sources of the data, and whether they represent the target population
5b | Data | dates of collection, and of follow-up
6a | Participants | setting and centres
6b | Participants | who was eligible
6c | Participants | treatments, if they matter
7 | Data preparation | checks and preprocessing, and whether alike across groups
8a | Outcome | what is predicted and how it was measured
8b | Outcome | who assessed it, if that takes judgement
8c | Outcome | whether assessors were blind to the predictors
9a | Predictors | how they were chosen
9b | Predictors | what they are and how they were measured
9c | Predictors | who assessed them, if that takes judgement
10 | Sample size | how it was arrived at
11 | Missing data | how they were handled
12a | Analysis | how the data were divided
12b | Analysis | how predictors were transformed
12c | Analysis | kind of model, how it was built, tuned and validated internally
12d | Analysis | differences between clusters such as centres
12e | Analysis | measures of performance and why these
12f | Analysis | updating of the model, such as recalibration
12g | Analysis | how predictions were calculated in the evaluation
13 | Class imbalance | methods against it, and recalibration after them
14 | Fairness | how it was approached
15 | Output | what the model returns, and thresholds
16 | Training and evaluation | how their data differ
17 | Ethics | approval and consent
18a | Open science | funding
18b | Open science | conflicts of interest
18c | Open science | protocol
18d | Open science | registration
18e | Open science | availability of the data
18f | Open science | availability of the code
19 | Involvement | of patients and the public
20a | Participants | their flow through the study, and how many had the outcome
20b | Participants | their characteristics, overall and by source
20c | Participants | how those of the evaluation differ
21 | Development | participants and outcomes in each analysis
22 | Specification | everything that predicting for a new person takes
23a | Performance | estimates with confidence intervals, also in groups
23b | Performance | differences between clusters
24 | Updating | results of it
25 | Interpretation | of the main results, also of fairness
26 | Limitations | of the study
27a | Usability | what is done about poor or missing input
27b | Usability | what users have to do and to know
27c | Usability | next steps for research
"""

#: All items by number.
ITEMS: dict[str, Item] = {
    item.number: item
    for item in (Item(*(part.strip() for part in line.split("|"))) for line in _TABLE.strip().splitlines())
}


def filled_items(known: Mapping[str, str]) -> list[tuple[Item, str]]:
    """Every item with what is known of it, or "" where its authors have to write it.

    Args:
        known: text by number.

    Raises:
        KeyError: there is no item of a number.
    """
    for number in known:
        ITEMS[number]
    return [(item, known.get(number, "")) for number, item in ITEMS.items()]
