"""Cameras behind one protocol (`vehicle.cameras.base`): V4L2, CSI, HTTP, files, and the simulated one."""
