"""The optimiser of both training programs: Muon for matrices and convolution kernels."""

import torch

AMX = torch.cpu._is_amx_tile_supported()  # elsewhere bfloat16 products are slower than float32 ones


class Muon:
    """Momentum orthogonalised by Newton-Schulz (K. Jordan, 2024), matrices of one shape at a time.

    Steps are scaled to the size of AdamW's (arXiv:2502.16982).
    """

    def __init__(self, params, momentum=0.95, decay=0.01):
        self.momentum, self.decay, self.buffers, self.groups = momentum, decay, {}, {}
        for p in params:
            self.groups.setdefault((p.shape[0], p[0].numel()), []).append(p)

    @torch.no_grad()
    def step(self, lr):
        for shape, params in self.groups.items():
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
            grad = torch.stack([g.reshape(shape) for g in grads])
            buffer = self.buffers.setdefault(shape, torch.zeros_like(grad))
            buffer.mul_(self.momentum).add_(grad)
            updates = orthogonalised(grad + self.momentum * buffer) * (0.2 * max(shape) ** 0.5)
            for p, update in zip(params, updates):
                p.mul_(1 - lr * self.decay).sub_(update.reshape(p.shape), alpha=lr)


def orthogonalised(x):
    """[matrices, rows, columns] with all singular values near 1."""
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.bfloat16() if AMX else x
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT.contiguous()
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    if tall:
        x = x.mT
    return x.float()
