"""The checks of `bouquet doctor`: one module per subject."""
