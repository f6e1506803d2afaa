"""Plugins and the components that they bring; imports no mlx."""

from axon_compose.registry._components import DeferredSpecs
from axon_compose.registry._dims import Dims
from axon_compose.registry._discovery import Candidate
from axon_compose.registry._failure import LookupFailure, one_line
from axon_compose.registry._faults import Fault
from axon_compose.registry._guard import DEBUG_HELP, Guard, PluginFault, Raised, debug_traceback
from axon_compose.registry._hooks import hookimpl, hookspec
from axon_compose.registry._host import PluginStatus, Registry
from axon_compose.registry._learning import Constant, Learning, Normal, matching
from axon_compose.registry._options import (
    as_data,
    check_options,
    defaults,
    load_factory,
    option_names,
    options_schema,
    shrunken,
    written,
)
from axon_compose.registry._pydantic import Options, pydantic_faults
from axon_compose.registry._specs import (
    KINDS,
    KV,
    PASS_VALUES,
    ArchitectureSpec,
    Array,
    CacheSpec,
    ComponentSpec,
    Composite,
    Kind,
    Optioned,
    State,
    cache_leaves,
)
from axon_compose.registry._splits import ONCE, WHOLE, Cut, Gathered, Role, Segment, Shard, Split, Summed, columns, rows
from axon_compose.registry._tasks import TaskSpec, load_task
from axon_compose.registry._transfers import (
    SAME,
    Case,
    Piece,
    Setting,
    Transfer,
    TransferExample,
    load_make,
    pieces_of,
    transfers_from,
)

__all__ = [
    "DEBUG_HELP",
    "KINDS",
    "KV",
    "ONCE",
    "PASS_VALUES",
    "SAME",
    "WHOLE",
    "ArchitectureSpec",
    "Array",
    "CacheSpec",
    "Candidate",
    "Case",
    "ComponentSpec",
    "Composite",
    "Constant",
    "Cut",
    "DeferredSpecs",
    "Dims",
    "Fault",
    "Gathered",
    "Guard",
    "Kind",
    "Learning",
    "LookupFailure",
    "Normal",
    "Optioned",
    "Options",
    "Piece",
    "PluginFault",
    "PluginStatus",
    "Raised",
    "Registry",
    "Role",
    "Segment",
    "Setting",
    "Shard",
    "Split",
    "State",
    "Summed",
    "TaskSpec",
    "Transfer",
    "TransferExample",
    "as_data",
    "cache_leaves",
    "check_options",
    "columns",
    "debug_traceback",
    "defaults",
    "hookimpl",
    "hookspec",
    "load_factory",
    "load_make",
    "load_task",
    "matching",
    "one_line",
    "option_names",
    "options_schema",
    "pieces_of",
    "pydantic_faults",
    "rows",
    "shrunken",
    "transfers_from",
    "written",
]
