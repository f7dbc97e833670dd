"""`make bench`: the cost of a run on this fleet, compared with its arithmetic, stock Flower and Flower's simulation."""
