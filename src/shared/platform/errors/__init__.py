"""The product's error catalogues."""
