import hansa
from hansa import Spec, Tree
from hansa.core import trees

numbers: Tree = {"weight": 1.0}  # E: Dict entry 0 has incompatible type "str": "float"
keys: Tree = {0: {}}  # E: Dict entry 0 has incompatible type "int"
spec = Spec.of([1, 2])  # E: Argument 1 to "of" of "Spec" has incompatible type "list[int]"
total: int = trees.norm({})  # E: Incompatible types in assignment
swapped = trees.scale(0.5, {})  # E: Argument 1 to "scale" has incompatible type "float"
message = hansa.shareable  # E: Module has no attribute "shareable"


def edit(tree: Tree) -> None:
    tree["weight"] = tree["bias"]  # E: Unsupported target for indexed assignment
