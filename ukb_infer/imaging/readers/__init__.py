"""Readers of containers, DICOM and NIfTI: from files to series."""
