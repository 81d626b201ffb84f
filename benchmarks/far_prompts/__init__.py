"""What a plan loses on prompts far from those that it was calibrated on, and whether a server could tell.

``python -m benchmarks.far_prompts MODEL_DIR NAME=GRAPH.npz ... --output FILE``: calibration prompts with new seeds,
held-out prompts, and the groups of ``far_prompts.txt``. Every video runs in full and with the first graph's plan at
each budget; the first few prompts of a group also with the plans of the other graphs, of other risks, with uniform
skipping, and with an oracle: the plan that is calibrated on this very prompt and seed. Printed are ratios to the oracle
by group, mean and worst errors by risk, and how well signals that cost nothing foretell the error. Finished work stays
in ``--folder``; ``--minutes`` ends a run early, and the same command goes on. The last line is the same as JSON.
"""
