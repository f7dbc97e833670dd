"""The record of a run: `metrics.json`, `history.png` and the run's folder. Knows nothing of Flower."""
