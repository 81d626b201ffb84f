"""A small Open-Sora trained on the moving shapes, with the text encoder and the autoencoder of `latte_shapes`.

Unlike `shapes` it imports the backend: the transformer and the folder's layout are there.
"""
