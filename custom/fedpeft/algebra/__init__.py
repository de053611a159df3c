"""Tensors in, tensors out: the mathematics of averaging adapters, without models, files or networks.

``average`` applies the averaging rule of every parameter (``rules``): means, the exact average of low-rank products
(``lowrank``), the best average of adapters that share their bases (``tucker``, with ``hooi`` and ``gauge``). ``align``
finds the rotations that keep factors and optimiser moments in one basis. ``codec`` encodes and decodes what travels
(``codecs``). Everything is a pure function of its arguments; the only third-party package is torch.
"""
