"""A Flower App whose model has any size, and no framework: what it uses of memory is what Flower and Bouquet use."""
