"""Ostinato's speed, as ratios against peers and physical limits measured in the same run. README.md here says how."""
