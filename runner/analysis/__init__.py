"""What reads finished records and says something about them. Knows nothing of configs, models or how a run is played."""
