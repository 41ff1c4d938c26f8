"""Files of every kind to series: containers, DICOM, NIfTI."""
