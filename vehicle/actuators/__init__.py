"""Actuators behind one protocol (`vehicle.actuators.base`): GPIO, kernel PWM, PCA9685, the bridge, the simulation."""
