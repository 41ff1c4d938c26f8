"""The demonstration: labelled phantoms, the shipped ensemble and its making."""
