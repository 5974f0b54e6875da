"""`tff.backends`: programs choose a context first. Here a computation that is called runs; there is nothing to set."""

from types import SimpleNamespace

from hansa.errors import TraceError


def set_sync_local_cpp_execution_context(default_num_clients: int = 0, max_fanout: int = 100) -> None:  # noqa: ARG001  TFF's
    """Return: a computation that is called runs as it is.

    Raises:
        TraceError: a default number of clients is asked for; a call says it: `f.over(10)(...)`.
    """
    if default_num_clients:
        raise TraceError(
            "there is no default number of clients", path="default_num_clients", got=default_num_clients, hint="call f.over(n)(...)"
        )


native = SimpleNamespace(
    set_sync_local_cpp_execution_context=set_sync_local_cpp_execution_context,
    set_local_python_execution_context=set_sync_local_cpp_execution_context,
    set_local_execution_context=set_sync_local_cpp_execution_context,
)
test = SimpleNamespace(set_sync_test_cpp_execution_context=set_sync_local_cpp_execution_context)
