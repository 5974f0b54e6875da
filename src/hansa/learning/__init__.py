"""Learning algorithms, one file per paper, and workflows over learners beside the synchronous round."""

from hansa.learning.cross_site import cross_site, evaluate
from hansa.learning.cyclic import cyclic
from hansa.learning.fedavg import fedavg
from hansa.learning.fedopt import fedopt
from hansa.learning.fedper import fedper
from hansa.learning.fedprox import fedprox
from hansa.learning.fedsgd import fedsgd
from hansa.learning.iterated import iterate
from hansa.learning.local_only import local_only
from hansa.learning.once import once
from hansa.learning.scaffold import scaffold
from hansa.learning.sequence import Sequence
from hansa.learning.statistics import statistics

__all__ = [
    "Sequence",
    "cross_site",
    "cyclic",
    "evaluate",
    "fedavg",
    "fedopt",
    "fedper",
    "fedprox",
    "fedsgd",
    "iterate",
    "local_only",
    "once",
    "scaffold",
    "statistics",
]
