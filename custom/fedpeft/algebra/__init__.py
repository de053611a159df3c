"""Tensors in, tensors out: the mathematics of averaging adapters, with no model, file or network in sight.

Come here for the exact average of low-rank products (`lowrank`), the best one of adapters that share their bases
(`tucker`, with `hooi` and `gauge`), the rotations that keep factors and optimiser moments in one basis (`align`), the
averaging rule of every parameter (`average`) and the encodings that travel (`codec`).
Everything is a pure function of its arguments; the only third-party package is torch.
"""
