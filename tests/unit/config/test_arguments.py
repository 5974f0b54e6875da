from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, Unpack

import pytest

from hansa.config.arguments import Arguments, expressible, locate
from hansa.config.overrides import value
from hansa.errors import ConfigError, DataError


class Options(TypedDict, total=False):
    lr: float | Callable[[int], float] | None
    hook: Callable[[], None]


class Model:
    def __init__(self, data: object, *, width: int = 3, **options: Unpack[Options]) -> None: ...


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        (int, int),
        (str | Path, str),
        (Annotated[int, "rows"], int),
        (Sequence[float], Sequence[float]),
        (tuple[int, ...], tuple[int, ...]),
        (Mapping[str, Any], Mapping[str, Any]),
        (Literal["a"], Literal["a"]),
        (Sequence[str | Path] | None, Sequence[str] | None),
        (Callable[[], None], None),
        (object, None),
        (list[Callable[[], None]] | None, None),
    ],
)
def test_what_toml_can_say_of_a_type(hint: Any, said: Any) -> None:
    assert expressible(hint) == said


def test_the_arguments_of_a_class_include_its_typed_options() -> None:
    arguments = Arguments.of(Model, given=1)
    assert arguments.check({"width": 4, "lr": 1}, path="$.learner") == {"width": 4, "lr": 1.0}
    with pytest.raises(ConfigError, match="a job file cannot hold this"):
        arguments.check({"hook": 1}, path="$.learner")
    with pytest.raises(ConfigError, match=r"\$\.learner\.widht.*did you mean 'width'"):
        arguments.check({"widht": 4}, path="$.learner")


def test_an_error_from_inside_names_the_key_of_the_file() -> None:
    with pytest.raises(DataError) as caught, locate({"metrics": "$.metrics.names"}):
        raise DataError("no", path="metrics[1]")
    assert caught.value.path == "$.metrics.names[1]"
    with pytest.raises(DataError) as caught, locate({}):
        raise DataError("no", path="/a/file")
    assert caught.value.path == "/a/file"


def test_an_override_cannot_smuggle_a_second_key_in() -> None:
    assert value("1\nseed = 2") == "1\nseed = 2"
