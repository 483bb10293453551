"""What runs on the car: model bundle and slots, pilot, gate and guard, cameras, actuators, the console process."""
