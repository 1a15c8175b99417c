"""What a template is: pure tensors, no training, no files.

Read in this order: ``slices`` (a block is twelve D x D matrices), ``tucker`` (how few numbers make them all;
alternatives of others: ``constraints``, ``tiles``), ``order`` (in which basis a prefix of channels is worth taking),
``source`` (all that a network is made from), ``target`` with ``stream`` (a network of any depth and width),
``networks`` (which sub-networks are trained), ``sizes`` (what a size costs; needs no torch, and so this file imports
nothing).
"""
