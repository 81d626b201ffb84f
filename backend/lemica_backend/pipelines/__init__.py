"""Any pipeline of diffusers, run as it is with the step cache installed by hooks: one request at a time."""
