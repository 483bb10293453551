"""Physical calibration: what pulses make of degrees and metres per second, kept on disk; and the console on the car.

`mapping` computes, `values` says what is measured and checks it, `store` keeps it through power cuts with a history,
`deepracer` reads and writes the original car's file, `durable` is how anything on the car reaches the disk. This is the
lowest room: it imports no other one.
"""
