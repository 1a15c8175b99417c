"""What a template is: pure tensors, no training, no files.

Read in this order: ``slices`` (a block is twelve D x D matrices), ``tucker`` (how few numbers make them all;
alternatives of others: ``constraints``, ``tiles``), ``order`` (in which basis a prefix of channels is worth taking),
``source`` (all that a network is made from), ``target`` with ``stream`` (a network of any depth and width), ``gains``
(every channel carries as much energy), ``networks`` (which sub-networks are trained), ``factored`` (what a step does
not build), ``hosvd`` with ``fold`` (dense weights become a template), ``sizes`` (what a size costs; needs no torch, and
so this file imports nothing).
"""
