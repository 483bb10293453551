"""The simulation room: tracks, the MuJoCo car, the road camera, rewards, environments."""
