"""Full-size models with random weights through the engine: seconds a video, memory, and share of the GPU's peak."""
