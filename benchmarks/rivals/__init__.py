"""Caching methods of others against the planner's, on the same model and prompts, at equal cost.

One file a family of rivals: `plans` (lists of steps), `taylorseer`, `magcache` and `teacache` (rules on the serving
engine's own step cache), `stock` (diffusers' caches on Latte as it is), `recut_caches` (diffusers' caches on a Latte
whose blocks are pairs) and `cachedit`. `docs/rivals.md` says what each does and where its settings come from.
"""
