"""Serial protocol and microcontroller firmware (issue 5)."""
