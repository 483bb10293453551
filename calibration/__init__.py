"""Physical calibration and the console on the car (issue 4)."""
