"""The one seam to Flower's insides: what Flower 1.34 keeps private, we use here and nowhere else."""
