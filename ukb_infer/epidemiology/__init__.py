"""Valid use of estimates: associations, and inputs and results of genome-wide association studies."""
