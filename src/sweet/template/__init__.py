"""What a template is: pure tensors, no training, no files.

Read in this order: ``slices`` (a block is twelve D x D matrices), ``tucker`` (how few numbers make them all; its
rivals: ``constraints``, ``tiles``), ``order`` (in which basis a prefix of channels is worth taking), ``target`` (a
network of any depth and width), ``networks`` (which sub-networks are trained), ``sizes`` (what a size costs; needs no
torch, and so this file imports nothing).
"""
