"""Example reward functions, each a plain DeepRacer-style file to copy, rename and change.

``center_line`` is the default. They are loaded like a user's own file (see ``sim.reward.load_reward``), never imported.
"""
