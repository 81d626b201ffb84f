"""Other ways to serve the same model through the same Triton."""
