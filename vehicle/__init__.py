"""What runs on the car: action space, observation, model bundle; the gate and the pilot come with issue 3."""
