"""Known differences of other implementations, as data: fields that they expect, and deviating results."""

from axon_compose.checkpoints.upstream._fault import UpstreamFault
from axon_compose.checkpoints.upstream._faults import FAULTS, OWN_HEAD, faults_of
from axon_compose.checkpoints.upstream._fields import older_fields, with_older_fields
from axon_compose.checkpoints.upstream._loadable import require_loadable
from axon_compose.checkpoints.upstream._stock import stock_fields
from axon_compose.checkpoints.upstream._written import written_faults

__all__ = [
    "FAULTS",
    "OWN_HEAD",
    "UpstreamFault",
    "faults_of",
    "older_fields",
    "require_loadable",
    "stock_fields",
    "with_older_fields",
    "written_faults",
]
