"""The backbone: its shape, its forward pass, masked autoencoding, moments of the residual stream."""
