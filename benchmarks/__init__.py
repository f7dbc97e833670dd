"""`make bench`: what a run costs on this fleet, beside its arithmetic, stock Flower and Flower's simulation."""
