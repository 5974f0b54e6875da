"""Learning algorithms, one file per paper."""

from hansa.learning.cross_site import cross_site, evaluate
from hansa.learning.cyclic import cyclic
from hansa.learning.fedavg import fedavg
from hansa.learning.fedopt import fedopt
from hansa.learning.fedper import fedper
from hansa.learning.fedprox import fedprox
from hansa.learning.fedsgd import fedsgd
from hansa.learning.local_only import local_only
from hansa.learning.scaffold import scaffold

__all__ = ["cross_site", "cyclic", "evaluate", "fedavg", "fedopt", "fedper", "fedprox", "fedsgd", "local_only", "scaffold"]
