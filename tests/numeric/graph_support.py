"""The graph that TensorFlow runs: as it is traced, and after its optimizer has changed it."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import function_def_to_graph, kernels


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


def all_operations(graph: Any) -> Iterator[Any]:
    """The operations of a traced graph and of the functions in it."""
    yield from graph.get_operations()
    for definition in graph.as_graph_def().library.function:
        yield from function_def_to_graph.function_def_to_graph(definition).get_operations()


def is_compiled_by_xla(operation: Any) -> bool:
    """Whether XLA compiles an operation."""
    return "_XlaMustCompile" in str(operation.node_def)


_registered = functools.cache(kernels.get_registered_kernels_for_op)  # TensorFlow goes through all of them


def gpu_kernel(operation: Any) -> Any:
    """The GPU kernel that this build of TensorFlow has for an operation with these types, or None."""

    def fits(kernel: Any) -> bool:
        for constraint in kernel.constraint:
            value = operation.node_def.attr[constraint.name]
            types = value.list.type if value.WhichOneof("value") == "list" else [value.type]
            if not set(types) <= set(constraint.allowed_values.list.type):
                return False
        return kernel.device_type in ("GPU", "DEFAULT")

    return next(filter(fits, _registered(operation.type).kernel), None)


def _in_host_memory(operation: Any, tensors: Sequence[Any], arguments: Any) -> list[bool]:
    """Of each input, or output, whether a GPU has it in the host's memory."""
    # of a call by type: TensorFlow's `core/framework/memory_types.cc`
    if operation.type.endswith("PartitionedCall"):
        return [tensor.dtype == tf.int32 for tensor in tensors]
    kernel = gpu_kernel(operation)
    on_host: list[bool] = []
    for argument in arguments:
        number = 1
        if argument.number_attr:
            number = operation.get_attr(argument.number_attr)
        elif argument.type_list_attr:
            number = len(operation.get_attr(argument.type_list_attr))
        on_host += [kernel is not None and argument.name in kernel.host_memory_arg] * number
    return on_host


def ways_to_the_host(operations: Iterable[Any]) -> list[str]:
    """What a GPU computes and the next operation reads on the host, so that the host waits for the GPU."""
    found = []
    for operation in operations:
        for tensor, on_host in zip(
            operation.inputs,
            _in_host_memory(operation, operation.inputs, operation.op_def.input_arg),
            strict=True,
        ):
            source = tensor.op
            of_cpu = "CPU" in source.device.upper()
            made_on_host = _in_host_memory(source, source.outputs, source.op_def.output_arg)[
                tensor.value_index
            ]
            if on_host and not (made_on_host or of_cpu or source.type in ("Placeholder", "Const")):
                found.append(f"{source.type} -> {operation.type}")
    return found
