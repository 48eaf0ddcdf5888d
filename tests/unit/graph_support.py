"""The graph that TensorFlow runs, after its optimizer has changed it."""

from collections.abc import Callable, Iterable
from typing import Any

from tensorflow.python.eager import context


def run_graph(function: Callable[..., Any], *arguments: Any) -> tuple[Any, list[list[Any]]]:
    """Call a `tf.function` for the first time.

    Returns its result and the nodes that ran, a list for the graph and for each function in it. A function
    that XLA compiles is left out: its kernels are not TensorFlow's, and it adds as it is written.
    """
    context.context().enable_graph_collection()
    try:
        result = function(*arguments)
    finally:
        metadata = context.context().export_run_metadata()
        context.context().disable_graph_collection()
    graphs: list[list[Any]] = []
    for each in metadata.function_graphs:
        graph = each.post_optimization_graph
        graphs.append(list(graph.node))
        graphs += [list(f.node_def) for f in graph.library.function if not f.attr["_XlaMustCompile"].b]
    return result, graphs


def summands(graphs: Iterable[list[Any]]) -> list[list[str]]:
    """Of each AddN, the operations that make what it adds."""
    found = []
    for nodes in graphs:
        made_by = {node.name: node.op for node in nodes}
        found += [
            [made_by.get(name.split(":")[0], "") for name in node.input if not name.startswith("^")]
            for node in nodes
            if node.op == "AddN"
        ]
    return found
