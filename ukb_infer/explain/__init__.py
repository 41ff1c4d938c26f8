"""Explanations: which pixels of a projection an estimate rests on."""
