"""What is measured of the stability tools: a bank of labelled histories, calibration and scorecard."""
