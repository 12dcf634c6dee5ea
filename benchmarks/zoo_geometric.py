"""Networks and layers of PyTorch Geometric."""

import importlib
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from zoo_case import Case, load


def graph() -> list[Tensor]:
    """Twelve nodes and forty edges."""
    return [torch.randn(12, 8), torch.randint(0, 12, (2, 40))]


def _geometric(name: str, **arguments: Any) -> nn.Module:
    load("torch-geometric")
    models: Any = importlib.import_module("torch_geometric.nn.models")
    return getattr(models, name)(8, 16, 2, 4, **arguments)


def _layers(name: str, *arguments: Any, **more: Any) -> nn.Module:
    """Two layers of one kind with a ReLU between."""
    load("torch-geometric")
    library: Any = importlib.import_module("torch_geometric.nn")
    kind = getattr(library, name)
    return library.Sequential(
        "x, edges",
        [
            (kind(8, 16, *arguments, **more), "x, edges -> x"),
            nn.ReLU(inplace=True),
            (kind(16, 4, *arguments, **more), "x, edges -> x"),
        ],
    )


def _deep_gcn(recomputed: bool) -> nn.Module:
    load("torch-geometric")
    library: Any = importlib.import_module("torch_geometric.nn")

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = nn.Linear(8, 16), nn.Linear(16, 4)
            self.layers = nn.ModuleList(
                library.DeepGCNLayer(
                    library.GENConv(16, 16, num_layers=2),
                    nn.LayerNorm(16),
                    nn.ReLU(inplace=True),
                    block="res+",
                    dropout=0.1,
                    ckpt_grad=recomputed,
                )
                for _ in range(2)
            )

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            x = self.encode(x)
            for layer in self.layers:
                x = layer(x, edges)
            return self.decode(x)

    return Deep()


def geometric_cases() -> dict[str, Case]:
    kind = "torch-geometric"
    cases = {
        name: Case(kind, partial(_geometric, name, dropout=0.1), graph)
        for name in ("GCN", "GraphSAGE", "GIN", "GAT", "EdgeCNN")
    }
    pna = {"aggregators": ["mean", "max", "std"], "scalers": ["identity", "amplification"]}
    degrees = torch.tensor([0, 3, 4, 3, 2])
    cases["PNA"] = Case(kind, partial(_geometric, "PNA", deg=degrees, **pna), graph)
    layers: dict[str, dict[str, Any]] = {
        "ChebConv": {"K": 3},
        "TAGConv": {},
        "ARMAConv": {},
        "GATv2Conv": {},
        "TransformerConv": {},
        "GENConv": {},
        "SGConv": {"K": 2},
        "LEConv": {},
        "ClusterGCNConv": {},
        "ResGatedGraphConv": {},
        "SuperGATConv": {},
    }
    cases |= {name: Case(kind, partial(_layers, name, **more), graph) for name, more in layers.items()}
    cases["DeepGCN"] = Case(kind, partial(_deep_gcn, False), graph, recomputing=partial(_deep_gcn, True))
    return cases
