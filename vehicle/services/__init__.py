"""Files of systemd, udev, sysusers and tmpfiles for the car; ``tools/install-car.sh`` puts them in their places."""
