import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hansa import codec
from hansa.core.task import Shareable
from hansa.errors import DataError
from hansa.runtime.client.channel import Begin, Broken, Do, Logged, Stepped, Tracked, from_worker
from hansa.runtime.client.serving import Served, load, load_data
from hansa.runtime.client.telling import Records, Voice

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
        for step in (1, 2):
            abort_signal.check()
            fl_ctx.track(step=step, of=4, loss=np.float32(0.5) if step == 1 else float("nan"))
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


@pytest.fixture
def line() -> Iterator[tuple[Voice, socket.socket]]:
    """The worker's voice, and the agent's end of the line."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Voice(theirs), ours


@pytest.fixture
def voice(line: tuple[Voice, socket.socket]) -> Voice:
    return line[0]


def served(begin: Begin, voice: Voice) -> Served:
    found = load(begin, voice)
    assert isinstance(found, Served)
    return found


def test_a_task_reads_body_data_and_memory_and_leaves_a_reply_and_a_memory(begin: Begin, voice: Voice) -> None:
    site = served(begin, voice)
    first = site.do(do(begin))
    assert (first.code, first.memory) == ("", ["count"])
    reply = codec.decode(Path(do(begin).out).read_bytes())
    assert np.asarray(reply.body["w"]).tolist() == [30.0, 31.0]
    assert reply.headers == {"where": "north 3"}
    second = site.do(do(begin, seq=2, count=f"{do(begin).out}.0"))
    assert second.code == ""
    assert codec.decode(Path(do(begin, seq=2).out).read_bytes()).metrics == {"count": 2.0}


def test_the_random_streams_are_those_of_a_simulation(begin: Begin, voice: Voice) -> None:
    from hansa.core.rng import generator

    served(begin, voice).do(do(begin))
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
def test_what_a_jobs_code_does_wrong_is_a_failure_and_the_worker_goes_on(
    begin: Begin, voice: Voice, task: str, code: str, words: str
) -> None:
    site = served(begin, voice)
    done = site.do(do(begin, task))
    assert (done.code, done.memory) == (code, [])
    assert words in done.message
    assert "Traceback" in done.trace
    assert site.do(do(begin, seq=2)).code == ""


def test_a_job_that_does_not_load_says_why(begin: Begin, voice: Voice) -> None:
    (Path(begin.source) / "job.py").write_text("import no_such_library\n")
    broken = load(begin, voice)
    assert isinstance(broken, Broken)
    assert "no_such_library" in broken.message


def test_data_is_loaded_once_and_kept(begin: Begin, voice: Voice) -> None:
    (Path(begin.base) / "data.py").write_text(COUNTED)
    site = served(begin, voice)
    for seq in (1, 2, 3):
        assert site.do(do(begin, seq=seq)).code == ""
    assert (Path(begin.base) / "loads").read_text() == "north\n"


def test_a_label_can_lead_to_a_path_that_the_jobs_code_reads(begin: Begin, voice: Voice, tmp_path: Path) -> None:
    place = msgspec.structs.replace(begin, data={}, places={"rows": str(tmp_path / "body"), "gone": "/no/such/folder"})
    site = served(place, voice)
    assert site._load(0, "rows") == tmp_path / "body"
    with pytest.raises(DataError, match="are not there; at path /no/such/folder"):
        site._load(0, "gone")


def test_a_label_without_a_loader_is_named(begin: Begin) -> None:
    with pytest.raises(DataError, match="no such data"):
        load_data(begin.data, "missing", Path(begin.base), slot=0, site="x")


def test_what_code_tracks_and_each_check_of_its_signal_reach_the_agent_as_lines(
    begin: Begin, line: tuple[Voice, socket.socket]
) -> None:
    voice, agent = line
    served(begin, voice).do(do(begin))
    said = [from_worker(each) for each in agent.recv(65_536).splitlines()]
    assert [each for each in said if isinstance(each, Tracked)] == [
        Tracked(values={"loss": 0.5}, step=1, of=4),
        Tracked(values={"loss": None}, step=2, of=4),  # JSON has no nan
    ]
    assert Stepped(steps=1) in said  # further ones within half a second are not worth a line


def test_a_record_of_logging_is_one_line_whatever_it_says_and_a_wrong_format_ends_nothing(
    line: tuple[Voice, socket.socket], capsys: pytest.CaptureFixture[str]
) -> None:
    voice, agent = line
    logger = logging.Logger("job.site")
    logger.addHandler(Records(voice))
    logger.warning("loss %s\nERROR forged: line", 0.5)
    logger.info("%d rows", "many")
    [said] = agent.recv(65_536).splitlines()
    assert from_worker(said) == Logged(level="WARNING", logger="job.site", text="loss 0.5\nERROR forged: line")
    assert "Logging error" in capsys.readouterr().err
