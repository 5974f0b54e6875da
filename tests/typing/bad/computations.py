import hansa as hs
from hansa.core.protocols import Dataset


def count(data: Dataset) -> int:
    return len(data)


@hs.federated_computation
def total(data: hs.Clients[Dataset]) -> hs.Server[str]:
    rows = hs.federated_map(count, data)
    return hs.federated_sum(rows)  # E: Incompatible return value type (got "int", expected "str")


@hs.federated_computation
def named(data: hs.Clients[Dataset]) -> hs.Server[int]:
    return hs.federated_sum(hs.federated_map(count, data).rows)  # E: "int" has no attribute "rows"


hs.federated_value(1, "server")  # E: Argument 2 to "federated_value" has incompatible type "str"; expected "Placement"
hs.FederatedType(int, "clients")  # E: Argument 2 to "FederatedType" has incompatible type "str"; expected "Placement"


class Silent(hs.Executor):
    def execute(self, task_name: str, shareable: hs.Shareable) -> hs.Shareable:  # E: Signature of "execute" incompatible
        return shareable
