"""Block engines: what runs a model's block stack in place of torch's eager mode.

A family lends its blocks as `stack.BlockStack`, a function of plain tensors; an engine builds an artifact from it
offline (`artifacts`, ``lemica compile``) and runs that in service (`engine_stack`). Stem, head, text encoder and
autoencoder stay in torch.
"""
