"""The demonstration: labelled phantoms, the shipped ensemble and how it is made."""
