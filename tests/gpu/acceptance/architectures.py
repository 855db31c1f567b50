"""ViT-B/16 and ConvNeXt-B in plain torch, with random weights, to be exported as programs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        q, k, v = self.qkv(self.first(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, width)
        x = x + self.out(seen)
        return x + self.mlp(self.second(x))


class Vit(nn.Module):
    """ViT-B/16 of Dosovitskiy et al. 2021 (arXiv:2010.11929): 86 million parameters."""

    def __init__(self, classes: int = 1000, width: int = 768, depth: int = 12, size: int = 224) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, (size // 16) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(_Block(width, width // 64) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        features = self.norm(self.blocks(x))[:, 0]
        return self.head(features), features


class _Norm(nn.LayerNorm):
    """Over the channels of [n, c, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Next(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1))) * self.scale
        return x + seen.permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """ConvNeXt-B of Liu et al. 2022 (arXiv:2201.03545): 89 million parameters."""

    def __init__(
        self,
        classes: int = 1000,
        widths: tuple[int, ...] = (128, 256, 512, 1024),
        depths: tuple[int, ...] = (3, 3, 27, 3),
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for n, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if n == 0:
                layers += [nn.Conv2d(before, width, 4, 4), _Norm(width)]
            else:
                layers += [_Norm(before), nn.Conv2d(before, width, 2, 2)]
            layers += [_Next(width) for _ in range(depth)]
            before = width
        self.stages = nn.Sequential(*layers)
        self.norm, self.head = nn.LayerNorm(before), nn.Linear(before, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.norm(self.stages(x).mean((2, 3)))
        return self.head(features), features
