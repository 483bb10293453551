"""The training room: PPO, distillation, runs, export, evaluation."""

import os

# Simulator and PyTorch take turns on the same cores. PyTorch's idle threads must sleep, not spin, while the simulator
# runs; OpenMP reads this once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
