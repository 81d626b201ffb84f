"""LeMiCa's tables (arXiv 2511.00090) measured again on any model that the engine opens; see docs/reproduction.md."""
