"""The training room: PPO, distillation, runs, export, evaluation."""
