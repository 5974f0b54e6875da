from pathlib import Path

import msgspec
import numpy as np
import pytest

from hansa.core import codec
from hansa.core.task import Shareable
from hansa.errors import DataError
from hansa.runtime.client.channel import Begin, Broken, Do
from hansa.runtime.client.serving import Served, load, load_data

JOB = """
import numpy as np
import hansa as hs
from hansa.core.task import Shareable

class Echo(hs.Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        if task_name == "raise":
            raise KeyError("patient 4711")
        if task_name == "exit":
            raise SystemExit(3)
        if task_name == "wrong":
            return {"w": 1}
        if task_name == "name":
            fl_ctx.memory.put("a/b", {"x": np.zeros(1)})
        before = fl_ctx.memory.get("count")
        count = 1 if before is None else int(before["n"][0]) + 1
        fl_ctx.memory.put("count", {"n": np.array([count])})
        assert int(fl_ctx.memory.get("count")["n"][0]) == count
        rows = fl_ctx.load(fl_ctx.data)
        drawn = fl_ctx.rng("draw").standard_normal(2)
        headers = {"where": f"{fl_ctx.site} {fl_ctx.slot}"}
        return Shareable({"w": shareable.body["w"] + rows, "drawn": drawn}, {"count": float(count)}, headers)

job = hs.Job("echo", lambda federation: None, data="rows", executor=Echo())
"""
DATA = "def load(slot):\n    return 10.0 * slot\n"
COUNTED = """
from pathlib import Path

def load(slot, site):
    with (Path(__file__).parent / "loads").open("a") as file:
        file.write(f"{site}\\n")
    return 10.0 * slot
"""


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "data.py").write_text(DATA)
    (tmp_path / "body").write_bytes(codec.encode(Shareable({"w": np.arange(2.0)})))
    return Begin(
        run="r1",
        site="north",
        source=str(tmp_path),
        reference="job.py:job",
        folder=str(tmp_path),
        base=str(tmp_path),
        data={"rows": "data.py:load"},
        hidden=[],
        shown=[],
        sandbox="off",
    )


def do(begin: Begin, task: str = "echo", seq: int = 1, **memory: str) -> Do:
    folder = Path(begin.folder)
    return Do(
        seq=seq,
        attempt=1,
        slot=3,
        task=task,
        round=2,
        seed=7,
        population=4,
        job="echo",
        data="rows",
        body=str(folder / "body"),
        out=str(folder / f"out{seq}"),
        memory=memory,
    )


def served(begin: Begin) -> Served:
    found = load(begin)
    assert isinstance(found, Served)
    return found


def test_a_task_reads_body_data_and_memory_and_leaves_a_reply_and_a_memory(begin: Begin) -> None:
    site = served(begin)
    first = site.do(do(begin))
    assert (first.code, first.memory) == ("", ["count"])
    reply = codec.decode(Path(do(begin).out).read_bytes())
    assert np.asarray(reply.body["w"]).tolist() == [30.0, 31.0]
    assert reply.headers == {"where": "north 3"}
    second = site.do(do(begin, seq=2, count=f"{do(begin).out}.0"))
    assert second.code == ""
    assert codec.decode(Path(do(begin, seq=2).out).read_bytes()).metrics == {"count": 2.0}


def test_the_random_streams_are_those_of_a_simulation(begin: Begin) -> None:
    from hansa.core.rng import generator

    served(begin).do(do(begin))
    drawn = codec.decode(Path(do(begin).out).read_bytes()).body["drawn"]
    np.testing.assert_array_equal(drawn, generator(7, round=2, slot=3, purpose="draw").standard_normal(2))


@pytest.mark.parametrize(
    ("task", "code", "words"),
    [
        ("raise", "client", "KeyError: 'patient 4711'"),
        ("exit", "client", "SystemExit: 3"),
        ("wrong", "data", "an executor returns a Shareable; got dict"),
        ("name", "spec", "a key must be a non-empty string"),
    ],
)
def test_what_a_jobs_code_does_wrong_is_a_failure_and_the_worker_goes_on(begin: Begin, task: str, code: str, words: str) -> None:
    site = served(begin)
    done = site.do(do(begin, task))
    assert (done.code, done.memory) == (code, [])
    assert words in done.message
    assert "Traceback" in done.trace
    assert site.do(do(begin, seq=2)).code == ""


def test_a_job_that_does_not_load_says_why(begin: Begin) -> None:
    (Path(begin.source) / "job.py").write_text("import no_such_library\n")
    broken = load(begin)
    assert isinstance(broken, Broken)
    assert "no_such_library" in broken.message


def test_data_is_loaded_once_and_kept(begin: Begin) -> None:
    (Path(begin.base) / "data.py").write_text(COUNTED)
    site = served(begin)
    for seq in (1, 2, 3):
        assert site.do(do(begin, seq=seq)).code == ""
    assert (Path(begin.base) / "loads").read_text() == "north\n"


def test_a_label_can_lead_to_a_path_that_the_jobs_code_reads(begin: Begin, tmp_path: Path) -> None:
    place = msgspec.structs.replace(begin, data={}, places={"rows": str(tmp_path / "body"), "gone": "/no/such/folder"})
    site = served(place)
    assert site._load(0, "rows") == tmp_path / "body"
    with pytest.raises(DataError, match="are not there; at path /no/such/folder"):
        site._load(0, "gone")


def test_a_label_without_a_loader_is_named(begin: Begin) -> None:
    with pytest.raises(DataError, match="no such data"):
        load_data(begin.data, "missing", Path(begin.base), slot=0, site="x")
